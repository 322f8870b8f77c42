"""Scans a Keras model in a file (.keras) by lists of what it may hold, before Keras builds it.

Keras refuses classes that are known to run code, and builds all others; this scan knows what may
be built, and refuses the rest. It reads the archive as Keras does, but imports no Keras and builds
nothing. What passes may still ask for more memory than there is: see `architectures.trial_load`.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_toolkit.catalog.foreign_files import HEAD_BYTES, describe_foreign_file, quote
from tl_toolkit.catalog.hdf5 import find_hdf5_fault
from tl_toolkit.catalog.keras_archive import ARCHIVE_START, open_hdf5

__all__ = ["Fault", "ScannedModel", "scan_model"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = ("metadata.json", _CONFIG, _WEIGHTS)
_MAX_MEMBERS = 16
_MAX_JSON_BYTES = 16 << 20
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 100
_MAX_EXPANSION = 32  # as in catalog.hdf5; Keras stores its members without compression

_CLASS = re.compile(r"[A-Z][A-Za-z0-9]*")
_NAME = re.compile(r"[\w.>/ -]{1,100}")

# Layers that compute on tensors, and on nothing else: no code (Lambda, RNN cells of the user's
# own), no files (StringLookup, TextVectorization), no other frameworks (TFSMLayer, JaxLayer).
_LAYERS = frozenset(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D Add AdditiveAttention AlphaDropout Attention AugMix
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization
    CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose
    Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU
    EinsumDense Embedding Equalization Flatten GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity
    InputLayer LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    Minimum MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RandAugment
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape
    Resizing SeparableConv1D SeparableConv2D Softmax Solarization SpatialDropout1D
    SpatialDropout2D SpatialDropout3D SpectralNormalization Subtract TimeDistributed
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
    """.split()
)
_MODELS = frozenset(("Functional", "Sequential"))
_MODEL_MODULES = (
    "keras",
    "keras.models",
    "keras.src.models.functional",
    "keras.src.models.sequential",
)
_POLICIES = frozenset(("DTypePolicy", "FloatDTypePolicy", "QuantizedDTypePolicy"))
# Modules of which each class is plain arithmetic.
_ARITHMETIC = (
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.losses",
    "keras.metrics",
    "keras.optimizers",
    "keras.optimizers.schedules",
    "keras.regularizers",
    "keras.src.ops.image",
    "keras.src.ops.linalg",
    "keras.src.ops.math",
    "keras.src.ops.nn",
    "keras.src.ops.numpy",
)
# Of keras.src.ops.core, which has loops and conditions over functions too.
_CORE = frozenset(("Cast", "ConvertToTensor", "Shape", "Slice", "SliceUpdate", "StopGradient"))
# Of single modules: layers of keras.applications, and the seeds of random layers.
_SINGLE = (
    ("keras.random", "SeedGenerator"),
    ("keras.src.applications.convnext", "LayerScale"),
    ("keras.src.applications.convnext", "StochasticDepth"),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"),
    ("keras.src.random.seed_generator", "SeedGenerator"),
)
_ACTIVATIONS = frozenset(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu
    linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus
    softsign sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold
    """.split()
)
_INITIALIZERS = frozenset(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform L1 L1L2 L2 LecunNormal LecunUniform
    MaxNorm MinMaxNorm NonNeg Ones Orthogonal RandomNormal RandomUniform TruncatedNormal UnitNorm
    VarianceScaling Zeros
    """.split()
)
_VALUES = frozenset(("__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__"))
_DTYPES = re.compile(r"bool|bfloat16|u?int(8|16|32|64)|float(16|32|64)")
# Classes that have run code or read files, and what they are.
_REASONS = {
    "Lambda": "a Lambda layer, which is Python code",
    "__lambda__": "a lambda function, which is Python code",
    "TFSMLayer": "a TFSMLayer, which runs a SavedModel from a path",
    "TorchModuleWrapper": "a TorchModuleWrapper, which holds a Python pickle",
    "JaxLayer": "a JaxLayer, which is Python code",
    "FlaxLayer": "a FlaxLayer, which is Python code",
}


