"""Which meme a picture shows, and what is written on it.

Three algorithms in processes of their own: where Tesseract is missing, `meme_classifier` works all the same, and
only the process that reads text needs no torch.
"""

from typing import Any, TypedDict

# What cannot be decoded is its sender's mistake, as what cannot be fetched is.
OPTIONS = {
    "meme_classifier": {"timeout_seconds": 60, "batch": 64, "invalid_payload_on": ["images.NotAPicture"]},
    "ocr": {"timeout_seconds": 60, "batch": 16, "invalid_payload_on": ["images.NotAPicture"]},
    "meme_describe": {"timeout_seconds": 60, "batch": 16, "invalid_payload_on": ["images.NotAPicture"]},
}

#: Larger files are refused while they are downloaded.
MAX_BYTES = 20 * 1024 * 1024


class Guess(TypedDict):
    """One of the best labels; over all labels, scores add up to the belief that the picture shows one of them."""

    label: str
    score: float


class Meme(TypedDict):
    """`label`: the template's name, or "unknown"; then `score`, five digits, is that of the best guess all the same."""

    label: str
    score: float
    top: list[Guess]
    known: bool


class Description(TypedDict):
    """`text`: line by line, from top to bottom; empty when there is none."""

    meme: Meme
    text: str


def load_model(*, device: str) -> Any:
    """The backbone and the head, on a GPU when there is one: about a second and 350 MB, once for each process."""
    # Not at the top: the process that only reads text would load torch too.
    from classifier import load_classifier

    return load_classifier(device)


def load_reader() -> Any:
    """Finds Tesseract, a system package; says which one to install when it is missing."""
    from ocr import Reader

    return Reader.find()


def run_meme_classifier(image_url: str, *, model: Any, fetch: Any) -> Meme:
    """Name the meme that a picture shows, or say that it is unknown.

    Args:
        image_url: Where the picture is (http, https, data). JPEG, PNG, WebP, GIF or BMP; at most 20 MB, 50 megapixels.

    >>> run_meme_classifier(
    ...     image_url="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwAgMAAADcJZSMAAAACVBMVEX63DwoWsjIKDx5"
    ...     "4Y+8AAAAkElEQVR42s2QMQ6DMBAExwf0KYD38AeSV4aCJ/gV1PRQ0IPkFCbmQLJQiCJlC+s02tu1Df+k4hFGAcgq7m"
    ...     "+QANRgyn5zGICbWskBMgUqCKcP1ZI1IoQIpH5K4yur10QcBgpf6J/TSbgA8dCfAPv5ynTqWI7AnbfYIxgBZgUcbOUC"
    ...     "0IKzGsyWZt8yPL/5oAt6Aaz+E9ck8nT7AAAAAElFTkSuQmCC"
    ... )
    {'label': 'unknown', 'score': ..., 'top': [...], 'known': False}
    """
    return _meme(model, model.prepare(fetch(image_url, max_bytes=MAX_BYTES).content))


def batch_meme_classifier(image_url: list[str], *, model: Any, fetch: Any) -> list[Meme | Exception]:
    """Many pictures: downloaded at the same time, decoded as they come, one pass through the model."""
    prepared = fetch.many(image_url, then=lambda fetched: model.prepare(fetched.content), max_bytes=MAX_BYTES)
    good = [one for one in prepared if not isinstance(one, Exception)]
    answers = iter(model.classify(good))
    return [one if isinstance(one, Exception) else _as_meme(next(answers)) for one in prepared]


def run_ocr(image_url: str, *, reader: Any, fetch: Any) -> str:
    """Read the text on a meme: outlined letters over the picture, and captions on white or black bars.

    Args:
        image_url: Where the picture is (http, https, data). JPEG, PNG, WebP, GIF or BMP; at most 20 MB, 50 megapixels.

    >>> run_ocr(
    ...     image_url="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAOYAAAAiAQAAAABjaJi0AAAA4klEQVR42tWTQWrDMBBF"
    ...     "3zgm8SJgL7uzjtATpD5KjpATFNET9Ag9ihc5iNxVllLpIgVZk01oaxMZCoXS2Wke/4E+jCj5GQuW5n/SJgQJBLSEYF"
    ...     "7HB2nNcShm2bcRnk85s8di4w2qAM73unkEWgeSZtnVFu72OXP/ablFy8Il08xpaGafHjrQ8he6qj1psmp7kPgjc0wG"
    ...     "53O0gwLJ0fG94/RSxw7xx+9UEMQ0yMcTFYMJVq8prb3H4/GiajdnEq2tnaiqxi/zdg2Har0C9vfXnUx7r85Lt2AXm4"
    ...     "yLdDd9yh/d4AUUlU2OrmtmXwAAAABJRU5ErkJggg=="
    ... )
    'HELLO QUEUE'
    """
    return reader.read(fetch(image_url, max_bytes=MAX_BYTES).content)


def run_meme_describe(image_url: str, *, model: Any, reader: Any, fetch: Any) -> Description:
    """Name the meme and read its text, from one download.

    Args:
        image_url: Where the picture is (http, https, data). JPEG, PNG, WebP, GIF or BMP; at most 20 MB, 50 megapixels.

    >>> run_meme_describe(
    ...     image_url="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAOYAAAAiAQAAAABjaJi0AAAA4klEQVR42tWTQWrDMBBF"
    ...     "3zgm8SJgL7uzjtATpD5KjpATFNET9Ag9ihc5iNxVllLpIgVZk01oaxMZCoXS2Wke/4E+jCj5GQuW5n/SJgQJBLSEYF"
    ...     "7HB2nNcShm2bcRnk85s8di4w2qAM73unkEWgeSZtnVFu72OXP/ablFy8Il08xpaGafHjrQ8he6qj1psmp7kPgjc0wG"
    ...     "53O0gwLJ0fG94/RSxw7xx+9UEMQ0yMcTFYMJVq8prb3H4/GiajdnEq2tnaiqxi/zdg2Har0C9vfXnUx7r85Lt2AXm4"
    ...     "yLdDd9yh/d4AUUlU2OrmtmXwAAAABJRU5ErkJggg=="
    ... )
    {'meme': {'label': 'unknown', ...}, 'text': 'HELLO QUEUE'}
    """
    content = fetch(image_url, max_bytes=MAX_BYTES).content
    return {"meme": _meme(model, model.prepare(content)), "text": reader.read(content)}


def _meme(model: Any, prepared: Any) -> Meme:
    return _as_meme(model.classify([prepared])[0])


def _as_meme(answer: Any) -> Meme:
    best = answer.top[0]
    return {
        "label": best.label if answer.known else "unknown",
        "score": best.score,
        "top": [{"label": guess.label, "score": guess.score} for guess in answer.top],
        "known": answer.known,
    }
