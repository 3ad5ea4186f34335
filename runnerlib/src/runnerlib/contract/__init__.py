"""The words and shapes that cross a process border. Needs pydantic only."""

from runnerlib.contract.envelope import Envelope, EnvelopeError, parse_envelope, task_digest
from runnerlib.contract.names import (
    ALGORITHM_PATTERN,
    HEADER_BOOT,
    HEADER_TASK_ATTEMPT,
    HEADER_TASK_DEADLINE,
    HEADER_TASK_ID,
    TASK_ID_PATTERN,
    is_algorithm,
    is_task_id,
    near_names,
    new_task_id,
)
from runnerlib.contract.problems import PROBLEM_MEDIA_TYPE, Problem
from runnerlib.contract.registry import (
    AlgorithmDescription,
    AlgorithmView,
    Catalogue,
    Example,
    Limits,
    PlainRegistration,
    RunnerLevel,
    RunnerRegistration,
    RunnerView,
    schema_digest,
)
from runnerlib.contract.runner_api import BatchEntry, BatchItem, EntryState, Progress, RunError
from runnerlib.contract.strict_json import StrictJsonError
from runnerlib.contract.tasks import FailureCode, HistoryEntry, TaskError, TaskState, TaskView

__all__ = [
    "ALGORITHM_PATTERN",
    "HEADER_BOOT",
    "HEADER_TASK_ATTEMPT",
    "HEADER_TASK_DEADLINE",
    "HEADER_TASK_ID",
    "PROBLEM_MEDIA_TYPE",
    "TASK_ID_PATTERN",
    "AlgorithmDescription",
    "AlgorithmView",
    "BatchEntry",
    "BatchItem",
    "Catalogue",
    "EntryState",
    "Envelope",
    "EnvelopeError",
    "Example",
    "FailureCode",
    "HistoryEntry",
    "Limits",
    "PlainRegistration",
    "Problem",
    "Progress",
    "RunError",
    "RunnerLevel",
    "RunnerRegistration",
    "RunnerView",
    "StrictJsonError",
    "TaskError",
    "TaskState",
    "TaskView",
    "is_algorithm",
    "is_task_id",
    "near_names",
    "new_task_id",
    "parse_envelope",
    "schema_digest",
    "task_digest",
]
