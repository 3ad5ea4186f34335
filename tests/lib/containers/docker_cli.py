"""The `docker` command, with a time limit for each call."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: For whatever asks and changes nothing.
ASKING_SECONDS = 60.0


class CommandFailed(AssertionError):
    """The command ended with an error; its message holds what it said."""


def called(
    command: Sequence[str],
    *,
    within_seconds: float = ASKING_SECONDS,
    folder: Path | None = None,
    settings: Mapping[str, str] | None = None,
) -> str:
    """The standard output of a command. Raises CommandFailed, also when its time is over."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command, cwd=folder, env=settings, capture_output=True, text=True, timeout=within_seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(
            f"not within {within_seconds:.0f} s: {shown}\n{_tail(error.output, error.stderr)}"
        ) from None
    if done.returncode:
        raise CommandFailed(f"{shown} ended with {done.returncode}:\n{_tail(done.stdout, done.stderr)}")
    return done.stdout


def docker(*words: str, within_seconds: float = ASKING_SECONDS) -> str:
    return called(("docker", *words), within_seconds=within_seconds)


def inspected(*names: str) -> list[dict[str, Any]]:
    """What the engine knows of containers, by name or id."""
    return list(json.loads(docker("container", "inspect", *names))) if names else []


def inspected_image(name: str) -> dict[str, Any]:
    (found,) = json.loads(docker("image", "inspect", name))
    return dict(found)


def _tail(*outputs: str | bytes | None) -> str:
    texts = [output.decode(errors="replace") if isinstance(output, bytes) else output or "" for output in outputs]
    return "\n".join(text[-4000:] for text in texts)
