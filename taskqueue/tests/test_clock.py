"""A wall clock that somebody sets."""

from taskqueue.clock import GuardedWall

DAY = 86_400.0


class Machine:
    def __init__(self) -> None:
        self.steady = 1000.0
        self.set_by = 0.0

    def guarded(self) -> GuardedWall:
        return GuardedWall(600.0, wall=lambda: 1_780_000_000.0 + self.steady + self.set_by, steady=lambda: self.steady)


def test_clock_that_jumps_forth_is_not_believed_for_ten_minutes() -> None:
    machine = Machine()
    wall = machine.guarded()
    before = wall()
    machine.set_by = 8 * DAY
    assert wall() == before
    machine.steady += 599
    assert wall() == before + 599
    machine.steady += 1
    assert wall() == before + 600 + 8 * DAY


def test_clock_that_is_set_right_again_has_lost_nothing() -> None:
    machine = Machine()
    wall = machine.guarded()
    before = wall()
    machine.set_by = 8 * DAY
    wall()
    machine.set_by = 0.0
    assert wall() == before


def test_small_corrections_and_jumps_back_are_believed_at_once() -> None:
    machine = Machine()
    wall = machine.guarded()
    before = wall()
    machine.set_by = 30.0
    assert wall() == before + 30
    assert wall.is_sure(1e9)
    machine.set_by = -3600.0
    assert wall() == before - 3600


def test_after_a_jump_it_is_sure_again_once_the_time_is_over() -> None:
    machine = Machine()
    wall = machine.guarded()
    machine.set_by = 8 * DAY
    assert not wall.is_sure(DAY)
    machine.steady += DAY
    assert wall.is_sure(DAY)
