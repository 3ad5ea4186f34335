"""What worker processes are told, and whom their slots tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runnerlib.fetching.addresses import FetchRules
from runnerlib.run_table import Outcome, Run


@dataclass(frozen=True)
class ProcessSetup:
    """What every worker process is told at its start."""

    adapter: str
    #: where the serving process finds modules
    import_path: tuple[str, ...]
    overrides: Mapping[str, str]
    device: str
    service: str
    log_level: str
    log_format: str
    fetch_rules: FetchRules
    algorithms: tuple[str, ...] = ()
    is_async: bool = False
    watch_rss: bool = False
    self_test: bool = False


@dataclass(frozen=True)
class Callbacks:
    """Where ends of runs are recorded; `ready_changed` is called when a process has loaded, or cannot."""

    finish: Callable[[Run, Outcome], None]
    release: Callable[[Run], None]
    ready_changed: Callable[[], None]
