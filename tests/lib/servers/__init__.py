"""Real servers for tests and benchmarks: each instance has its own folder and ports, and may be killed or frozen."""
