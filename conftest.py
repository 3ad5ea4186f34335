"""Imports our packages before pytest names the test modules after the folders, which have the same names."""

import controller
import producer
import runner_discovery
import runnerlib
import taskqueue
import worker

__all__ = ["controller", "producer", "runner_discovery", "runnerlib", "taskqueue", "worker"]
