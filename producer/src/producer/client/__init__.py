"""The Python clients: blocking, for asyncio, and the sender to a broker."""
