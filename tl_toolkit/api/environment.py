"""`describe_environment`: what a bug report needs to say of the machine that it comes from."""

from __future__ import annotations

import locale
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import tl_toolkit
from tl_toolkit.runs.files import default_cache_dir
from tl_toolkit.runs.listing import measure_size
from tl_toolkit.runtime import describe_numerics, describe_unfit_settings, start_tensorflow

__all__ = ["describe_environment", "describe_machine"]

_PACKAGES = (
    "h5py", "keras-tuner", "matplotlib", "ml-dtypes", "protobuf", "pydantic", "rich", "ruamel.yaml",
    "scikit-learn", "scipy", "tensorboard",
)  # fmt: skip
_OPTIONAL = ("onnx", "tf2onnx", "openvino", "onnxruntime", "jupyterlab", "tf-nightly")
# TF_VAR_, TF_CLI_ and TF_TOKEN_ are variables of Terraform, and may be secrets.
_VARIABLES = re.compile(
    r"TF(?!_(VAR|CLI|TOKEN))\w*|(KERAS|TL_TOOLKIT|CUDA|NVIDIA|XLA|OMP|MKL|OPENBLAS|KMP|LC|PYTHON|MALLOC)_?\w*"
    r"|LANG|LANGUAGE|LD_LIBRARY_PATH|LD_PRELOAD|NO_COLOR|TERM|COLUMNS|TMPDIR|XDG_CACHE_HOME"
    r"|VIRTUAL_ENV|CONDA_PREFIX|SLURM_JOB_ID|KUBERNETES_SERVICE_HOST"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")  # they may hold a password


def describe_environment() -> dict[str, Any]:
    """Returns what a bug report needs: versions, machine, devices, folders, variables, locale.

    Starts TensorFlow; if that fails, `error` says how, and all else is told. Of variables of the
    environment only those are told that TensorFlow, Keras, Python, numerical libraries and this
    package read, and of proxies only whether they are set.

    Returns:
        As lock.json has it under `numerics`: python, versions, machine, device and flags. Beside
        that `platform`, `package`, `cpus`, `memory`, `gpus`, `folders`, `variables` and `locale`,
        of plain values.
    """
    arithmetic = _describe_arithmetic()
    versions = {**arithmetic.pop("versions", _describe_core()), **_describe_packages()}
    return {
        "python": platform.python_version(),
        "versions": versions,
        **arithmetic,
        "platform": _describe_platform(),
        "package": str(Path(tl_toolkit.__file__).parent),
        "executable": sys.executable,
        "cpus": _describe_cpus(),
        "memory": _describe_memory(),
        "gpus": _describe_gpus(),
        "folders": _describe_folders(),
        "variables": _describe_variables(),
        "locale": _describe_locale(),
    }


def describe_machine() -> dict[str, Any]:
    """Returns what a figure of speed needs beside it: processor, cores, and versions."""
    cpus = _describe_cpus()
    return {
        "processor": cpus["name"],
        "cores": cpus["usable"],
        "python": platform.python_version(),
        "tensorflow": _find_version("tensorflow"),
        "keras": _find_version("keras"),
    }


def _describe_arithmetic() -> dict[str, Any]:
    try:
        start_tensorflow()
        return describe_numerics()
    except Exception as error:  # whatever it is, it belongs into the report
        text = f"{type(error).__name__}: {error}"
        return {"error": f"TensorFlow does not start: {text}", "machine": platform.machine()}


def _describe_core() -> dict[str, str]:
    names = ("tensorflow", "keras", "numpy", "pillow")
    found = {name: _find_version(name) or "not installed" for name in names}
    return {"tl-toolkit": tl_toolkit.__version__, **found}


def _describe_packages() -> dict[str, str]:
    needed = {name: _find_version(name) or "not installed" for name in _PACKAGES}
    optional = {name: version for name in _OPTIONAL if (version := _find_version(name))}
    return needed | optional


def _find_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _describe_platform() -> str:
    system = platform.platform()
    try:
        system = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    except (OSError, KeyError):  # no Linux with /etc/os-release
        pass
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    return f"{system}, in a container" if in_container else system


def _describe_cpus() -> dict[str, Any]:
    """Returns the CPU's name, how many there are, and how many this process may use."""
    name = _find_line(Path("/proc/cpuinfo"), "model name") or platform.processor()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota, _, period = _read(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    limit = int(quota) / int(period) if quota.isdecimal() and period.isdecimal() else None
    return {"name": name, "count": os.cpu_count(), "usable": usable, "limit": limit}


def _describe_memory() -> dict[str, int | None]:
    """Returns bytes of memory: in all, available now, and the limit of a container."""
    info = Path("/proc/meminfo")
    sizes = {name: _find_line(info, key) for name, key in
             (("total", "MemTotal"), ("available", "MemAvailable"))}  # fmt: skip
    kept = {name: int(text.split()[0]) * 1024 if text else None for name, text in sizes.items()}
    places = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    limits = [text for place in places if (text := _read(Path(place))).isdecimal()]
    limit = int(limits[0]) if limits else None
    is_limit = limit is not None and kept["total"] is not None and limit < kept["total"]
    return {**kept, "limit": limit if is_limit else None}


def _describe_gpus() -> list[dict[str, Any]]:
    """Returns name, memory and compute capability of each GPU that TensorFlow sees."""
    tensorflow: Any = sys.modules.get("tensorflow")
    if getattr(tensorflow, "config", None) is None:
        return []
    gpus = []
    for gpu in tensorflow.config.list_physical_devices("GPU"):
        details = tensorflow.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ())))
        name = details.get("device_name", gpu.name)
        build = tensorflow.sysconfig.get_build_info()
        built = {key: build[key] for key in ("cuda_version", "cudnn_version") if key in build}
        gpus.append({"name": name, "compute_capability": capability, **built})
    return gpus


def _describe_folders() -> dict[str, Any]:
    """Returns where the package writes, with sizes and free space in bytes."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    cache, temporary = default_cache_dir(), Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
    places = {"KERAS_HOME": home, "cache": cache, "working": Path.cwd(), "temporary": temporary}
    sized = ("KERAS_HOME", "cache")
    found = {
        name: {
            "path": str(path),
            **({"bytes": measure_size(path)} if name in sized else {}),
            "free": _find_free(path),
            "writable": os.access(_find_there(path), os.W_OK),
        }
        for name, path in places.items()
    }
    if unfit := describe_unfit_settings(home / "keras.json"):
        found["KERAS_HOME"]["unfit"] = unfit
    return found


def _find_there(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _find_free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(_find_there(path.absolute())).free
    except OSError:
        return None


def _describe_variables() -> dict[str, str]:
    told = {
        name: "(set, not shown)" if _SECRET.search(name) else value
        for name, value in sorted(os.environ.items())
        if _VARIABLES.fullmatch(name)
    }
    return told | dict.fromkeys(_list_proxies(), "(set, not shown)")


def _list_proxies() -> Iterator[str]:
    for name in _PROXIES:
        yield from (each for each in (name, name.upper()) if os.environ.get(each))


def _describe_locale() -> dict[str, str]:
    return {
        "locale": ".".join(part or "C" for part in locale.getlocale()),
        "preferred_encoding": locale.getpreferredencoding(False),
        "file_names": sys.getfilesystemencoding(),
        "stdout": str(getattr(sys.stdout, "encoding", None)),
    }


def _find_line(path: Path, key: str) -> str:
    """Returns the value of the first line `key: value` of a file."""
    for line in _read(path).splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
