"""``python -m worker``."""

from worker.output import open_standard_streams


def main() -> None:
    open_standard_streams()
    # Not at the top: these imports open files.
    from worker.commands import app

    app(prog_name="worker")


if __name__ == "__main__":
    main()
