"""How good it is, on the sentences beside this file: `python check_accuracy.py`. The tests use the same measure."""

import json
from dataclasses import dataclass
from pathlib import Path

from py3langid.langid import LanguageIdentifier

from runner_adapter import load_identifier, run_language_detection

SENTENCES = Path(__file__).with_name("language_sentences.json")


@dataclass
class Accuracy:
    """`right` of `total` texts; `mistakes` are (expected, text, answer)."""

    total: int
    right: int
    mistakes: list[tuple[str, str, str]]

    @property
    def share(self) -> float:
        return self.right / self.total


def read_sentences(path: Path = SENTENCES) -> list[tuple[str, str]]:
    """(language, text); texts that are in no language are filed under "unknown"."""
    by_language: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    return [(language, text) for language, texts in by_language.items() for text in texts]


def measure(sentences: list[tuple[str, str]], identifier: LanguageIdentifier) -> Accuracy:
    mistakes = []
    for expected, text in sentences:
        answer = run_language_detection(text, identifier=identifier).language
        if answer != expected:
            mistakes.append((expected, text, answer))
    return Accuracy(len(sentences), len(sentences) - len(mistakes), mistakes)


def main() -> None:
    identifier = load_identifier()
    sentences = read_sentences()
    for name, texts in (("as written", sentences), ("UPPER CASE", [(lang, text.upper()) for lang, text in sentences])):
        accuracy = measure(texts, identifier)
        print(f"{name}: {accuracy.right} of {accuracy.total} right ({accuracy.share:.1%})")
        for expected, text, answer in accuracy.mistakes:
            print(f"  {text!r} is {expected}, was taken for {answer}")


if __name__ == "__main__":
    main()
