"""Calls Keras callbacks in each phase as a call of `fit` on the whole model would."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import keras

__all__ = ["PhaseCallbacks"]

_TRAIN_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class PhaseCallbacks:
    """Calls callbacks as `fit` does, through Keras's own list of callbacks.

    Inside this context the model has the phase's optimizer, and an interrupt is never lost.

    Args:
        callbacks: The callbacks.
        model: Their `model`, from images to probabilities.
        optimizer: The optimizer of the phase; schedulers read it from the model.
        epochs: Epochs of the phase.
        steps: Steps in an epoch.

    Attributes:
        wants_batches: Whether one of them listens to batches of training.
        wants_test_batches: Whether one of them listens to batches of validation.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        epochs: int,
        steps: int,
    ) -> None:
        self.wants_batches = any(_overrides(callback, _TRAIN_HOOKS) for callback in callbacks)
        self.wants_test_batches = any(_overrides(callback, _TEST_HOOKS) for callback in callbacks)
        self._callbacks = list(callbacks)
        self._model = model
        self._optimizer = optimizer
        self._params = {"epochs": epochs, "steps": steps, "verbose": 1}
        self._interrupts = _KeptInterrupts()

    def __enter__(self) -> Self:
        """Begins the training of the phase.

        An exception of a callback leaves model and signal handler as they were.
        """
        self._before = getattr(self._model, "optimizer", None)
        try:
            self._begin()
        except BaseException:  # Python calls `__exit__` only after this has returned
            self._undo()
            raise
        return self

    def _begin(self) -> None:
        if self._callbacks:
            self._interrupts.start()
            self._model.optimizer = self._optimizer
            self._model.stop_training = False
        self._list = keras.callbacks.CallbackList(
            self._callbacks, add_history=bool(self._callbacks), model=self._model, **self._params
        )
        self.call("on_train_begin")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restores the model, so that later files of it hold no optimizer."""
        self._undo()

    def _undo(self) -> None:
        if self._callbacks:
            self._model.optimizer = self._before
            self._interrupts.stop()

    @property
    def want_to_stop(self) -> bool:
        """Whether a callback has asked for the end of the phase."""
        return bool(self._callbacks) and bool(self._model.stop_training)

    def call(self, hook: str, *arguments: Any) -> None:
        """Calls a hook of all callbacks.

        Args:
            hook: Name of the hook, as `on_epoch_end`.
            *arguments: What the hook takes: a number, logs, both or neither.

        Raises:
            KeyboardInterrupt: An interrupt came during the hook, even if other code caught it.
        """
        if self._callbacks:
            getattr(self._list, hook)(*arguments)
            self._interrupts.check()


class _KeptInterrupts:
    """Raises an interrupt again if other code has caught it.

    CallbackList turns each value of the logs into a number inside `try: ... except: pass`, where a
    Ctrl-C is lost.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None

    def start(self) -> None:
        """Installs the handler; Python delivers signals to the main thread only."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._handle)

    def stop(self) -> None:
        """Restores the earlier handler."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal's handler raised it, even if code caught it."""
        if self._came:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        handler: Callable[[int, FrameType | None], Any] = self._before
        try:
            handler(number, frame)
        except KeyboardInterrupt:  # a caller's own handler may let the run continue
            self._came = True
            raise


def _overrides(callback: keras.callbacks.Callback, hooks: Sequence[str]) -> bool:
    """Returns whether a callback overrides one of these hooks."""
    return any(
        getattr(getattr(callback, hook), "__func__", None)
        is not getattr(keras.callbacks.Callback, hook)
        for hook in hooks
    )
