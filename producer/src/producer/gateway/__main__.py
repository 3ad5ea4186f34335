"""``python -m producer.gateway``: a gateway in a process of its own."""

import sys

from producer.gateway.service import GatewayService
from producer.gateway.settings import GatewaySettings
from runnerlib.service.lifecycle import run_service
from taskqueue.settings import load_for_servers


def main() -> int:
    settings = load_for_servers(GatewaySettings, "gateway")
    return run_service(GatewayService(settings).enter, settings)


if __name__ == "__main__":
    sys.exit(main())
