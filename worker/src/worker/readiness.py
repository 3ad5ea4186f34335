"""What a service that is not ready says about itself, as sentences. Decides, asks nobody."""

import json
from collections.abc import Mapping

#: A runner's worker process that has not loaded yet says only this; anything else is why it cannot.
_LOADING = "loading"
#: Both are about one algorithm; readers want to know which.
_OF_ALGORITHM = ("worker processes of ", "registration of ")


def reasons_in(answer: str) -> dict[str, str]:
    """Part → why it cannot work, of an answer of ``/healthz/ready``; without those that are still loading.

    Empty when it is no answer of one of our services.
    """
    try:
        reasons = json.loads(answer)["reasons"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {_algorithm(str(part)): str(reason) for part, reason in reasons if reason != _LOADING}


def _algorithm(part: str) -> str:
    for prefix in _OF_ALGORITHM:
        part = part.removeprefix(prefix)
    return part


def explained(reasons: Mapping[str, str], owner: str = "") -> list[str]:
    """One sentence for each reason, with the parts that have it: "ocr, describe of images are not ready: …"."""
    parts: dict[str, list[str]] = {}
    for part, reason in reasons.items():
        parts.setdefault(reason, []).append(part)
    return [
        f"{', '.join(sorted(those))}{f' of {owner}' if owner else ''} "
        f"{'is' if len(those) == 1 else 'are'} not ready: {reason}"
        for reason, those in sorted(parts.items())
    ]
