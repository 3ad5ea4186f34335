"""The adapter convention: from a ``runner_adapter.py`` to frozen data, and from there to calls.

Start with :func:`load_adapter`; what it returns is described in :mod:`runnerlib.adapter.model`.
"""
