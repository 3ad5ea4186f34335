"""``python -m producer.gateway``: a gateway in a process of its own."""

import sys

from producer.gateway.service import GatewayService
from producer.gateway.settings import GatewaySettings
from runnerlib.service.lifecycle import run_service
from runnerlib.service.logs import configure_logging
from runnerlib.service.settings import load_settings
from taskqueue.addresses import check_addresses
from taskqueue.errors import TaskQueueError


def main() -> int:
    """Returns the exit code: 2, with a message, unless RabbitMQ and PostgreSQL are configured."""
    settings = load_settings(GatewaySettings)
    try:
        check_addresses(settings.queue, settings.database_url)
    except TaskQueueError as error:
        print(error, file=sys.stderr)
        return 2
    configure_logging("gateway", settings)
    return run_service(GatewayService(settings).enter, settings)


if __name__ == "__main__":
    sys.exit(main())
