"""The HTTP gateway: submit tasks, get their results, cancel them, see which algorithms there are."""

from importlib.util import find_spec

if find_spec("taskqueue") is None:
    raise ImportError(
        "producer.gateway needs more packages than the client; from a checkout: "
        "pip install ./runnerlib ./taskqueue './producer[gateway]'"
    )
