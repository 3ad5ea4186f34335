"""A copy of the repository like a clean clone: with what is not committed yet, without what was made here."""

import shutil
from pathlib import Path

from containers.docker_cli import called

REPOSITORY = Path(__file__).resolve().parents[3]


def copied_to(folder: Path) -> Path:
    listed = called(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"), folder=REPOSITORY
    )
    for name in filter(None, listed.split("\0")):
        source, target = REPOSITORY / name, folder / name
        # Listed, though removed from the folder.
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def env_file(folder: Path) -> dict[str, str]:
    """The variables in the folder's `.env`."""
    lines = (line.strip() for line in (folder / ".env").read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
