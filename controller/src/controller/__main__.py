"""``python -m controller``."""

import sys

from controller.settings import ControllerSettings
from runnerlib.service.settings import load_settings


def main() -> int:
    """Only `worker` opens a SQLite file, and no other store is offered yet."""
    settings = load_settings(ControllerSettings)
    if settings.database_url.startswith("sqlite") and not settings.queue_url:
        print(
            "On SQLite the controller and the gateway are one process, because one process must own the file; "
            "start it with: worker up",
            file=sys.stderr,
        )
    else:
        print(
            "Only SQLite is available yet; leave DATABASE_URL and QUEUE_URL unset and start everything with: worker up",
            file=sys.stderr,
        )
    return 2


if __name__ == "__main__":
    sys.exit(main())
