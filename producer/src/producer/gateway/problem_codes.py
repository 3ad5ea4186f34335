"""Every code that a problem of the gateway can carry, with its HTTP status: the one list."""

from enum import Enum


class ProblemCode(str, Enum):
    """`code` of an ``application/problem+json`` answer. A code never changes its status or its meaning."""

    status: int
    meaning: str

    def __new__(cls, code: str, status: int, meaning: str) -> "ProblemCode":
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        member.meaning = meaning
        return member

    MALFORMED = "malformed", 400, "The message can never become a task: it is not JSON, or not a message."
    BAD_REQUEST = "bad_request", 400, "What came is not HTTP/1.1; the connection is closed."
    TOKEN_IN_URL = "token_in_url", 400, "A token is in the URL, where it does not belong: send it in `Authorization`."
    UNAUTHORIZED = "unauthorized", 401, "The call needs a token, and there is none, or one that is not valid."
    FORBIDDEN = "forbidden", 403, "The token does not allow it; `detail` names the scope that does."
    OTHER_SITE = "other_site", 403, "A page of another site asked for it, by way of somebody's browser."
    NOT_FOUND = "not_found", 404, "There is nothing at this path."
    UNKNOWN_ALGORITHM = "unknown_algorithm", 404, "No runner ever offered it; `near` lists similar names."
    UNKNOWN_TASK = "unknown_task", 404, "There is no task with this id, or it ended long ago and was dropped."
    UNKNOWN_DEAD_LETTER = "unknown_dead_letter", 404, "There is no dead letter with this id."
    UNKNOWN_TOKEN = "unknown_token", 404, "There is no token with this key id."
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "The path knows other methods; `Allow` lists them."
    REQUEST_TIMEOUT = "request_timeout", 408, "Header fields or body come too slowly; the connection is closed."
    ID_CONFLICT = (
        "id_conflict",
        409,
        "The id belongs to another task: its content, or the token that sent it, is another.",
    )
    ALREADY_FINISHED = "already_finished", 409, "The task has ended, so it cannot be cancelled; `state` tells how."
    ALREADY_REPLAYED = "already_replayed", 409, "The dead letter was replayed before; nothing changed."
    ALREADY_DISCARDED = "already_discarded", 409, "The dead letter was discarded before; nothing changed."
    NOT_REPLAYABLE = "not_replayable", 409, "Its message can never become a task, or its id belongs to another task."
    NOT_FAILED = "not_failed", 409, "Its task is no longer failed: it waits, runs or has succeeded since."
    TOO_LARGE = "too_large", 413, "The body or the message is over the limit; send a reference to the data."
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415, "The body must be JSON, and say so in `Content-Type`."
    UNKNOWN_HOST = "unknown_host", 421, "The gateway does not know itself by this `Host`; `ALLOWED_HOSTS` adds names."
    INVALID_PAYLOAD = "invalid_payload", 422, "The payload does not fit the algorithm; `errors` names each field."
    INVALID_ID = "invalid_id", 422, "The id is not one that a task can have."
    INVALID_REQUEST = "invalid_request", 422, "A parameter or a field of the request does not fit; `errors` names it."
    TOO_MANY_ATTEMPTS = "too_many_attempts", 429, "Wrong tokens came from this address; wait `Retry-After` seconds."
    RATE_LIMITED = "rate_limited", 429, "The token sends too much; send the same again after `Retry-After` seconds."
    TOO_MANY_WAITING = (
        "too_many_waiting",
        429,
        "As many tasks of the token, or of the algorithm, wait as may; ask again after `Retry-After` seconds.",
    )
    HEADERS_TOO_LARGE = "headers_too_large", 431, "The header fields are over the limit; the connection is closed."
    INTERNAL_ERROR = "internal_error", 500, "The gateway failed; its log says why."
    STARTING = "starting", 503, "The gateway waits for its store; ask again after `Retry-After` seconds."
    STOPPING = "stopping", 503, "The gateway stops; ask again after `Retry-After` seconds."
    OVERLOADED = (
        "overloaded",
        503,
        "There are too many connections, or large bodies; ask again after `Retry-After` seconds.",
    )
    QUEUE_UNAVAILABLE = "queue_unavailable", 503, "The queue cannot be reached; nothing was accepted for sure."
    STORE_UNAVAILABLE = "store_unavailable", 503, "The store cannot be reached; nothing was accepted for sure."
