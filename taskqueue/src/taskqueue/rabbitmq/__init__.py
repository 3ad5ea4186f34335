"""Tasks on RabbitMQ: one connection that heals itself, channels with awaitable calls, and the queue built on them."""
