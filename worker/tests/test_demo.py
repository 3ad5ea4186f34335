"""What the demo sends, pictures that runners make, and the cells of its table."""

import asyncio
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerlib.contract import AlgorithmDescription, Example
from worker.demo import Sample, allowing_loopback, has_pictures, payloads_for, pictures_served, read_samples, shortened
from worker.output import Output
from worker.plan import ProcessPlan
from worker.processes import ManagedProcess
from worker.runners import RunnerFolder

MEME = {"label": "fry", "score": 0.99, "top": [{"label": "fry", "score": 0.99}], "known": True}


def test_what_fits_is_shown_as_it_is() -> None:
    assert shortened(MEME, 200).startswith('{"label": "fry", "score": 0.99, "top": [{"label"')
    assert shortened("ça va", 10) == '"ça va"'


def test_lists_inside_objects_are_left_out_first() -> None:
    assert shortened(MEME, 66) == '{"label": "fry", "score": 0.99, "top": […], "known": true}'


def test_inner_objects_show_fewer_entries_the_less_room_there_is() -> None:
    described = {"meme": MEME, "text": "NOT SURE"}
    assert shortened(described, 66) == '{"meme": {"label": "fry", "score": 0.99, …}, "text": "NOT SURE"}'
    assert shortened(described, 55) == '{"meme": {"label": "fry", …}, "text": "NOT SURE"}'


def test_what_is_too_long_all_the_same_is_cut() -> None:
    assert shortened([1, 2, 3], 5) == "[1, …"
    assert shortened({"url": "x" * 99}, 20) == '{"url": "xxxxxxxxxx…'


MAKES_TWO = """
    import json, os, pathlib, sys
    folder = pathlib.Path(sys.argv[1])
    (folder / "pictures" / "a snail.png").write_bytes(b"drawn by " + os.environ["RUNNER_NAME"].encode())
    samples = [
        {"algorithm": "ocr", "payload": {"image_url": "a snail.png", "top_k": 3}},
        {"algorithm": "ocr", "payload": {"image_url": "elsewhere.png"}, "fails": True},
    ]
    (folder / "samples.json").write_text(json.dumps(samples))
    print("made two")
"""
Process = Callable[[str], ManagedProcess]


@pytest.fixture
def process(make_runner: Callable[..., RunnerFolder], output: Output) -> Process:
    """One of a runner with this script."""

    def planned(script: str) -> ManagedProcess:
        runner = make_runner("images")
        make_runner("images", script)
        (runner.path / "runner_adapter.py").rename(runner.path / "demo_pictures.py")
        variables = {"RUNNER_NAME": "images"}
        plan = ProcessPlan("images-1", (sys.executable, "-m", "runnerlib"), "http://here", variables, runner.path)
        return ManagedProcess(plan, output)

    return planned


def _served(processes: list[ManagedProcess], data: Path, output: Output) -> tuple[list[Sample], dict[str, object]]:
    """The samples, and what was answered for the first one's picture and for files beside it."""

    def get(url: str) -> object:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            return error.code

    async def scenario() -> tuple[list[Sample], dict[str, object]]:
        async with pictures_served(processes, data, output) as samples:
            if not samples:
                return [], {}
            url = samples[0].payload["image_url"]
            place = url.rpartition("/")[0]
            others = ("", "../samples.json", "%2e%2e/samples.json", "..%2fsamples.json")
            urls = {"picture": url, **{other: f"{place}/{other}" for other in others}}
            return samples, {name: await asyncio.to_thread(get, one) for name, one in urls.items()}

    return asyncio.run(scenario())


def test_a_payload_gets_the_address_of_its_picture_and_a_person_sees_the_name(
    process: Process, tmp_path: Path, output: Output, terminal: io.StringIO
) -> None:
    made = process(MAKES_TWO)
    samples, answers = _served([made, made], tmp_path / "data", output)
    first, second = samples
    assert first.payload["image_url"].startswith("http://127.0.0.1:")
    assert first.payload["image_url"].endswith("/images/a%20snail.png")
    assert first.payload["top_k"] == 3
    assert first.shown == {"image_url": "a snail.png", "top_k": 3}
    assert (second.payload, second.fails) == ({"image_url": "elsewhere.png"}, True)
    assert answers.pop("picture") == b"drawn by images"
    assert set(answers.values()) <= {403, 404}, "nothing but the pictures is shown"
    assert terminal.getvalue().count("made two") == 1
    assert "images may fetch from this machine (FETCH_ALLOW_PRIVATE=127.0.0.0/8)" in terminal.getvalue()
    assert not list(made.plan.folder.glob("__pycache__") if made.plan.folder else [made])


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("raise SystemExit('no font here')", "images: its pictures could not be made; its lines above say why"),
        ("pass", "images: the samples of its demo_pictures.py cannot be read"),
        (
            "import pathlib, sys; pathlib.Path(sys.argv[1], 'samples.json').write_text('[1]')",
            "images: the samples of its demo_pictures.py cannot be read",
        ),
    ],
)
def test_without_its_pictures_the_demo_goes_on(
    process: Process, tmp_path: Path, output: Output, terminal: io.StringIO, script: str, sentence: str
) -> None:
    assert _served([process(script)], tmp_path / "data", output) == ([], {})
    assert sentence in terminal.getvalue()


def test_no_pictures_at_all_are_told(tmp_path: Path, output: Output, terminal: io.StringIO) -> None:
    assert _served([], tmp_path, output) == ([], {})
    assert "no runner that was started brings pictures" in terminal.getvalue()


def test_loopback_is_allowed_besides_what_the_operator_allows() -> None:
    assert allowing_loopback(["images"], {}) == {"images": {"FETCH_ALLOW_PRIVATE": "127.0.0.0/8"}}
    allowed = allowing_loopback(["images"], {"FETCH_ALLOW_PRIVATE": "10.1.0.0/16"})
    assert json.dumps(allowed).count("10.1.0.0/16,127.0.0.0/8") == 1


def test_a_runner_brings_pictures_by_a_script(make_runner: Callable[..., RunnerFolder]) -> None:
    runner = make_runner("images")
    assert not has_pictures(runner)
    (runner.path / "demo_pictures.py").touch()
    assert has_pictures(runner)


def test_what_a_script_needed_for_a_moment_is_gone_even_when_it_was_killed(
    process: Process, tmp_path: Path, output: Output, terminal: io.StringIO
) -> None:
    script = """
    import os, pathlib, signal, tempfile
    place = pathlib.Path(tempfile.mkdtemp())
    (place / "half").write_bytes(bytes(1000))
    print("put into", place)
    os.kill(os.getpid(), signal.SIGKILL)
    """
    data = tmp_path / "data"
    assert _served([process(script)], data, output) == ([], {})
    assert f"put into {data}" in terminal.getvalue().replace("\n", "")
    assert [path.name for path in (data / "demo" / "images").iterdir()] == ["pictures"]


def test_example_comes_first_and_nothing_comes_twice() -> None:
    description = AlgorithmDescription(name="upper", example=Example(payload={"text": "b"}))
    assert payloads_for(description, {"upper": [{"text": "a"}, {"text": "b"}]}) == [{"text": "b"}, {"text": "a"}]


def test_algorithm_without_example_and_samples_gets_no_payload() -> None:
    assert payloads_for(AlgorithmDescription(name="other"), read_samples()) == []


def test_language_detection_is_shown_in_several_languages() -> None:
    assert len(read_samples()["language_detection"]) > 5
