"""The blocking clients: TaskClient for programs, and GatewayClient with one method for each call of the gateway."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from producer.client import steps, token_calls
from producer.client.calls import Calls
from producer.client.steps import Call, task_message
from producer.client.transport import Transport
from producer.errors import NoGateway, Refused
from producer.models import DeadLetterFilter, DeadLettersDone, TaskView

if TYPE_CHECKING:
    from producer.client.broker_sender import BrokerSender

P = ParamSpec("P")
T = TypeVar("T")

#: Longest wait of one request; short enough to show progress meanwhile.
_POLL_SECONDS = 1.0


def blocking(call: Callable[Concatenate[Calls, P], Call[T]]) -> Callable[Concatenate["_BlockingClient", P], T]:
    """A client's method that performs the call and returns its outcome."""

    @steps.documented_by(call)
    def method(self: "_BlockingClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return steps.outcome_of(call(self._calls, *args, **kwargs), self._perform)

    return method


def listing(
    call: Callable[Concatenate[Calls, P], Call[list[T]]],
) -> Callable[Concatenate["_BlockingClient", P], Iterator[T]]:
    """A client's method that returns the entries of a list one by one, and asks for a page when it is needed."""

    @steps.documented_by(call)
    def method(self: "_BlockingClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return steps.run(call(self._calls, *args, **kwargs), self._perform)

    return method


class _BlockingClient:
    """What both clients share: connections, the steps of a call, and the calls that are the same."""

    def __init__(self, transport: Transport, broker: "BrokerSender | None" = None) -> None:
        self._calls = Calls(by_broker=broker is not None)
        self._transport = transport
        self._broker = broker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections, and ends the broker's thread if there is one. Idempotent."""
        self._transport.close()
        if self._broker is not None:
            self._broker.close()

    get = blocking(Calls.get)
    cancel = blocking(Calls.cancel)
    replay = blocking(Calls.replay)
    discard = blocking(Calls.discard)

    def _perform(self, step: steps.Step) -> Any:
        match step:
            case steps.Request():
                if not self._transport.url:
                    raise no_gateway(self)
                return self._transport.send(step)
            case steps.Publish():
                assert self._broker is not None, "only with a broker"
                return self._broker.send(step.tasks)
            case steps.Sleep():
                time.sleep(step.seconds)
        return None


class TaskClient(_BlockingClient):
    """``with TaskClient("http://127.0.0.1:8000") as client: client.result(client.submit("upper", {"text": "a"}))``.

    With `queue_url` (``amqp://…``) tasks go straight to the broker, and only waiting and cancelling need the gateway.
    The broker does not look into tasks: what the gateway would refuse at once (an unknown algorithm, a payload that
    does not fit) then ends as `failed`. One client may be used by any number of threads, and after a fork by each of
    the processes. `patience_seconds` is how long a call is tried again while a gateway restarts or a broker is away.
    `token` is sent to the gateway with each request. `ca_file`: a PEM file with authorities that are trusted besides
    the system's, for a gateway that speaks HTTPS.

    Raises Refused, GatewayUnreachable and BrokerUnreachable, each with a sentence.
    """

    def __init__(
        self,
        gateway_url: str = "",
        *,
        queue_url: str = "",
        patience_seconds: float = 10.0,
        token: str = "",
        ca_file: str = "",
    ) -> None:
        broker = broker_sender(self, gateway_url, queue_url, patience_seconds)
        transport = Transport(gateway_url, patience_seconds=patience_seconds, token=token, ca_file=ca_file)
        super().__init__(transport, broker)

    submit = blocking(Calls.submit)
    submit_many = blocking(Calls.submit_many)
    wait = blocking(Calls.wait)
    wait_many = blocking(Calls.wait_many)
    result = blocking(Calls.result)
    tasks = blocking(Calls.tasks)
    dead_letters = blocking(Calls.dead_letters)
    replay_many = blocking(Calls.replay_many)
    discard_many = blocking(Calls.discard_many)


class GatewayClient(_BlockingClient):
    """``with GatewayClient("http://127.0.0.1:8000") as client: client.wait(client.submit("upper", {...}).id, 60)``.

    Raises GatewayUnreachable when nothing answers, and Refused with the gateway's own message. After a fork each
    process has connections of its own. `url_from` says where the address was found, for the error when nothing
    answers there.
    """

    def __init__(
        self, url: str, *, patience_seconds: float = 10.0, url_from: str = "", token: str = "", ca_file: str = ""
    ) -> None:
        super().__init__(
            Transport(url, patience_seconds=patience_seconds, url_from=url_from, token=token, ca_file=ca_file)
        )

    @property
    def url(self) -> str:
        return self._transport.url

    submit = blocking(Calls.submit_view)
    submit_lines = blocking(Calls.submit_lines)
    get_many = blocking(Calls.get_many)
    tasks = listing(Calls.tasks)
    dead_letters = listing(Calls.dead_letters)
    dead_letter = blocking(Calls.dead_letter)
    algorithms_answer = blocking(Calls.algorithms_answer)

    def submit_batch(self, messages: Sequence[dict[str, Any]]) -> list[Refused | None]:
        """Queues up to 1,000 messages: a refusal or None for each."""
        answers = self.submit_lines([task_message(message).body for message in messages])
        return [answer if isinstance(answer, Refused) else None for answer in answers]

    def wait(
        self, task_id: str, timeout_seconds: float, *, on_view: Callable[[TaskView], None] = lambda _view: None
    ) -> TaskView:
        """The task when it has ended, or as it is when the time is over. `on_view` sees it about each second."""
        call = self._calls.watch(task_id, timeout_seconds, poll_seconds=_POLL_SECONDS)
        view = steps.outcome_of(call, self._perform, on_view)
        assert view is not None, "an unknown task is refused"
        return view

    def wait_for_part(
        self, task_ids: Sequence[str], end: float, on_view: Callable[[TaskView | None], None]
    ) -> dict[str, TaskView]:
        """Up to 100 tasks, by their ids: all when they have ended, else as they are at `end` (monotonic).

        Without those that the gateway does not know. `on_view` sees one that has not ended about each second.
        """
        call = self._calls.wait_for_part(task_ids, end, poll_seconds=_POLL_SECONDS)
        return steps.outcome_of(call, self._perform, on_view)

    def algorithms(self) -> list[dict[str, Any]]:
        """The algorithms that can be used, as ``GET /algorithms`` lists them."""
        found: list[dict[str, Any]] = self.algorithms_answer()["algorithms"]
        return found

    pause = blocking(Calls.pause)
    resume = blocking(Calls.resume)

    def replay_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """Replays these dead letters, or all open ones that match, request by request as the answers are taken."""
        return steps.run(self._calls.replay_many(wanted), self._perform)

    def discard_many(self, wanted: Sequence[int] | DeadLetterFilter) -> Iterator[DeadLettersDone]:
        """Discards these dead letters, or all open ones that match, request by request as the answers are taken."""
        return steps.run(self._calls.discard_many(wanted), self._perform)

    def create_token(
        self,
        name: str,
        scopes: Sequence[str],
        algorithms: Sequence[str] = (),
        *,
        expires_seconds: float | None = None,
        **limits: float | None,
    ) -> dict[str, Any]:
        """Makes a token, as ``POST /tokens`` answers: its text is in `token`, this once.

        `limits`: `rate_per_second`, `burst`, `bytes_per_second`, `most_waiting`; without them it may send any number.
        """
        call = token_calls.create_token(name, scopes, algorithms, expires_seconds, limits)
        return steps.outcome_of(call, self._perform)

    def tokens(self, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """The tokens, the newest first, without their texts."""
        return steps.run(token_calls.tokens(limit), self._perform)

    def revoke_token(self, key_id: str) -> dict[str, Any]:
        """Revokes a token: within a second every gateway refuses it."""
        return steps.outcome_of(token_calls.revoke_token(key_id), self._perform)

    def audit(
        self, *, who: str | None = None, action: str | None = None, limit: int | None = 100
    ) -> Iterator[dict[str, Any]]:
        """Who changed what, the newest first, as ``GET /audit`` lists it."""
        return steps.run(token_calls.audit(who, action, limit), self._perform)


def no_gateway(client: object) -> NoGateway:
    name = type(client).__name__
    return NoGateway(f"only the gateway can tell that; give the gateway's address, too: {name}('http://...')")


def broker_sender(client: object, gateway_url: str, queue_url: str, patience_seconds: float) -> "BrokerSender | None":
    """None without a `queue_url`. Raises ValueError without any address."""
    if not queue_url:
        if not gateway_url:
            name = type(client).__name__
            raise ValueError(f"name where tasks go: {name}('http://HOST:8000'), queue_url='amqp://...', or both")
        return None
    try:
        # Imported here: programs that send through the gateway need not have the broker's packages.
        from producer.client.broker_sender import BrokerSender
    except ModuleNotFoundError as error:
        raise ImportError(
            f"sending straight to a broker needs more packages ({error.name} is missing); from a checkout: "
            "pip install ./runnerlib ./taskqueue './producer[broker]'"
        ) from None
    return BrokerSender(queue_url, patience_seconds=patience_seconds)
