"""Language of a text, by py3langid (naive Bayes over byte n-grams; model and licence are inside its package)."""

from dataclasses import dataclass

from py3langid.langid import MODEL_FILE, LanguageIdentifier

#: Below this the best guess is worth nothing. On the sentences of `check_accuracy.py`, 0.25 to 0.35 tells all the
#: noise from all the sentences; less lets noise through, 0.4 and more loses short sentences.
MIN_PROBABILITY = 0.3
#: More says nothing new, costs time, and where a text repeats itself it lowers the probability.
MOST_CHARACTERS = 4000
#: The identifier's own label for text without linguistic content, such as a checksum.
NO_LANGUAGE = "zxx"


@dataclass
class Detection:
    """`language`: ISO 639 code, or "unknown". `probability`: of the best guess, 0 to 1, also when it was not taken."""

    language: str
    probability: float


def load_identifier() -> LanguageIdentifier:
    """Reads the model: half a second and 100 MB, once for each worker process."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def run_language_detection(text: str, *, identifier: LanguageIdentifier) -> Detection:
    """Tell the language of a text, or "unknown" when unsure.

    Args:
        text: A sentence or more; single words are mostly "unknown". The first 4,000 characters count.

    >>> run_language_detection(text="W niedzielę pojechaliśmy rowerami wzdłuż rzeki aż do młyna.")
    Detection(language='pl', probability=1.0)
    """
    language, probability = identifier.classify(text[:MOST_CHARACTERS])
    if probability < MIN_PROBABILITY or language == NO_LANGUAGE:
        language = "unknown"
    return Detection(language, round(float(probability), 5))


def batch_language_detection(text: list[str], *, identifier: LanguageIdentifier) -> list[Detection]:
    """Many texts in one call, in their order."""
    return [run_language_detection(one, identifier=identifier) for one in text]
