"""``check``: finds before deploy what would make a start fail."""

import sys
from pathlib import Path

from runnerlib.adapter.errors import shown
from runnerlib.adapter.json_types import spelt
from runnerlib.adapter.loading import load_adapter
from runnerlib.adapter.model import Adapter, Algorithm, registration_problems
from runnerlib.adapter.session import LoadError, SelfTestFailed, Session
from runnerlib.fetching.addresses import FetchRules
from runnerlib.settings import option_overrides

#: The exit code for algorithms that cannot be registered: the runner can be started and serves the others.
UNREGISTRABLE = 4


def check(path: Path, device: str, fetch_rules: FetchRules, *, self_test: bool) -> int:
    """Prints one line for each algorithm. Raises AdapterError for mistakes.

    1 when an example fails; UNREGISTRABLE when an algorithm cannot be registered, and the others work.
    """
    adapter = load_adapter(path, option_overrides())
    count = len(adapter.algorithms)
    print(f"{adapter.path.name}: {count} {'algorithm' if count == 1 else 'algorithms'}")
    for algorithm in adapter.algorithms.values():
        print(f"  {_line(algorithm)}")
    for note in (*adapter.notes, *(note for algorithm in adapter.algorithms.values() for note in algorithm.notes)):
        print(f"note: {note}")
    problems = registration_problems(adapter)
    for problem in problems:
        print(problem, file=sys.stderr)
    failed = _self_test(adapter, device, fetch_rules) if self_test else 0
    return failed or (UNREGISTRABLE if problems else 0)


def _line(algorithm: Algorithm) -> str:
    fields = ", ".join(
        f"{p.field}: {spelt(p.annotation)}" + ("" if p.required else f" = {shown(p.default)}")
        for p in algorithm.parameters
    )
    returns = "" if algorithm.returns is None else f" -> {spelt(algorithm.return_hint)}"
    traits = ["batched"] * algorithm.has_batch + ["async"] * algorithm.is_async
    suffix = f"  [{', '.join(traits)}]" if traits else ""
    return f"{algorithm.name}({fields}){returns}{suffix}  {algorithm.summary or '(no docstring)'}"


def _self_test(adapter: Adapter, device: str, fetch_rules: FetchRules) -> int:
    failed = False
    try:
        with Session(adapter, device=device, fetch_rules=fetch_rules) as session:
            for name in adapter.algorithms:
                try:
                    state = session.self_test(name).state
                except SelfTestFailed as error:
                    failed = True
                    print(error, file=sys.stderr)
                    if isinstance(error.__cause__, KeyboardInterrupt):
                        break  # perhaps somebody pressed Ctrl-C
                else:
                    print(f"example of {name}: {'not there' if state == 'none' else state}")
    except LoadError as error:
        failed = True
        print(error, file=sys.stderr)
    return 1 if failed else 0
