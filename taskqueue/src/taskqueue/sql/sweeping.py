"""Finds waiting tasks that nobody will take; reads a few index entries when there are none."""

from collections.abc import Iterator

from sqlalchemy import Connection

from taskqueue.sql import queue_statements as statements


def find_unwanted(
    connection: Connection,
    known: frozenset[str],
    unknown_before: float,
    limit: int,
    *,
    now: float,
    wall: float,
    abandoned_too: bool,
) -> list[int]:
    """`seq` of expired tasks, and of those of algorithms not in `known` that have waited since before
    `unknown_before`."""
    where = {"the_wall": wall, "the_most": limit, "the_abandoned_too": abandoned_too}
    found = list(connection.scalars(statements.EXPIRED, where))
    for algorithm in _waiting_algorithms(connection):
        if len(found) >= limit:
            break
        if algorithm in known:
            continue
        unclaimed = {
            "the_algorithm": algorithm,
            "the_waiting_before": unknown_before,
            "the_now": now,
            "the_most": limit - len(found),
        }
        seen = set(found)
        found.extend(seq for seq in connection.scalars(statements.UNCLAIMED, unclaimed) if seq not in seen)
    return found


def _waiting_algorithms(connection: Connection) -> Iterator[str]:
    algorithm: str | None = ""
    while (algorithm := connection.scalar(statements.NEXT_ALGORITHM, {"the_algorithm": algorithm})) is not None:
        yield algorithm
