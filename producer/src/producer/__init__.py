"""Submits tasks: the HTTP gateway and the command line."""
