"""What strangers send that is no picture, or more than one: refused in a sentence, and nothing of it stays."""

import struct
import time
import zlib
from collections.abc import Callable, Iterator

import pytest
from environments import Environment, Service, until
from picture_server import PictureServer
from servers.processes import family

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MEGABYTE = 1024 * 1024
DataUrl = Callable[[bytes], str]
#: An attack's URL, and words of the sentence that refuses it.
Attack = tuple[str, str]


@pytest.fixture
def elsewhere() -> Iterator[PictureServer]:
    """Something that listens on this machine, and that the runner may not connect to."""
    with PictureServer("127.0.0.2") as made:
        yield made


@pytest.fixture
def attacks(server: PictureServer, elsewhere: PictureServer, demo: bytes, data_url: DataUrl) -> list[Attack]:
    secret = elsewhere.add("secret.png", demo, "image/png")
    bomb = png_bomb()
    assert len(bomb) < 14_000
    return [
        (server.add("corrupt.png", demo[: len(demo) // 2], "image/png"), "damaged or cut off"),
        (data_url(demo[:200] + bytes(300) + demo[500:]), "damaged"),
        (server.add("page.jpg", b"<!doctype html><p>Log in first</p>"), "an HTML page, not an image"),
        (server.url("gone.jpg"), "404 Not Found"),
        (server.add("bomb.png", bomb, "image/png"), "10000 × 10000 pixels; at most 50 million"),
        (server.add_stream("endless.jpg", 40), "larger than 20 MiB"),
        (server.add("large.jpg", bytes(40 * MEGABYTE)), "larger than 20 MiB"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        (secret, "127.0.0.2"),
        (server.add_redirect("to-loopback", secret), "127.0.0.2"),
        (server.add_redirect("to-a-file", "file:///etc/passwd"), "file"),
        ("file:///etc/passwd", "file"),
    ]


def png_bomb() -> bytes:
    """12 KB that are 300 MB once decoded: 10,000 × 10,000 pixels of one bit, three bytes each as RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1251 * 10_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def resident_bytes(runner: Service) -> int:
    assert runner.process is not None
    return sum(process.memory_info().rss for process in family(runner.process.pid))


def test_attacks_are_refused_in_a_sentence_and_leave_nothing_behind(
    images: Environment, server: PictureServer, elsewhere: PictureServer, attacks: list[Attack], demo: bytes
) -> None:
    runner = next(service for service in images.services if service.name == "meme-classifier")
    good = server.add("good.png", demo, "image/png")
    _all_good(images, good, 20)
    before = resident_bytes(runner)
    started = time.monotonic()
    sent = [
        (algorithm, url, words, images.submit(algorithm, {"image_url": url}))
        for algorithm in ("meme_classifier", "ocr", "meme_describe")
        for url, words in attacks
    ]
    peak = before

    def all_ended() -> bool:
        nonlocal peak
        peak = max(peak, resident_bytes(runner))
        return all(images.task(task_id)["state"] not in ("queued", "running") for *_, task_id in sent)

    until(all_ended, "all attacks have ended")
    took = time.monotonic() - started
    for algorithm, url, words, task_id in sent:
        view = images.task(task_id)
        assert (view["state"], view["attempt"]) == ("failed", 1), (algorithm, url[:60], view)
        assert view["error"]["code"] == "invalid_payload", (algorithm, url[:60], view)
        assert words in view["error"]["message"], view
        assert "Traceback" not in view["error"]["message"]
    assert elsewhere.asked == []
    _all_good(images, good, 5)
    after = until(lambda: (now := resident_bytes(runner)) <= 1.15 * before and now, "memory is back", 20)
    print(f"{len(sent)} attacks in {took:.1f} s; MB: {before >> 20} before, {peak >> 20} at most, {after >> 20} after")
    # The bomb alone would take 300 MB, in each of three processes.
    assert peak < before + 250 * MEGABYTE


def _all_good(images: Environment, url: str, count: int) -> None:
    """A few of each; they also bring the memory of all processes to what it is at work."""
    expected = {"meme_classifier": "unknown", "ocr": "DELIVERS EVERY TASK", "meme_describe": "DELIVERS EVERY TASK"}
    many = images.submit_many("meme_classifier", [{"image_url": url}] * count)
    others = [images.submit(name, {"image_url": url}) for name in ("ocr", "meme_describe")]
    for task_id in (*many, *others):
        view = images.finished(task_id)
        assert view["state"] == "succeeded", view
        assert expected[view["algorithm"]] in str(view["result"])
