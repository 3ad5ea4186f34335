"""A task at rest: the queue and the task store, each behind a small protocol."""
