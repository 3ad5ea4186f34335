"""Loading and tearing down what ``load_*`` functions give."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from runnerlib.adapter.failures import message_of
from runnerlib.adapter.model import Resource
from runnerlib.service.logs import get_logger


class LoadError(Exception):
    """A ``load_*`` function failed; the message names it. `__cause__` is the author's error."""


def in_loading_order(wanted: Iterable[str], resources: Mapping[str, Resource]) -> list[str]:
    """`wanted` and all they need in turn, each after what it needs. Names that are no resources are left out."""
    order: dict[str, None] = {}

    def add(names: Iterable[str], asking: tuple[str, ...]) -> None:
        for name in names:
            if name in resources and name not in order and name not in asking:
                add(resources[name].provided, (*asking, name))
                order[name] = None

    add(wanted, ())
    return list(order)


def load(resource: Resource, given: Mapping[str, Any], stack: ExitStack) -> Any:
    """Calls one ``load_*``; a generator's rest is run when `stack` unwinds. Raises LoadError."""
    function = f"load_{resource.name}()"
    try:
        value = resource.function(**given)
        if not inspect.isgenerator(value):
            return value
        loaded = next(value)
    except StopIteration:
        raise LoadError(f"{function} ended without a yield; write `yield` before what tears down") from None
    except (Exception, SystemExit) as error:  # the author's code: whatever it raises, the runner lives and says why
        raise LoadError(f"{function} failed: {message_of(error)}") from error
    stack.callback(_tear_down, function, value)
    return loaded


def _tear_down(function: str, generator: Iterator[Any]) -> None:
    log = get_logger(__name__)
    try:
        next(generator)
    except StopIteration:
        return
    except Exception:  # one failing tear-down must not keep the others from theirs
        log.exception("tear-down failed", function=function)
    else:
        log.warning("a load function yields once; what follows its second yield is not run", function=function)
