"""The catalogue as JSON, put together from descriptions that were written once. Pure."""

import json
from collections.abc import Mapping

from runner_discovery.records import Offer, RunnerRecord
from runnerlib.contract import AlgorithmView, Catalogue


def catalogue_json(
    head: Catalogue,
    runners: Mapping[str, RunnerRecord],
    views: Mapping[str, AlgorithmView],
    known: Mapping[str, Offer],
) -> bytes:
    """`head` with these runners and algorithms in place of its own, which are empty."""
    parts = [head.model_dump_json(exclude={"runners", "algorithms"}).encode()[:-1], b',"runners":{']
    parts.append(b",".join(_member(each, record.view().model_dump_json().encode()) for each, record in runners.items()))
    parts.append(b'},"algorithms":{')
    parts.append(b",".join(_member(name, _view_json(view, known[name])) for name, view in views.items()))
    parts.append(b"}}")
    return b"".join(parts)


def _view_json(view: AlgorithmView, offer: Offer) -> bytes:
    rest = view.model_dump_json(exclude={"description"}).encode()
    return b'{"description":' + offer.json + b"," + rest[1:]


def _member(name: str, value: bytes) -> bytes:
    return json.dumps(name).encode() + b":" + value
