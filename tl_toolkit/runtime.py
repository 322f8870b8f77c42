"""Starting TensorFlow: quietly, with threads, memory growth and determinism set first."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from tl_toolkit.errors import Problem, RecipeError
from tl_toolkit.keras_private import (
    disable_op_determinism,
    is_op_determinism_enabled,
    set_keras_home,
)

_logger = logging.getLogger("tl_toolkit")

_PRINT_STDIN = "import sys; sys.stderr.buffer.write(sys.stdin.buffer.read())"


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back what C++ code writes to stderr in the block; prints it if the block fails.

    TensorFlow logs its CPU features and the absence of a GPU before any logging setting is read.
    A process of its own holds the text, and prints it when this process has ended, even by an abort
    or a crash, whose text would be lost in this process.

    The whole process's stderr is held back, that of its other threads too: only the command line,
    which has none, may do this.
    """
    try:
        descriptor = sys.stderr.fileno()
        holder = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PRINT_STDIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            start_new_session=True,  # an interrupt from the keyboard is not meant for it
        )
    except (AttributeError, OSError, ValueError):  # stderr is captured or closed
        yield
        return
    sys.stderr.flush()
    with holder, os.fdopen(os.dup(descriptor), "wb") as original:
        if holder.stdin is not None:
            os.dup2(holder.stdin.fileno(), descriptor)
            holder.stdin.close()  # stderr alone holds the pipe open now
        try:
            yield
            holder.kill()
        finally:
            sys.stderr.flush()
            os.dup2(original.fileno(), descriptor)


_is_own_process = False


def claim_process() -> None:
    """Says that no code but the toolkit's runs in this process; the command line alone says so.

    TensorFlow then starts behind `quiet_stderr`, and libraries are imported without those that they
    take if they are installed: see `importing_without`.
    """
    global _is_own_process
    _is_own_process = True


@contextlib.contextmanager
def importing_without(*names: str) -> Iterator[None]:
    """Spares imports in the block some libraries that they would take if these are installed.

    Only in a process of the command line: in somebody else's, Keras's wrappers and galleries and
    KerasTuner's Gaussian process would be missing. After the block all can be imported as usual;
    what is imported already stays. In the block no other thread may import one of them.

    Measured on two idle cores, as medians of five starts: TensorFlow and Keras take 3.0 s without
    scikit-learn and matplotlib and 4.3 s with them; about 0.9 s of that is scikit-learn, 0.5 s
    matplotlib. `--help` and `validate` import none of the four.

    Args:
        *names: The libraries.
    """
    absent = [name for name in names if _is_own_process and name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(absent))  # None is Python's own mark for them
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Spares the block, which imports, the search for garbage: a sixth of TensorFlow's import.

    What is imported stays until the process ends, so that later searches leave it out, too. That
    takes 2 MB more than to collect what little garbage there is.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def start_tensorflow(*, threads: int | None = None) -> None:
    """Imports TensorFlow and Keras, and settles what must be settled before the first operation.

    These stay for the life of the process: the number of threads, a GPU's memory that grows as it
    is needed, and TensorFlow's log at the level of errors. What TensorFlow logs before that is held
    back in a process of the command line, and left on stderr in others: see `claim_process`.

    Keras starts on TensorFlow, with channels last and in float32, whatever KERAS_BACKEND and the
    keras.json of another project say; a Keras that runs already keeps what its caller set. Neither
    starts with a keras.json of floatx bfloat16: such a file is left aside, with a warning to the
    logger `tl_toolkit`.

    Args:
        threads: Size of both of TensorFlow's thread pools; None leaves them to TensorFlow. Ignored
            if TensorFlow is running already, which `describe_threads` then says.

    Raises:
        RecipeError: Keras runs already, on another backend.
    """
    _refuse_backend()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.ExitStack() as stack:
        if _is_own_process and "tensorflow" not in sys.modules:
            stack.enter_context(quiet_stderr())
            stack.enter_context(_without_collecting())
        stack.enter_context(importing_without("sklearn", "matplotlib"))
        stack.enter_context(_settling_keras())  # TensorFlow imports Keras too
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        with contextlib.suppress(RuntimeError):  # already initialized: these can change no more
            if threads is not None:
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(threads)
            for gpu in gpus:
                tf.config.experimental.set_memory_growth(gpu, True)
        # Each phase compiles functions of its own, which TensorFlow takes for retracing.
        tf.get_logger().setLevel("ERROR")
        import keras  # noqa: F401  (its import logs too)


