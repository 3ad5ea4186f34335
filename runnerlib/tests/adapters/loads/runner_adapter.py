"""Things that are loaded once, one from another, and torn down."""

EVENTS: list[str] = []


def load_settings():
    EVENTS.append("settings")
    return {"size": 3}


def load_model(settings, *, device, logger, path="model.bin"):
    EVENTS.append(f"model {path} {settings['size']} on {device}")
    yield [1] * settings["size"]
    EVENTS.append("model closed")


def load_pool(*, model, metrics):
    EVENTS.append("pool")
    yield len(model)
    EVENTS.append("pool closed")


def load_unused():
    EVENTS.append("unused")


def run_size(*, model) -> int:
    """No fields at all.

    >>> run_size()
    3
    """
    return len(model)


def run_count(text: str, *, pool, metrics, device: str) -> str:
    metrics.counter("counted", "How many were counted.").inc()
    return f"{text}{pool}{device}"


def run_plain(text: str) -> str:
    return text
