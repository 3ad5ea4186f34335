"""Whether a process can do its work, part by part."""


class Health:
    """Readiness of a process: ready when every part that was named is ready.

    A part named at construction starts unready, so that the process is not ready before that part has reported once.
    """

    def __init__(self, *parts: str) -> None:
        self._unready = dict.fromkeys(parts, "starting")

    def set(self, part: str, ready: bool, reason: str = "") -> None:
        """Sets the state of one part; `reason` says why it is not ready. Safe from any thread."""
        if ready:
            self._unready.pop(part, None)
        else:
            self._unready[part] = reason or "not ready"

    @property
    def is_ready(self) -> bool:
        return not self._unready

    @property
    def reasons(self) -> dict[str, str]:
        """Part → why it is not ready; empty when all are."""
        return dict(self._unready)
