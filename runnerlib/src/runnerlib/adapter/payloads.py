"""From the bytes of a payload to the arguments of a handler, or to who is at fault that there are none.

Runs the validators of an author's types, which may raise anything, hang or end the process: only worker processes, and
the commands and tests of authors, call it.
"""

from typing import Any

from pydantic import ValidationError

from runnerlib.adapter.model import Algorithm

#: Mistakes that are told of one payload; of more only how many.
MAX_ERRORS = 20
_MAX_MESSAGE = 500
_MAX_NAME = 200
#: Names of fields in a sentence are cut earlier.
_MAX_SHOWN_NAME = 80


class InvalidPayload(Exception):
    """The payload does not fit, in a sentence for its sender. `errors` has one entry for each field at fault.

    `__cause__` is what was raised.
    """

    def __init__(self, error: ValueError | AssertionError) -> None:
        found = _entries(error)
        self.errors = found[:MAX_ERRORS]
        super().__init__(_sentence(self.errors, len(found)))


class ValidatorFailed(Exception):
    """An author's type raised what says nothing of the payload, e.g. a KeyError; `__cause__` is what it raised."""


def read_arguments(algorithm: Algorithm, payload: bytes) -> dict[str, Any]:
    """The keyword arguments that callers sent; what they left out is not among them.

    Raises InvalidPayload for ValueError, AssertionError and pydantic's ValidationError, ValidatorFailed for all else.
    """
    try:
        try:
            return algorithm.validate(payload)
        except (ValueError, AssertionError) as error:
            raise InvalidPayload(error) from error
    except InvalidPayload:
        raise
    except BaseException as error:  # also SystemExit: it ends this one task
        raise ValidatorFailed(type(error).__name__) from error


def clean(text: str) -> str:
    """Without what JSON and some databases refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _entries(error: ValueError | AssertionError) -> list[dict[str, Any]]:
    if not isinstance(error, ValidationError):
        # Raised where pydantic does not look for it, e.g. in a default_factory; told as if it had.
        is_assertion = isinstance(error, AssertionError)
        kind, said = ("assertion_error", "Assertion failed") if is_assertion else ("value_error", "Value error")
        return [{"loc": [], "msg": clean(f"{said}, {error}"[:_MAX_MESSAGE]), "type": kind}]
    return [
        {
            "loc": [clean(part[:_MAX_NAME]) if isinstance(part, str) else part for part in one["loc"]],
            "msg": clean(one["msg"][:_MAX_MESSAGE]),
            "type": clean(one["type"][:_MAX_NAME]),
        }
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _sentence(errors: list[dict[str, Any]], total: int) -> str:
    shown = "; ".join(
        f"{'.'.join(str(part)[:_MAX_SHOWN_NAME] for part in one['loc']) or 'payload'}: {one['msg']}"
        for one in errors[:3]
    )
    return shown + (f"; and {total - 3} more" if total > 3 else "")
