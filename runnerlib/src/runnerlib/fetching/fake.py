"""A fetch for authors' tests, which has no network."""

import mimetypes
from collections.abc import Mapping

from runnerlib.fetching.data_urls import read_data_url
from runnerlib.fetching.errors import for_status
from runnerlib.fetching.fetch import Fetch
from runnerlib.fetching.limits import Fetched, Limits
from runnerlib.fetching.rules import FetchRules
from runnerlib.fetching.urls import scheme_of

Answer = bytes | int | Fetched | Exception


class FakeFetch(Fetch):
    """Stands for ``fetch``: knows what is at which URL, and remembers in `asked` what it was asked for.

    An answer is the content (its type is guessed from the URL's ending), a Fetched, an HTTP status such as 404, or an
    exception. ``data:`` URLs are read as the real one reads them. Every other URL is an AssertionError.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None) -> None:
        super().__init__(FetchRules(), self._answer)
        self.asked: list[str] = []
        self._answers = dict(answers or {})

    def _answer(self, url: str, limits: Limits) -> Fetched:
        self.asked.append(url)
        if scheme_of(url) == "data":
            return read_data_url(url, limits)
        if url not in self._answers:
            raise AssertionError(f"FakeFetch was not told what is at {url}; it knows {list(self._answers)}")
        answer = self._answers[url]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            raise for_status(url, answer)
        found = answer if isinstance(answer, Fetched) else Fetched(answer, _guessed(url), url)
        limits.check_type(url, found.content_type)
        limits.check_size(url, len(found.content))
        return found


def _guessed(url: str) -> str:
    return mimetypes.guess_type(url)[0] or "application/octet-stream"
