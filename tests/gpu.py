"""Runs the tests that need a GPU, where there is one: `make gpu`."""

import os
import sys
from pathlib import Path

import pytest

from tl_toolkit.runtime import start_tensorflow


def main() -> int:
    """Returns pytest's exit code; 0 where TensorFlow sees no GPU, which is said."""
    start_tensorflow()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and os.environ.get("TL_TOOLKIT_GPU_TESTS", "GPU") == "GPU":
        print("no GPU here: TensorFlow sees none, and nothing was run")
        return 0
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    print("GPUs:", ", ".join(each.get("device_name", "GPU") for each in details) or "none")
    tests = Path(__file__).with_name("test_gpu.py")
    return int(pytest.main([str(tests), "-m", "gpu", "--durations=5", *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
