"""Keras callbacks do what they do under `fit`: every hook, in its order, with its arguments."""

import csv
import json
import signal

import keras
import numpy as np
import pytest

import tl_toolkit as tl
from tests.training.test_loop import digits_recipe, history
from tl_toolkit.errors import NonFiniteError, ReceiptError
from tl_toolkit.training.callbacks import PhaseCallbacks, _KeptInterrupts

PHASE = {"name": "all", "epochs": 2, "unfreeze": 1, "learning_rate": 3e-3}


class Recorder(keras.callbacks.Callback):
    """Notes every hook with its number and the names in its logs."""

    def __init__(self):
        super().__init__()
        self.calls = []


def _record(name):
    def hook(self, *arguments, **keywords):
        numbers = [argument for argument in arguments if isinstance(argument, int)]
        logs = {**(arguments[-1] or {})} if len(arguments) > len(numbers) else keywords.get("logs")
        self.calls.append((name, *numbers, *sorted(logs or {})))

    return hook


HOOKS = [f"on_{kind}_{end}" for kind in ("train", "test") for end in ("begin", "end")]
HOOKS += [f"on_{kind}_batch_{end}" for kind in ("train", "test") for end in ("begin", "end")]
HOOKS += ["on_epoch_begin", "on_epoch_end"]
for hook in HOOKS:
    setattr(Recorder, hook, _record(hook))


def finetune(tmp_path, callbacks=(), phases=(PHASE,), out="run", progress=False, **sections):
    recipe = digits_recipe(phases=list(phases), **{"yardsticks": False} | sections)
    return tl.finetune(
        recipe, out=tmp_path / out, overwrite=True, callbacks=callbacks, progress=progress
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return finetune(tmp_path_factory.mktemp("plain"))


def count_steps(run):
    with open(run.path / "manifest.csv") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    return -(-splits.count("train") // 8), -(-splits.count("validation") // 32)


def test_hooks_come_in_the_order_of_fit_and_change_nothing(tmp_path, plain):
    recorder = Recorder()
    run = finetune(tmp_path, [recorder])
    steps, tests = count_steps(run)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    fitted = Recorder()
    x, y = np.zeros((steps * 8, 4)), np.zeros(steps * 8)
    shown = slice(0, tests * 8)
    model.fit(
        x, y, batch_size=8, epochs=2, callbacks=[fitted], verbose=0,
        validation_data=(x[shown], y[shown]),
    )  # fmt: skip

    # The logs of an epoch hold the learning rate, as those of a scheduler do.
    calls = [tuple(part for part in entry if part != "learning_rate") for entry in recorder.calls]
    assert calls == fitted.calls
    assert run.metrics["weights_sha256"] == plain.metrics["weights_sha256"]
    assert history(run, "1-all") == history(plain, "1-all")


@pytest.mark.slow
def test_logs_of_batches_are_the_means_so_far(tmp_path):
    losses = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: losses.append((batch, logs["loss"]))
    )

    run = finetune(tmp_path, [watch])

    steps, _ = count_steps(run)
    assert [batch for batch, _ in losses] == [*range(steps)] * 2
    ends = [loss for batch, loss in losses if batch == steps - 1]
    assert ends == [float(row["loss"]) for row in history(run, "1-all")[1:]]


@pytest.mark.slow
def test_checkpoints_hold_the_whole_model(tmp_path):
    files = tmp_path / "checkpoints"
    files.mkdir()
    by_epoch = keras.callbacks.ModelCheckpoint(files / "{epoch:02d}.keras")
    by_step = keras.callbacks.ModelCheckpoint(files / "step-{batch}.keras", save_freq=2)

    run = finetune(tmp_path, [by_epoch, by_step])

    assert {path.name for path in files.iterdir()} >= {"01.keras", "02.keras", "step-2.keras"}
    loaded = keras.saving.load_model(files / "02.keras")
    assert loaded.input_shape == (None, 32, 32, 3)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3))
    if run.metrics["best"]["epoch"] == 2:
        np.testing.assert_allclose(loaded.predict(images), run.model.predict(images), atol=1e-6)
    assert getattr(run.model, "optimizer", None) is None


