import pytest

from runnerlib.adapter.metrics import Metrics


def test_asking_again_gives_the_same_metric():
    metrics = Metrics()
    metrics.counter("seen", "How many.", ["kind"]).labels("a").inc()
    metrics.counter("seen").labels("a").inc()
    metrics.gauge("size").set(3)
    metrics.histogram("seconds").observe(1)
    assert metrics.registry.get_sample_value("seen_total", {"kind": "a"}) == 2
    assert metrics.registry.get_sample_value("size") == 3


def test_one_name_cannot_be_two_kinds():
    metrics = Metrics()
    metrics.counter("seen")
    with pytest.raises(ValueError, match="'seen' is a counter already"):
        metrics.gauge("seen")