def describe_threads(threads: int | None) -> str:
    """Returns a warning if TensorFlow had started before it could take its threads, else "".

    Args:
        threads: As `start_tensorflow` took them.
    """
    import tensorflow as tf

    pools = {
        tf.config.threading.get_intra_op_parallelism_threads(),
        tf.config.threading.get_inter_op_parallelism_threads(),
    }
    if threads is None or pools == {threads}:
        return ""
    return (
        f"threads={threads} has no effect: TensorFlow has started in this process, and its pools "
        "cannot change any more. Try: a new process, or restart the notebook's kernel"
    )


def count_threads() -> int:
    """Returns how many threads share one operation, which the last bits of its sums depend on."""
    import tensorflow as tf

    settled: int = tf.config.threading.get_intra_op_parallelism_threads()
    if settled:
        return settled
    if hasattr(os, "sched_getaffinity"):  # what TensorFlow asks on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _refuse_backend() -> None:
    """Refuses a Keras that runs on JAX or PyTorch: nothing can change that any more."""
    _refuse_other(
        "backend",
        "tensorflow",
        lambda config: config.backend(),
        expected="The toolkit runs on TensorFlow, and Keras was imported before it.",
        hint="KERAS_BACKEND=tensorflow in the environment, or import tl_toolkit first",
    )


def _refuse_other(
    setting: str, needed: str, read: Callable[[Any], str], *, expected: str, hint: str
) -> None:
    """Refuses another setting of Keras than the one that is needed, if Keras is imported."""
    keras: Any = sys.modules.get("keras")
    value = needed if keras is None else read(keras.config)
    if value != needed:
        where = f"keras.config.{setting}()"
        raise RecipeError(Problem(where, f"is {value!r}", expected, hint))


_FLOAT_TYPES = ("float16", "float32", "float64")
_DATA_FORMATS = ("channels_last", "channels_first")


def _find_settings() -> Path:
    """Returns where Keras and TensorFlow look for the settings of Keras."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"


def describe_unfit_settings(path: Path) -> str:
    """Returns what in a keras.json ends the imports of TensorFlow and Keras, or "".

    Args:
        path: The file; a missing one, or one that is no JSON, does no harm.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""
    except OSError as error:
        return error.strerror or type(error).__name__
    if not isinstance(settings, dict):
        return "no section of settings"
    values = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"} | settings
    fits = {
        "floatx": values["floatx"] in _FLOAT_TYPES,
        "epsilon": isinstance(values["epsilon"], float),
        "image_data_format": values["image_data_format"] in _DATA_FORMATS,
    }
    return ", ".join(f"{name} = {values[name]!r}" for name, is_fit in fits.items() if not is_fit)


@contextlib.contextmanager
def _settling_keras() -> Iterator[None]:
    """Settles what Keras reads from the environment and keras.json, if the block imports it."""
    if "keras" in sys.modules:
        yield
        return
    path = _find_settings()
    unfit = describe_unfit_settings(path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment("KERAS_BACKEND", "tensorflow"))
        if unfit:
            # Only the imports look elsewhere: weights stay where KERAS_HOME says.
            empty = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(_environment("KERAS_HOME", empty))
        yield
    config: Any = sys.modules["keras"].config
    config.set_image_data_format("channels_last")
    config.set_floatx("float32")
    if unfit:
        set_keras_home(str(path.parent))
        _logger.warning(
            "%s is not used: Keras cannot start with it (%s); it starts with its own settings",
            path,
            unfit,
        )


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Sets a variable of the environment for the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def numerics(*, deterministic: bool, threads: int | None = None) -> Iterator[None]:
    """Starts TensorFlow, and sets the arithmetic of a run for the block.

    After the block op determinism, TensorFloat-32, Keras's dtype policy, float type and order of
    axes are again what the caller had. They belong to the process, the policy to the thread: two
    runs that need different ones cannot run at the same time.

    Args:
        deterministic: Turn op determinism on and TensorFloat-32 off; False leaves both as the
            caller has them. Policy and float type are float32 in any case, and channels are last.
        threads: As `start_tensorflow` takes them.

    Raises:
        RecipeError: An operation in the block has no deterministic kernel on the device.
    """
    start_tensorflow(threads=threads)
    import keras
    import tensorflow as tf

    policy = keras.config.dtype_policy()
    floatx, data_format = keras.config.floatx(), keras.config.image_data_format()
    was_deterministic = is_op_determinism_enabled()
    was_tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        keras.config.set_dtype_policy("float32")
        keras.config.set_floatx("float32")
        keras.config.set_image_data_format("channels_last")
        if deterministic:
            tf.config.experimental.enable_op_determinism()
            # On a GPU its short mantissa would make a model's parts and its exports differ.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        yield
    except tf.errors.UnimplementedError as error:
        if "determinis" in str(error).lower():
            raise _describe_missing_kernel(str(error)) from error
        raise
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)
        keras.config.set_image_data_format(data_format)
        tf.config.experimental.enable_tensor_float_32_execution(was_tf32)
        if not was_deterministic:
            disable_op_determinism()


