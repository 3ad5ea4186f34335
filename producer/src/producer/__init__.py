"""Submits tasks: an HTTP gateway, a command line and a small Python client."""
