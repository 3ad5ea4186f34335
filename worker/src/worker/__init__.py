"""The whole environment on one machine."""
