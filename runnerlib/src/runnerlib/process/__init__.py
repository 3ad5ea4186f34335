"""The worker process, where handlers run: ``python -m runnerlib.process``, started by :mod:`runnerlib.execution`.

Speaks frames (:mod:`runnerlib.frames`) over a socket that it inherits, with the process that started it alone.
"""
