"""Why a connection or a channel ended, in words that help whoever runs the broker."""

import ssl
from collections.abc import Iterator

from pika import exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from taskqueue.rabbitmq.address import BrokerAddress


def reason_of(error: BaseException | None) -> str:
    """One line, without a password."""
    for cause in _causes(error):
        match cause:
            case exceptions.ProbableAuthenticationError():
                return "the broker refuses the user or the password"
            case exceptions.ProbableAccessDeniedError():
                return "the broker refuses the virtual host: it does not exist, or the user may not use it"
            case exceptions.IncompatibleProtocolError():
                return "what answers there does not speak AMQP 0-9-1, or expects TLS"
            case exceptions.ConnectionClosedByBroker() | exceptions.ChannelClosedByBroker():
                return f"the broker closed it: {cause.reply_text} ({cause.reply_code})"
            case exceptions.ConnectionClosedByClient() | exceptions.ChannelClosedByClient():
                return "closed on this side"
            case exceptions.ConnectionBlockedTimeout():
                return "the broker blocked publishing for too long"
            case exceptions.AMQPHeartbeatTimeout():
                return _first_text(cause) or "the broker fell silent"
            case ssl.SSLCertVerificationError():
                return f"the broker's certificate is not trusted: {cause.verify_message or cause}"
            case ssl.SSLError():
                return f"TLS does not work with this broker: {cause.reason or cause}"
            case TimeoutError():
                return "no answer in time"
            case OSError():
                return cause.strerror or str(cause) or type(cause).__name__
            case exceptions.StreamLostError():
                return "the connection broke"
    return "the connection ended" if error is None else f"{type(error).__name__}"


def unreachable(address: BrokerAddress, reason: str) -> str:
    """The sentence for a broker to which there is no connection."""
    return f"No connection to the broker at {address.shown}: {reason}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it wraps, the most telling first: pika puts causes into attributes and arguments."""
    if error is None:
        return
    inner: list[object] = list(getattr(error, "exceptions", ()) or ())[-1:]
    if isinstance(error, AMQPConnectorException | exceptions.AMQPConnectionError):
        inner += [getattr(error, "exception", None), *error.args]
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from _causes(cause)
    yield error


def _first_text(error: BaseException) -> str:
    return next((text for text in error.args if isinstance(text, str)), "")
