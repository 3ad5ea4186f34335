"""Runs calls in worker processes that can be killed: which runs go where, for how long, and what a death costs."""