@dataclass(frozen=True)
class Fault:
    """Why a model is not loaded.

    Attributes:
        reason: The reason, as "holds a Lambda layer, which is Python code".
        unknown: A class that is neither of Keras nor registered, as `package>Name`; "" if that is
            not the reason.
    """

    reason: str
    unknown: str = ""


@dataclass(frozen=True)
class ScannedModel:
    """A model that passed the scan.

    Attributes:
        digest: SHA-256 of its graph and weights: all that Keras reads of the file.
        registered: Classes and functions in it that are registered in this process.
    """

    digest: str
    registered: frozenset[str]


class _RefusedError(Exception):
    """Carries a fault out of the walk over a file."""

    def __init__(self, reason: str, unknown: str = "") -> None:
        super().__init__(reason)
        self.fault = Fault(reason, unknown)


def scan_model(path: Path, registered: Collection[str] = ()) -> ScannedModel | Fault:
    """Returns what a model holds, or why Keras must not build it; nothing of it is built.

    Args:
        path: The file.
        registered: Names of what the user's own code has registered in this process.
    """
    try:
        return _scan(path, registered)
    except _RefusedError as refused:
        return refused.fault
    except (RecursionError, MemoryError):
        return Fault(f"nests its {_CONFIG} too deeply")
    # The zip and HDF5 libraries raise errors of many kinds on damaged files.
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError) as error:
        return Fault(f"is damaged ({quote(str(error))})")
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        return Fault(f"is damaged ({quote(str(error))})")


def _scan(path: Path, registered: Collection[str]) -> ScannedModel:
    if path.is_dir():
        raise _RefusedError("is a folder: a model in a folder is not loaded, only a .keras file")
    if not path.is_file():  # a pipe would be waited for
        raise _RefusedError("is no regular file")
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise _RefusedError(
            "is an HDF5 file: a whole model in one (.h5) is not loaded, as Keras would run its code"
        )
    if not head.startswith(ARCHIVE_START):
        what = describe_foreign_file(path, head)[0] if head else "is empty (0 bytes)"
        raise _RefusedError(f"is damaged, or no .keras file: it {what}")
    with zipfile.ZipFile(path) as archive:
        _check_members(archive, path.stat().st_size)
        text = archive.read(_CONFIG)
    config = _read_json(text)
    names: set[str] = set()
    for value in _walk_config(config):
        if "class_name" in value:
            names.update(_check_object(value, registered))
        _check_texts(value)
    if not isinstance(config, dict) or config.get("class_name") is None:
        raise _RefusedError(f"has a {_CONFIG} that describes no model")
    digest = hashlib.sha256(text)
    with open_hdf5(path) as weights:
        if fault := find_hdf5_fault(weights, path.stat().st_size):
            raise _RefusedError(fault)
    with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS) as member:
        while chunk := member.read(1 << 20):
            digest.update(chunk)
    return ScannedModel(digest.hexdigest(), frozenset(names))


# ------------------------------------------------------------------------------------- the archive


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise _RefusedError(f"holds {len(members):,} members; a model has {len(_MEMBERS)}")
    names = [member.filename for member in members]
    for member in members:
        name = member.filename
        if name not in _MEMBERS:
            raise _RefusedError(f"holds {quote(name)}; a model has {', '.join(_MEMBERS)} alone")
        if names.count(name) > 1:
            raise _RefusedError(f"holds {name} twice")
        if member.flag_bits & 1:
            raise _RefusedError(f"holds {name} encrypted")
        if member.external_attr >> 28 not in (0, 8):  # the type in the mode of Unix
            raise _RefusedError(f"holds {name} as a link, and not as a file")
        if member.file_size > _MAX_EXPANSION * size:
            raise _RefusedError(f"claims {member.file_size:,} bytes of {name} in {size:,}")
    for name in (_CONFIG, _WEIGHTS):
        if name not in names:
            raise _RefusedError(f"holds no {name}")
    if archive.getinfo(_CONFIG).file_size > _MAX_JSON_BYTES:
        raise _RefusedError(f"holds more than {_MAX_JSON_BYTES >> 20} MiB of {_CONFIG}")