@pytest.mark.slow
def test_what_comes_with_keras_works_as_under_fit(tmp_path, capsys):
    callbacks = [
        keras.callbacks.ProgbarLogger(),
        keras.callbacks.TensorBoard(tmp_path / "board", histogram_freq=1, update_freq="batch"),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1e9, factor=0.5),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        keras.callbacks.TerminateOnNaN(),
    ]

    run = finetune(tmp_path, callbacks, phases=[PHASE | {"epochs": 3}])

    rates = [float(row["learning_rate"]) for row in history(run, "1-all")]
    assert "Epoch 3/3" in capsys.readouterr().out
    assert list((tmp_path / "board" / "train").glob("events*"))
    with open(tmp_path / "log.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    np.testing.assert_allclose(rates, [3e-3, 3e-3, 3e-3, 1.5e-3], rtol=1e-6)


@pytest.mark.slow
def test_early_stopping_of_keras_stops_and_restores_the_whole_model(tmp_path):
    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.weights = getattr(self, "weights", []) + [self.model.get_weights()]

        def on_train_end(self, logs=None):
            self.end = self.model.get_weights()

    watch = Watch()
    stopping = keras.callbacks.EarlyStopping(
        monitor="val_loss", min_delta=1e9, patience=1, restore_best_weights=True
    )

    run = finetune(tmp_path, [stopping, watch], phases=[PHASE | {"epochs": 9}])

    assert len(history(run, "1-all")) == 3  # epochs 0, 1 and 2
    for mine, first in zip(watch.end, watch.weights[0], strict=True):
        np.testing.assert_array_equal(mine, first)


@pytest.mark.slow
def test_terminate_on_nan_ends_the_phase_and_the_best_weights_stay(tmp_path):
    phases = [PHASE, {**PHASE, "name": "burst", "optimizer": "sgd", "learning_rate": 1e38}]

    texts = []

    run = finetune(
        tmp_path, [keras.callbacks.TerminateOnNaN()], phases=phases,
        progress=lambda event: texts.append(event.text),
    )  # fmt: skip

    kept = run.metrics["best"]["epoch"]
    assert [text for text in texts if text.endswith(f"kept is epoch {kept} of phase all")]
    assert run.metrics["best"]["phase"] == "all"
    assert np.isfinite(run.metrics["best"]["val_loss"])
    assert len(history(run, "2-burst")) < 1 + 2


@pytest.mark.slow
def test_terminate_on_nan_before_the_first_epoch_is_done_ends_the_run(tmp_path):
    burst = PHASE | {"optimizer": "sgd", "learning_rate": 1e38}

    with pytest.raises(NonFiniteError, match=r"epoch 1  the loss(.|\n)*the head is untrained") as e:
        finetune(tmp_path, [keras.callbacks.TerminateOnNaN()], phases=[burst])

    assert e.value.exit_code == 6


@pytest.mark.slow
def test_a_callback_that_stops_before_the_first_epoch_leaves_an_untrained_head_and_it_is_said(
    tmp_path,
):
    class Stop(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.stop_training = True

    texts = []

    run = finetune(tmp_path, [Stop()], progress=lambda event: texts.append(event.text))

    assert run.metrics["best"]["epoch"] == 0
    assert "no epoch was trained: kept is the head as it was" in texts


@pytest.mark.slow
def test_a_weight_that_is_not_finite_ends_the_run_though_no_loss_shows_it(tmp_path):
    class Saturate(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            bias = self.model.get_layer("c3_conv").bias  # tanh of it is -1
            if epoch == 1:
                bias.assign(np.where(np.arange(bias.shape[0]), bias.numpy(), -np.inf))

    with pytest.raises(NonFiniteError, match="epoch 2  c3_conv/bias holds a number that is not"):
        finetune(tmp_path, [Saturate()], phases=[PHASE | {"unfreeze": 4}])

    kept = tl.load_run(tmp_path / "run").model
    assert all(np.isfinite(weight.numpy()).all() for weight in kept.weights)


@pytest.mark.slow
def test_a_phase_that_trains_makes_up_for_one_that_terminate_on_nan_ended(tmp_path):
    phases = [{**PHASE, "name": "burst", "optimizer": "sgd", "learning_rate": 1e38}, PHASE]

    run = finetune(tmp_path, [keras.callbacks.TerminateOnNaN()], phases=phases)

    assert run.metrics["best"]["phase"] == "all"


@pytest.mark.slow
def test_a_callback_may_stop_in_the_middle_of_an_epoch(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    run = finetune(tmp_path, [Stop()])

    assert [row["epoch"] for row in history(run, "1-all")] == ["0", "1"]


@pytest.mark.parametrize("hook", ["set_model", "on_train_begin"])
def test_a_callback_that_fails_at_the_beginning_leaves_everything_as_it_was(set_handler, hook):
    def fail(*arguments):
        raise ValueError(hook)

    set_handler(signal.default_int_handler)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    callback = keras.callbacks.Callback()
    setattr(callback, hook, fail)
    optimizer = keras.optimizers.SGD()

    with pytest.raises(ValueError, match=hook):
        with PhaseCallbacks([callback], model, optimizer, epochs=1, steps=1):
            pytest.fail("the phase began")

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert getattr(model, "optimizer", None) is None


@pytest.fixture
def set_handler():
    """Sets the handler of SIGINT for the test: a shell starts jobs in the background without."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_something_swallows_is_raised_again(set_handler):
    set_handler(signal.default_int_handler)
    kept = _KeptInterrupts()
    kept.start()

    try:
        signal.raise_signal(signal.SIGINT)
    except:  # noqa: E722  (as pythonify_logs does)
        pass

    with pytest.raises(KeyboardInterrupt):
        kept.check()
    kept.stop()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_the_caller_s_own_handler_takes_ends_nothing(set_handler):
    numbers = []
    set_handler(lambda number, frame: numbers.append(number))
    kept = _KeptInterrupts()
    kept.start()

    signal.raise_signal(signal.SIGINT)

    kept.check()
    assert numbers == [signal.SIGINT]


@pytest.mark.parametrize(
    "callbacks",
    [keras.callbacks.TerminateOnNaN(), "early", ["early"], [keras.callbacks.TerminateOnNaN]],
)
def test_what_is_no_list_of_callbacks_is_refused_before_anything_is_done(tmp_path, callbacks):
    with pytest.raises(TypeError, match=r"callbacks: expected a list of instances"):
        tl.finetune(tmp_path / "recipe.yaml", out=tmp_path / "run", callbacks=callbacks)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_exception_of_a_callback_leaves_the_best_model_and_its_type(tmp_path):
    def fail(epoch, logs):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        finetune(tmp_path, [keras.callbacks.LambdaCallback(on_epoch_end=fail)])

    (path,) = tmp_path.rglob("status.json")
    status = json.loads(path.read_text())
    assert (status["state"], status["error"]) == ("failed", "ValueError: mine")
    run = tl.load_run(path.parent, unfinished=True)
    kept = np.load(run.folder.checkpoint)
    kernel = run.model.get_layer("predictions").kernel
    assert any(np.array_equal(kernel, kept[name]) for name in kept)


@pytest.mark.slow
def test_a_callback_that_writes_frozen_weights_is_named_once(tmp_path):
    class Writing(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            for layer in self.model.layers:
                for weight in layer.weights:
                    weight.assign_add(weight * 0 + 1e-3)

    frozen = {**PHASE, "unfreeze": 0}
    with pytest.raises(ReceiptError, match="and [0-9]+ more: frozen, but moved") as caught:
        finetune(tmp_path, [Writing()], phases=(frozen,))

    assert len(caught.value.problems) == 1
    assert "without the callbacks Writing, one of which" in str(caught.value)
