"""How the registry's records look in the catalogue. Pure."""

from typing import Any

from runner_discovery.records import KnownAlgorithm, RunnerRecord
from runnerlib.contract import AlgorithmView


def algorithm_view(name: str, known: KnownAlgorithm, records: list[RunnerRecord]) -> AlgorithmView:
    """An algorithm and the runners that offer it; `records` come newest first."""
    return AlgorithmView(
        description=known.description,
        schema_digest=known.digest,
        runners=[record.id for record in records if record.digests[name] == known.digest],
        outdated=[record.id for record in records if record.digests[name] != known.digest],
    )


def view_fields(record: RunnerRecord) -> dict[str, Any]:
    """The fields of a RunnerView."""
    registration = record.registration
    return {
        "id": record.id,
        "name": registration.name,
        "host": registration.host,
        "boot": registration.boot,
        "level": registration.level,
        "algorithms": list(record.digests),
    }
