"""The registry: which runner serves which algorithm."""
