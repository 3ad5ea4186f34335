"""The whole environment on one machine: discovery, controller + gateway, and every runner, without containers."""
