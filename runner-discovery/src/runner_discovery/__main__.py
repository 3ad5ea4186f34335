"""``python -m runner_discovery``: settings → logs → build → run."""

import sys

from runner_discovery.build import build
from runner_discovery.settings import Settings
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import load_settings


def main() -> int:
    settings = load_settings(Settings)
    configure_logging("runner-discovery", settings)
    return run_service(build(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
