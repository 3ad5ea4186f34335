"""``python -m worker``."""

from worker.commands import app


def main() -> None:
    app(prog_name="worker")


if __name__ == "__main__":
    main()
