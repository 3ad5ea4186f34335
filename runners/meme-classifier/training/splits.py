"""Who learns from what: fixed in `splits.json`, so that nothing that was trained or tuned on is ever tested on.

Each part ("training", "validation", "test") has words, fonts and photos of its own. The templates' pictures are the
same in all parts (there is one of each), so a template is in all three; but each is also left out of training once, in
its fold, and then stands for the memes that the classifier has never seen: half of a fold in the validation, the other
half in the test.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Part = Literal["training", "validation", "test"]
FOLDS = 5
#: Recoloured versions of one picture: whoever knows one knows them all, so they are left out together.
FAMILIES = (("awesome", "awkward", "awesome-awkward", "awkward-awesome"),)


@dataclass(frozen=True)
class Splits:
    #: Template → its fold, and the part in which it stands for an unknown meme.
    templates: dict[str, tuple[int, Part]]
    words: dict[Part, tuple[str, ...]]
    #: Font files and photos, relative to the folder where packages are installed.
    fonts: dict[Part, tuple[str, ...]]
    photos: dict[Part, tuple[str, ...]]
    #: Pictures of another package: file name → template, and those that show none of the templates.
    elsewhere_known: dict[str, str]
    elsewhere_unknown: tuple[str, ...]

    @property
    def labels(self) -> list[str]:
        return sorted(self.templates)

    def left_out(self, fold: int, part: Part | None = None) -> list[str]:
        """Templates that are unknown in this fold, of one part or of both."""
        return [
            name for name in self.labels if self.templates[name][0] == fold and part in (None, self.templates[name][1])
        ]


def read_splits() -> Splits:
    content = json.loads(Path(__file__).with_name("splits.json").read_text(encoding="utf-8"))
    return Splits(
        templates=_with_families({name: (fold, part) for name, (fold, part) in content["templates"].items()}),
        words={part: tuple(words.split()) for part, words in content["words"].items()},
        fonts={part: tuple(files) for part, files in content["fonts"].items()},
        photos={part: tuple(files) for part, files in content["photos"].items()},
        elsewhere_known=content["elsewhere"]["known"],
        elsewhere_unknown=tuple(content["elsewhere"]["unknown"]),
    )


def _with_families(templates: dict[str, tuple[int, Part]]) -> dict[str, tuple[int, Part]]:
    together = {name: templates[family[0]] for family in FAMILIES for name in family}
    return templates | together
