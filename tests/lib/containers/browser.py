"""A page as somebody sees it in a browser: headless Chromium."""

import re
import shutil
from html import unescape
from pathlib import Path

import pytest

from containers.docker_cli import called

_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--virtual-time-budget=20000",
    "--window-size=1280,1800",
]
_PAGE_SECONDS = 90.0


class Browser:
    def __init__(self, folder: Path) -> None:
        found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if found is None:
            pytest.fail("Chromium is not installed (apt-get install chromium)")
        self._command = [found, *_OPTIONS, f"--user-data-dir={folder / 'profile'}"]
        self._folder = folder

    def document(self, url: str) -> str:
        """The page's HTML, once its scripts have run."""
        return called([*self._command, "--dump-dom", url], within_seconds=_PAGE_SECONDS)

    def screenshot(self, url: str, name: str) -> Path:
        path = self._folder / f"{name}.png"
        called([*self._command, f"--screenshot={path}", url], within_seconds=_PAGE_SECONDS)
        assert path.stat().st_size > 0
        return path


def words_of(html: str) -> str:
    """What can be read, without tags; in a page of code the tags split words, so nothing takes their place."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", "", html, flags=re.DOTALL)))
