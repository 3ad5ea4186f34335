"""The id under which a runner registers; what it says is tested with a real one in runner/test_start.py."""

from runnerlib.registration import runner_id


def test_an_id_is_safe_in_a_path() -> None:
    assert runner_id("nlp", "127.0.0.1:80") == "nlp-127.0.0.1-80"
    assert runner_id("my nlp/1", "[::1]:80") == "my-nlp-1--1-80"
