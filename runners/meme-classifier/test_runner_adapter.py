"""The functions as plain functions, with the real model; and the adapter as the runner reads it."""

from pathlib import Path

import pytest

from runner_adapter import batch_meme_classifier, load_model, run_meme_classifier, run_meme_describe, run_ocr
from runnerlib.testing import FakeFetch, assert_adapter_contract
from tesseract import Tesseract, TesseractMissing

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def reader():
    from runner_adapter import load_reader

    return load_reader()


def test_picture_that_is_no_meme_is_unknown(model, gradient, data_url) -> None:
    meme = run_meme_classifier(data_url(gradient), model=model, fetch=FakeFetch())
    assert (meme["label"], meme["known"]) == ("unknown", False)
    assert meme["score"] == meme["top"][0]["score"] == round(meme["score"], 5)
    assert len(meme["top"]) == 3
    assert [guess["score"] for guess in meme["top"]] == sorted((guess["score"] for guess in meme["top"]), reverse=True)


def test_batch_answers_in_order_and_a_bad_one_fails_alone(model, gradient, encode) -> None:
    good, other = encode(gradient), encode(gradient.rotate(90).convert("L"))
    fetch = FakeFetch(
        {
            "http://example.com/good": good,
            "http://example.com/page": b"<html></html>",
            "http://example.com/gone": 404,
            "http://example.com/other": other,
            "http://example.com/cut": good[:500],
        }
    )
    urls = [f"http://example.com/{name}" for name in ("page", "good", "gone", "other", "cut", "good")]
    answers = batch_meme_classifier(urls, model=model, fetch=fetch)
    assert isinstance(answers[0], ValueError) and "an HTML page" in str(answers[0])
    assert isinstance(answers[2], FakeFetch.Refused)
    assert isinstance(answers[4], ValueError) and "damaged" in str(answers[4])
    for url, answer in zip(urls, answers, strict=True):
        if not isinstance(answer, Exception):
            alone = run_meme_classifier(url, model=model, fetch=fetch)
            assert answer["top"][0]["label"] == alone["top"][0]["label"]
            assert answer["score"] == pytest.approx(alone["score"], abs=1e-4)


def test_batch_of_bad_ones_only(model) -> None:
    fetch = FakeFetch({"http://example.com/page": b"<html></html>"})
    (answer,) = batch_meme_classifier(["http://example.com/page"], model=model, fetch=fetch)
    assert isinstance(answer, ValueError)


def test_text_on_a_bar_and_over_a_picture_is_read(reader, captioned, data_url) -> None:
    read = run_ocr(data_url(captioned), reader=reader, fetch=FakeFetch())
    assert read.splitlines() == ["When the queue is empty", "NOBODY WAITS"]


def test_picture_without_text_has_none(reader, gradient, data_url) -> None:
    assert run_ocr(data_url(gradient), reader=reader, fetch=FakeFetch()) == ""


def test_description_is_both_from_one_download(model, reader, captioned, data_url) -> None:
    described = run_meme_describe(data_url(captioned), model=model, reader=reader, fetch=FakeFetch())
    assert described["meme"]["label"] == "unknown"
    assert described["text"].endswith("NOBODY WAITS")


def test_missing_tesseract_is_told_with_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TesseractMissing, match="apt-get install tesseract-ocr"):
        Tesseract.find()


def test_adapter_keeps_its_contract_and_its_examples() -> None:
    assert_adapter_contract(HERE)
