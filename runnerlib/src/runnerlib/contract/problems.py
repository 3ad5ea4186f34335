"""Errors over HTTP: ``application/problem+json`` (RFC 9457) with a stable ``code``."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

PROBLEM_MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """One error. `code` never changes for the same cause; `detail` is a sentence that says what to do."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]] | None = Field(default=None, description="One entry for each field at fault.")
