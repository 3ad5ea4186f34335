"""``python -m producer.gateway``: says how a gateway is started."""

import sys

from producer.gateway.settings import GatewaySettings
from runnerlib.service.settings import load_settings


def main() -> int:
    """Refuses in a sentence: a SQLite file has one owner, and that is the process with the controller in it."""
    settings = load_settings(GatewaySettings)
    if settings.database_url and not settings.database_url.startswith("sqlite"):
        print("DATABASE_URL: this store is not supported yet; leave it unset and start: worker up", file=sys.stderr)
    else:
        print("The gateway and the controller share one process on SQLite; start both with: worker up", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
