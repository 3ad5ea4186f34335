"""Queue and task store in one SQLite file, which one process owns."""
