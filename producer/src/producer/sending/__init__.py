"""Sends a file of messages, however long: in windows, resumable, each line one task."""
