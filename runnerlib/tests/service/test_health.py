from runnerlib.service.health import Health


def test_without_parts_a_process_is_ready() -> None:
    assert Health().is_ready


def test_a_named_part_starts_unready() -> None:
    health = Health("store", "catalogue")
    assert not health.is_ready
    assert health.reasons == {"store": "starting", "catalogue": "starting"}
    health.set("store", True)
    health.set("catalogue", False, "discovery does not answer")
    assert health.reasons == {"catalogue": "discovery does not answer"}
    health.set("catalogue", True)
    assert health.is_ready


def test_a_part_may_turn_up_later() -> None:
    health = Health()
    health.set("load_model", False)
    assert health.reasons == {"load_model": "not ready"}
