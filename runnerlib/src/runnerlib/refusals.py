"""Why something was not accepted, as values; :mod:`routes` knows what they are over HTTP."""

from typing import Any

from pydantic import ValidationError

MAX_ERRORS = 20
_MAX_MESSAGE = 500


class Refusal(Exception):
    """`code` is stable; the text is a sentence that says what to do."""

    code = "refused"


class Malformed(Refusal):
    code = "malformed"


class TooLarge(Refusal):
    code = "too_large"


class UnknownAlgorithm(Refusal):
    code = "unknown_algorithm"


class Busy(Refusal):
    code = "busy"


class Draining(Refusal):
    code = "draining"


class NotReady(Refusal):
    code = "not_ready"


class StaleAttempt(Refusal):
    code = "stale_attempt"


class IdConflict(Refusal):
    code = "id_conflict"


class UnknownTask(Refusal):
    code = "unknown_task"


class AlreadyFinished(Refusal):
    code = "already_finished"


class InvalidPayload(Refusal):
    """`errors` has one entry for each field at fault."""

    code = "invalid_payload"

    def __init__(self, error: ValidationError) -> None:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        self.errors: list[dict[str, Any]] = [
            {"loc": list(one["loc"]), "msg": one["msg"][:_MAX_MESSAGE], "type": one["type"]}
            for one in found[:MAX_ERRORS]
        ]
        super().__init__(_sentence(self.errors, len(found)))


def _sentence(errors: list[dict[str, Any]], total: int) -> str:
    shown = "; ".join(
        f"{'.'.join(str(part)[:80] for part in one['loc']) or 'payload'}: {one['msg']}" for one in errors[:3]
    )
    return shown + (f"; and {total - 3} more" if total > 3 else "")
