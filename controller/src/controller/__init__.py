"""Takes tasks from the queue, finds their runner, dispatches, records, acknowledges."""
