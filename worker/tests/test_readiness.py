"""What a service says while it is not ready."""

import pytest

from worker.readiness import explained, reasons_in


def test_what_is_still_loading_is_no_reason() -> None:
    answer = '{"ready": false, "reasons": {"worker processes of ocr": "no tool", "worker processes of big": "loading"}}'
    assert reasons_in(answer) == {"ocr": "no tool"}


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"reasons": 3}', "<html>"])
def test_an_answer_of_somebody_else_has_no_reasons(answer: str) -> None:
    assert reasons_in(answer) == {}


def test_parts_with_the_same_reason_share_a_sentence() -> None:
    reasons = {"ocr": "no tool", "size": "no disk", "describe": "no tool"}
    assert explained(reasons, "images") == [
        "size of images is not ready: no disk",
        "describe, ocr of images are not ready: no tool",
    ]
    assert explained({"ocr": "no tool"}) == ["ocr is not ready: no tool"]
