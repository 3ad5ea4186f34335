"""How often the kernel has killed for lack of memory, as far as it tells."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def memory_kills(root: Path = _ROOT) -> int | None:
    """Processes killed so far in our control group, else on the whole machine; None where nothing tells.

    A container is such a group: what its neighbours are killed for does not count there.
    """
    for counters in _places(root):
        with suppress(OSError, ValueError):
            for line in counters.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return None


def _places(root: Path) -> Iterator[Path]:
    """The nearest first. In a container our group may be mounted as if it were the top one."""
    groups = root / "sys/fs/cgroup"
    own: dict[str, str] = {}
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            own |= dict.fromkeys(controllers.split(","), path.strip("/"))
    for place, controller, name in (
        (groups, "", "memory.events"),
        (groups / "memory", "memory", "memory.oom_control"),
    ):
        yield place / own.get(controller, "") / name
        yield place / name
    yield root / "proc/vmstat"
