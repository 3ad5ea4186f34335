"""``python -m controller``: a controller in a process of its own."""

import sys

from controller.service import service
from controller.settings import ControllerSettings
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import load_settings
from taskqueue.addresses import check_addresses
from taskqueue.errors import TaskQueueError


def main() -> int:
    """Refuses in a sentence, with exit code 2, what is not RabbitMQ with PostgreSQL."""
    settings = load_settings(ControllerSettings)
    try:
        check_addresses(settings.queue, settings.database_url)
    except TaskQueueError as error:
        print(error, file=sys.stderr)
        return 2
    configure_logging("controller", settings)
    return run_service(service(settings), settings)


if __name__ == "__main__":
    sys.exit(main())
