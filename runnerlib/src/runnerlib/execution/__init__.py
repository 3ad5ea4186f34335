"""The border between the HTTP side and the worker processes: who runs what, how long, and what a death costs."""
