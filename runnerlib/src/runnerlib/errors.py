"""Why a request was not accepted; :mod:`routes` knows what each is over HTTP."""


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