def _read_json(text: bytes) -> Any:
    if text.count(b",") + text.count(b"[") + text.count(b"{") > _MAX_VALUES:
        raise _RefusedError(f"holds more than {_MAX_VALUES:,} values in its {_CONFIG}")
    try:
        return json.loads(text)
    except ValueError as error:
        raise _RefusedError(f"has a {_CONFIG} that is no JSON ({quote(str(error))})") from error


# --------------------------------------------------------------------------------------- its config


def _walk_config(config: Any) -> Iterator[dict[str, Any]]:
    """Yields each mapping in a config, but for how the outermost model is compiled.

    Models are loaded without that: `load_model(compile=False)`.
    """
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key != "compile_config"}
    stack = [(config, 1)]
    while stack:
        value, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise _RefusedError(f"nests its {_CONFIG} more than {_MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            yield value
            stack += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            stack += [(item, depth + 1) for item in value]


def _check_object(value: dict[str, Any], registered: Collection[str]) -> Iterator[str]:
    """Refuses a class or function that may not be built; yields it if it is the user's own."""
    kind, module = value["class_name"], value.get("module")
    name = value.get("registered_name")
    if not isinstance(kind, str):
        raise _RefusedError("names a class by something that is no text")
    if kind == "function":
        yield from _check_function(value, registered)
        return
    if isinstance(name, str) and name in registered:
        yield name
        return
    if kind in _REASONS:
        raise _RefusedError(f"holds {_REASONS[kind]}")
    if kind in _VALUES:
        _check_value(value)
        return
    if module is not None and not isinstance(module, str):
        raise _RefusedError("names a module by something that is no text")
    if name not in (None, kind) or not (module or "keras").split(".")[0] == "keras":
        raise _refuse_unknown(name if isinstance(name, str) and name else kind)
    if not _is_listed(module, kind):
        if module is None and kind not in registered:
            raise _refuse_unknown(kind)
        place = f"{module}.{kind}" if module else kind
        raise _RefusedError(f"holds {quote(place)}, which is not among the layers that are loaded")


def _refuse_unknown(name: str) -> _RefusedError:
    known = name if _NAME.fullmatch(name) else ""
    return _RefusedError(f"holds {quote(name)}, which is not a part of Keras", known)


def _is_listed(module: str | None, kind: str) -> bool:
    if module is None:  # as old files have it: Keras looks for the name where the layer needs it
        return kind in _LAYERS | _MODELS | _POLICIES or kind in _INITIALIZERS
    if module == "keras.layers":
        return kind in _LAYERS
    if module in _MODEL_MODULES:
        return kind in _MODELS or (module == "keras" and kind in _POLICIES)
    if module == "keras.src.ops.core":
        return kind in _CORE
    if (module, kind) in _SINGLE:
        return True
    return module in _ARITHMETIC and _CLASS.fullmatch(kind) is not None


def _check_function(value: dict[str, Any], registered: Collection[str]) -> Iterator[str]:
    name, own = value.get("config"), value.get("registered_name")
    for candidate in (name, own):
        if isinstance(candidate, str) and candidate in registered:
            yield candidate
            return
    module = value.get("module")
    is_keras = module in ("builtins", "keras.activations") and own in (None, name)
    if not (is_keras and isinstance(name, str) and name in _ACTIVATIONS):
        raise _RefusedError(
            f"names the function {quote(f'{module}.{name}')}, which is no activation of Keras"
        )


def _check_value(value: dict[str, Any]) -> None:
    config = value.get("config")
    dtype = config.get("dtype", "float32") if isinstance(config, dict) else "float32"
    if not isinstance(dtype, str) or not _DTYPES.fullmatch(dtype):
        raise _RefusedError(f"holds a tensor of {quote(str(dtype))}, which is no type of numbers")


def _check_texts(value: dict[str, Any]) -> None:
    """Refuses the names of layers that could lead out of a folder, as Keras makes paths of them."""
    name = value.get("name")
    if isinstance(name, str) and (".." in name.split("/") or name.startswith("/") or "\0" in name):
        raise _RefusedError(f"names a layer {quote(name)}, which is a path")
