"""What the demo sends: each algorithm's own example, and a few more for the runners that come with us."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from runnerlib.contract import AlgorithmDescription


@dataclass(frozen=True, slots=True)
class Sample:
    """One task to send. `shown`: its payload as a person is to see it; `fails`: it is wrong on purpose."""

    algorithm: str
    payload: Any
    shown: Any
    fails: bool = False


def read_samples() -> dict[str, list[Any]]:
    """Algorithm → payloads, from ``samples.json``."""
    content: dict[str, list[Any]] = json.loads(files("worker").joinpath("samples.json").read_text(encoding="utf-8"))
    return content


def payloads_for(description: AlgorithmDescription, samples: dict[str, list[Any]]) -> list[Any]:
    """The example first; each payload once. Empty when nothing is known that would fit."""
    payloads = [description.example.payload] if description.example is not None else []
    payloads += [payload for payload in samples.get(description.name, []) if payload not in payloads]
    return payloads
