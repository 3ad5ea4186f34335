"""Turns the ``run_*`` functions of a ``runner_adapter.py`` into a typed HTTP runner.

Authors import nothing from here: they write plain functions and start ``python -m runnerlib``.
:mod:`runnerlib.testing` is there for their tests. The two shelves :mod:`runnerlib.contract` and
:mod:`runnerlib.service` are shared by all services of the environment.
"""

__version__ = "0.2.0"
