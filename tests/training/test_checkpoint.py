"""The best state is that of one epoch, whenever an interrupt comes."""

from itertools import islice

import numpy as np
import pytest

from tests.models import build_transfer
from tl_toolkit.training.checkpoint import BestState, Epoch


class InterruptedOnce:
    """A model that is interrupted when some of its weights have been gone through."""

    def __init__(self, transfer):
        self._transfer = transfer
        self._is_new = True

    def variables(self):
        variables = self._transfer.variables()
        if self._is_new:
            self._is_new = False
            yield from islice(variables, 3)
            raise KeyboardInterrupt
        yield from variables


@pytest.fixture(scope="module")
def transfer():
    return build_transfer("lenet5")


@pytest.fixture
def best(transfer):
    """The state of epoch 1: every weight is 1."""
    set_weights(transfer, 1)
    state = BestState()
    state.watch_named(transfer, {name for _, name, _ in transfer.variables()})
    state.keep(transfer, epoch(1))
    return state


def epoch(number):
    return Epoch("head", number, 0.1, None, None, val_loss=1 / (number + 1), val_score=0.0)


def set_weights(transfer, value):
    for _, _, variable in transfer.variables():
        variable.assign(np.full(variable.shape, value))


def values(transfer):
    return {float(value) for _, _, variable in transfer.variables() for value in np.ravel(variable)}


def test_an_interrupt_while_an_epoch_is_kept_leaves_the_one_before(transfer, best):
    set_weights(transfer, 2)

    with pytest.raises(KeyboardInterrupt):
        best.keep(InterruptedOnce(transfer), epoch(2))

    best.restore(transfer)
    assert best.epoch == epoch(1)
    assert values(transfer) == {1.0}


def test_an_interrupt_while_weights_are_put_back_leaves_none_of_the_others(transfer, best):
    set_weights(transfer, 2)

    with pytest.raises(KeyboardInterrupt):
        best.restore(InterruptedOnce(transfer))

    assert values(transfer) == {1.0}


def test_what_is_kept_later_changes_no_copy(transfer, best):
    copy = best.copy()
    set_weights(transfer, 2)

    best.keep(transfer, epoch(2))

    copy.restore(transfer)
    assert (copy.epoch, values(transfer)) == (epoch(1), {1.0})


@pytest.mark.parametrize("keep_start", [False, True])
def test_an_untrained_start_is_replaced_and_a_trained_one_only_by_what_is_better(
    transfer, keep_start
):
    worse, better = (
        Epoch("head", 1, 0.1, None, None, val_loss=loss, val_score=0.0) for loss in (2.0, 0.5)
    )
    state = BestState(keep_start=keep_start)
    state.keep(transfer, epoch(0))

    assert state.copy().is_beaten_by(worse, None) == (not keep_start)
    assert state.is_beaten_by(better, None)
