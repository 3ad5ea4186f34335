"""Names that all parties spell alike: algorithms, task ids, headers."""

import difflib
import itertools
import re
import secrets
from collections.abc import Iterable

#: An algorithm's name. Our own queues' names have a hyphen or a dot, which no algorithm's name can have.
ALGORITHM_PATTERN = r"[a-z][a-z0-9_]{0,62}"
#: A task id, given by the producer or by us.
TASK_ID_PATTERN = r"[A-Za-z0-9._:-]{1,128}"
#: Whom a task is done for: groups take turns.
GROUP_PATTERN = r"[A-Za-z0-9._:-]{1,64}"

HEADER_TASK_ID = "Task-Id"
HEADER_TASK_ATTEMPT = "Task-Attempt"
#: Seconds left for the task, never a clock time: two machines' clocks differ.
HEADER_TASK_DEADLINE = "Task-Deadline"
#: Which process answered; another boot id at the same address means that all it was running is gone.
HEADER_BOOT = "Runner-Boot"

#: In a payload's JSON Schema, with the value false: only the runner can check this part.
UNCHECKED = "x-checked"

#: Names that one is compared with; each takes some 30 µs, and an environment may have thousands.
_MOST_COMPARED = 1000

_ALGORITHM = re.compile(ALGORITHM_PATTERN)
_TASK_ID = re.compile(TASK_ID_PATTERN)
_GROUP = re.compile(GROUP_PATTERN)


def is_algorithm(name: object) -> bool:
    return isinstance(name, str) and _ALGORITHM.fullmatch(name) is not None


def is_task_id(text: object) -> bool:
    return isinstance(text, str) and _TASK_ID.fullmatch(text) is not None


def is_group(text: object) -> bool:
    return isinstance(text, str) and _GROUP.fullmatch(text) is not None


def new_task_id() -> str:
    """A random id of 128 bits, so that ids cannot be guessed."""
    return secrets.token_hex(16)


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that look like `name`, best first; for did-you-mean sentences."""
    return difflib.get_close_matches(name, itertools.islice(known, _MOST_COMPARED), n=3, cutoff=0.6)
