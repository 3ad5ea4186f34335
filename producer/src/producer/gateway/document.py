"""The gateway's OpenAPI document: written anew when the catalogue has changed, and kept until then."""

import asyncio
from collections.abc import Callable
from typing import Any

from producer.gateway.submission import Known
from producer.gateway.typed_openapi import Placed, Section, placed, section
from runnerlib.contract import AlgorithmView, Catalogue, strict_json


class Document:
    """`static` gives the part that does not change."""

    def __init__(self, static: Callable[[], dict[str, Any]], known: Known) -> None:
        self._static = static
        self._known = known
        self._lock = asyncio.Lock()
        self._written_for: tuple[str, int] | None = None
        self._bytes = b""
        self._placed: dict[tuple[str, str], Placed] = {}

    async def current(self) -> bytes:
        """The document as JSON, for the catalogue of this moment."""
        catalogue = self._known.catalogue
        version = None if catalogue is None else (catalogue.epoch, catalogue.index)
        async with self._lock:
            if not self._bytes or version != self._written_for:
                # hundreds of algorithms take a while: others are served meanwhile
                self._bytes = await asyncio.to_thread(self._write, catalogue)
                self._written_for = version
            return self._bytes

    def _write(self, catalogue: Catalogue | None) -> bytes:
        views = [] if catalogue is None else [catalogue.algorithms[name] for name in sorted(catalogue.algorithms)]
        self._placed = {_key(view): self._placed.get(_key(view)) or placed(view.description) for view in views}
        return strict_json.dumps(_joined(self._static(), [section(view, self._placed[_key(view)]) for view in views]))


def _key(view: AlgorithmView) -> tuple[str, str]:
    return view.description.name, view.schema_digest


def _joined(static: dict[str, Any], sections: list[Section]) -> dict[str, Any]:
    """The algorithms come first: they are what the environment is for."""
    components = static.get("components", {})
    schemas = dict(components.get("schemas", {}))
    paths: dict[str, Any] = {}
    for each in sections:
        schemas |= each.components
        paths |= each.paths
    return {
        **static,
        "tags": [*(each.tag for each in sections), *static.get("tags", [])],
        "paths": {**paths, **static["paths"]},
        "components": {**components, "schemas": schemas},
    }
