"""The functions are tested as plain functions, with the real model."""

from pathlib import Path

import pytest
from py3langid.langid import LanguageIdentifier

from check_accuracy import measure, read_sentences
from runner_adapter import batch_language_detection, load_identifier, run_language_detection
from runnerlib.testing import assert_adapter_contract, call

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def identifier() -> LanguageIdentifier:
    return load_identifier()


def test_accuracy_on_own_sentences(identifier: LanguageIdentifier) -> None:
    accuracy = measure(read_sentences(), identifier)
    assert accuracy.share >= 0.98, accuracy.mistakes


def test_accuracy_on_capital_letters_as_they_come_from_ocr(identifier: LanguageIdentifier) -> None:
    upper = [(language, text.upper()) for language, text in read_sentences() if language != "unknown"]
    accuracy = measure(upper, identifier)
    assert accuracy.share >= 0.97, accuracy.mistakes


@pytest.mark.parametrize("text", ["", " ", "0", "12345 !!!", "\x00", "😀", "qwrtz", "d41d8cd98f00b204e9800998ecf8427e"])
def test_no_language_is_unknown(text: str, identifier: LanguageIdentifier) -> None:
    assert run_language_detection(text, identifier=identifier).language == "unknown"


def test_probability_has_five_digits_and_is_plain(identifier: LanguageIdentifier) -> None:
    probability = run_language_detection("Luk venligst døren", identifier=identifier).probability
    assert type(probability) is float
    assert probability == round(probability, 5)
    assert 0 < probability < 1


def test_batch_answers_as_single_calls_do_in_order(identifier: LanguageIdentifier) -> None:
    texts = [text for _, text in read_sentences()]
    expected = [run_language_detection(text, identifier=identifier) for text in texts]
    assert batch_language_detection(texts, identifier=identifier) == expected


def test_empty_batch_gives_an_empty_list(identifier: LanguageIdentifier) -> None:
    assert batch_language_detection([], identifier=identifier) == []


def test_megabyte_of_the_same_sentence_is_still_english(identifier: LanguageIdentifier) -> None:
    text = "On Sunday we cycled along the river as far as the mill. " * 18_000
    detection = run_language_detection(text, identifier=identifier)
    assert detection.language == "en"
    assert detection.probability > 0.9


def test_adapter_keeps_its_contract_and_its_example() -> None:
    assert_adapter_contract(HERE)


def test_result_as_a_sender_reads_it() -> None:
    result = call(HERE, "language_detection", {"text": "Am Sonntag fuhren wir mit dem Rad zur Mühle."})
    assert result["language"] == "de"
    assert result["probability"] > 0.9
