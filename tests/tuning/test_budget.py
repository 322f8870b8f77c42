"""Budgets: what is left by a clock that the tests move, and what fits by what was measured."""

import pytest

from tl_toolkit.events import Event
from tl_toolkit.tuning.budget import MARGIN, Budget, Pace, TimeIsUp


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def features(done, total=100):
    return Event("features_computed", done=done, total=total)


def test_what_was_spent_before_counts(clock):
    budget = Budget(60, clock, spent=20)

    clock.now += 30

    assert (budget.spent, budget.left) == (50, 10)


def test_a_step_ends_once_less_is_left_than_must_be_kept(clock):
    budget = Budget(60, clock)
    step = Event("step_ended", done=1)

    with budget.keeping(lambda: 20):
        clock.now += 39
        budget.check(step)
        clock.now += 2
        budget.check(Event("message"))  # nothing that may be stopped
        with pytest.raises(TimeIsUp):
            budget.check(step)
    budget.check(step)  # nothing is kept outside of the block


def test_an_inner_reserve_hides_the_outer_one_while_it_lasts(clock):
    budget = Budget(60, clock)
    clock.now += 45

    with budget.keeping(lambda: 20):
        with budget.keeping(lambda: 10):
            budget.check(features(1))
        with pytest.raises(TimeIsUp):
            budget.check(features(2))


def measure(pace, clock, *, operations, seconds, images=10, judging=0.0):
    pace.note(features(0))
    clock.now += seconds
    pace.note(features(images))
    pace.learn(operations, images=images, judging=judging)


def test_a_pass_is_foreseen_by_the_pace_of_the_one_before(clock):
    pace = Pace(clock)
    assert pace.estimate_features(50, 100) == 0  # nothing is known

    pace.note(features(32))
    clock.now += 4
    pace.note(features(96))  # 64 images of 50 operations in 4 seconds
    pace.learn(50, images=128, judging=11)  # its features took 8 seconds

    assert pace.estimate_features(50, 64) == pytest.approx(4)
    assert pace.estimate_features(100, 64) == pytest.approx(6)  # half is taken for reading
    assert pace.judging == pytest.approx(3)
    assert pace.estimate_judging(100, 64) == pytest.approx(MARGIN * 9)


def test_two_bases_tell_reading_from_computing(clock):
    pace = Pace(clock)
    measure(pace, clock, operations=100, seconds=3)  # 10 images: 1 of reading, 2 of computing
    measure(pace, clock, operations=300, seconds=7)

    assert pace.estimate_features(1000, 10) == pytest.approx(21)
    measure(pace, clock, operations=400, seconds=2)  # others slowed the first one down
    assert pace.estimate_features(1000, 10) == pytest.approx(2)
    measure(pace, clock, operations=500, seconds=50)  # and now this one
    assert pace.estimate_features(1000, 10) == pytest.approx(100)


def test_judging_by_stored_features_tells_nothing_of_a_pass(clock):
    pace = Pace(clock)

    pace.learn(50, images=128, judging=3)

    assert (pace.judging, pace.estimate_features(50, 128)) == (3, 0)


def test_the_time_between_two_passes_is_not_counted(clock):
    pace = Pace(clock)
    for done in (10, 20):
        pace.note(features(done))
        clock.now += 1
    clock.now += 500
    for done in (10, 30):
        pace.note(features(done))
        clock.now += 1
    pace.learn(1, images=30)

    assert pace.estimate_features(1, 20) == pytest.approx(1)


def test_a_trial_and_its_run_are_foreseen(clock):
    pace = Pace(clock)
    pace.around = 6.0
    measure(pace, clock, operations=10, seconds=1)  # 0.1 seconds for an image, half of it reading

    trial = pace.estimate_trial(10, train=60, validation=20, epochs=2)

    assert trial == pytest.approx(0.1 * 80 + 0.05 * 2 * (3 * 60 + 20) / 2 + 3)
    assert pace.estimate_final(trial) == pytest.approx(MARGIN * (6 + trial))
