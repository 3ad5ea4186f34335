"""What the demo sends."""

from runnerlib.contract import AlgorithmDescription, Example
from worker.samples import payloads_for, read_samples


def test_example_comes_first_and_nothing_comes_twice() -> None:
    description = AlgorithmDescription(name="upper", example=Example(payload={"text": "b"}))
    assert payloads_for(description, {"upper": [{"text": "a"}, {"text": "b"}]}) == [{"text": "b"}, {"text": "a"}]


def test_algorithm_without_example_and_samples_gets_no_payload() -> None:
    assert payloads_for(AlgorithmDescription(name="other"), read_samples()) == []


def test_language_detection_is_shown_in_several_languages() -> None:
    assert len(read_samples()["language_detection"]) > 5