def _describe_missing_kernel(text: str) -> RecipeError:
    lines = [line.strip() for line in text.splitlines() if "determinis" in line.lower()]
    return RecipeError(
        Problem(
            where="deterministic",
            what="an operation of the model has no deterministic kernel on this device",
            expected=lines[0],
            hint="deterministic=false, where the last digits of two runs may differ",
        )
    )


def refuse_dtype_policy() -> None:
    """Refuses to train under another dtype policy than float32, or in a strategy's scope.

    A recipe alone decides what a run computes, as by its field `precision`. Costs nothing where
    Keras is not imported yet: nobody has set a policy then.

    Raises:
        RecipeError: Keras's policy is another one, or the call is in the scope of a strategy.
    """
    _refuse_strategy()
    _refuse_other(
        "dtype_policy",
        "float32",
        lambda config: config.dtype_policy().name,
        expected="The recipe decides it, by its field precision.",
        hint='keras.config.set_dtype_policy("float32") before the call',
    )


def _refuse_strategy() -> None:
    """Refuses the scope of a `tf.distribute` strategy, in which the toolkit cannot train."""
    tensorflow = sys.modules.get("tensorflow")
    distribute = getattr(tensorflow, "distribute", None)
    if distribute is not None and distribute.has_strategy():
        name = type(distribute.get_strategy()).__name__
        raise RecipeError(
            Problem(
                where="",
                what=f"the call is in the scope of a {name}",
                expected="The toolkit makes its own strategy.",
                hint='the call outside `with strategy.scope()`, with devices="all"',
            )
        )


def describe_numerics() -> dict[str, Any]:
    """Returns what the last bits of a trained weight depend on, for the lock file."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        **describe_arithmetic(),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
    }


def describe_arithmetic() -> dict[str, Any]:
    """Returns what the last bits of one forward pass depend on: versions, device and flags."""
    import keras
    import tensorflow as tf

    from tl_toolkit import __version__  # an editable installation has the version of its day

    versions = ("tensorflow", "keras", "numpy", "pillow")
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return {
        "versions": {"tl-toolkit": __version__, **{name: _version(name) for name in versions}},
        "machine": platform.machine(),
        "cpu": _hash_cpu_features(),
        "device": ", ".join(device.get("device_name", "GPU") for device in details) or "CPU",
        "precision": keras.config.dtype_policy().name,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0",
        "op_determinism": is_op_determinism_enabled(),
        "tf32": bool(tf.config.experimental.tensor_float_32_execution_enabled()),
    }


def _hash_cpu_features() -> str:
    """Returns a digest of the CPU's features, by which kernels are chosen, or of its name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = sorted({line for line in file if line.startswith(("flags", "Features"))})
    except OSError:
        lines = [platform.processor()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


_random_stream = threading.RLock()


@contextlib.contextmanager
def initializers_seeded(seed: int) -> Iterator[None]:
    """Seeds the values that Keras's initializers sample in the block.

    Initializers without a seed of their own, as keras.applications makes them, take one from
    Python's `random`, which has its old state again after the block. `keras.utils.set_random_seed`
    would seed NumPy and TensorFlow too, and TensorFlow then prepares every compiled function of the
    process anew: the decoder's takes 0.5 s, in each thread that decodes.

    Blocks of several threads take turns: they would draw from one stream.

    Args:
        seed: Any integer.
    """
    with _random_stream:
        state = random.getstate()
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


def derive_seed(*parts: Any) -> int:
    """Hashes values to a seed from 0 to 2**31 - 1, equal in every process.

    Args:
        *parts: Values with a stable repr.
    """
    digest = hashlib.sha256("\x1f".join(map(repr, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31
