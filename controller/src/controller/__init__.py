"""Takes tasks from the queue, finds their runner, dispatches them, records what became of them."""
