"""A copy of the repository like a clean clone: with what is not committed yet, without what was made here."""

import shutil
from pathlib import Path

from containers.docker_cli import called

SECRETS = "secrets"
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


def secret(folder: Path, name: str) -> str:
    """One of those that `build.sh` has written."""
    return (folder / SECRETS / name).read_text().strip()
