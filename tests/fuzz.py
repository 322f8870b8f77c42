"""Tries mutated recipes and images; counts what became of them, and fails at the first fault.

    python tests/fuzz.py recipes --count 100000
    python tests/fuzz.py images --count 10000

Each recipe goes through `tltool validate` in this process: it must end with exit code 0, 2 or 3,
without a traceback, in less than a second of processor time. A third are damaged texts, a third
are damaged bytes, and a third are built by hypothesis from the JSON Schema of recipes. Each image
is damaged after it was encoded, and scanned; training must then decode the good ones to the pixels
of the scan, and fail at the others.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CODES = (0, 2, 3)
SECONDS = 1.0
SIZE = (24, 20)  # of most images: then resizing changes nothing
TEXT = """\
version: 1
name: flowers
data: {train: photos, image_size: [32, 40], classes: [yes, "0"], validation: 0.25}
augment:
  flip: horizontal
  rand_augment: {num_ops: 3}
model:
  base: mobilenet
  arguments: &a {alpha: 0.25}
  weights: random
  head:
    hidden:
      - {units: 64, l2: 1e-4}
    dropout: 0.2
phases:
  - name: head
    epochs: 5
  - name: tune
    epochs: 2
    unfreeze: {from: conv_dw_12}
    learning_rate: {kind: cosine, initial: 1e-4, warmup_epochs: 1}
early_stopping: {patience: 3}
export: true
search:
  trials: 3
  space: {model.head.dropout: {min: 0.0, max: 0.5}}
baseline:
  model.weights: random
  model.arguments: *a
"""
PIECES = [
    *"\t\n :-[]{}&*!#|>'\"%@`,~=?\\\0é\u2028",
    *("- ", ": ", "<<: ", "!!str ", "!!python/object/apply:os.system ", "1e999", ".nan", "\ud800"),
    *("${HOME}", "../../", "/dev/zero", "~root", "&b *b ", "9" * 50),
]
VALUES = [None, True, False, -1, 0, 1, 7, 1.5, 1e308, 10**30, "", "x", "a\0b", "gs://x", "..",
          "/dev/zero", "photos", "random", "auto", "all", [], {}, [[]], [1, "a"], {"a": 1},
          {"from": 3}, {"kind": "adam"}, {"min": 0, "max": 1}, {"choices": [1, 2]}]  # fmt: skip

# ----------------------------------------------------------------------------------------- recipes


def mutate_text(text: str, source: random.Random) -> str:
    """Returns a text in which one to four places are replaced, doubled or cut."""
    for _ in range(source.randint(1, 4)):
        start = source.randrange(len(text) + 1)
        end = start + source.choice([0, 1, 5, 40])
        piece = source.choice([*PIECES, text[start : start + 30], ""])
        text = text[:start] + piece + text[end:]
    return text


def mutate_bytes(content: bytes, source: random.Random) -> bytes:
    """Returns bytes of which one to six are changed, or a part is cut, doubled or moved."""
    data = bytearray(content)
    for _ in range(source.randint(1, 6)):
        place = source.randrange(len(data) + 1)
        kind = source.randrange(5)
        if kind < 3 and place < len(data):
            data[place] = source.choice([source.randrange(256), data[place] ^ (1 << kind), 0, 255])
        elif kind == 3:
            data[place:place] = data[place : place + source.choice([1, 4, 100])]
        else:
            del data[place : place + source.choice([1, 4, 100])]
    return bytes(data) or b"\0"


def list_fields(schema: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the paths of all fields that the JSON Schema of recipes describes."""
    fields: list[tuple[str, ...]] = []

    def walk(node: Mapping[str, Any], path: tuple[str, ...]) -> None:
        if len(path) > 5:
            return
        for part in (node, *node.get("anyOf", ()), *node.get("oneOf", ())):
            if "$ref" in part:
                part = schema["$defs"][part["$ref"].rpartition("/")[2]]
            for name, child in part.get("properties", {}).items():
                fields.append((*path, name))
                walk(child, (*path, name))
            if isinstance(part.get("items"), Mapping):
                walk(part["items"], (*path, "0"))

    walk(schema, ())
    return sorted(set(fields))


def put(values: Any, path: tuple[str, ...], value: Any) -> None:
    """Sets a field; what is in its way is replaced."""
    for number, name in enumerate(path):
        is_last = number + 1 == len(path)
        key: Any = int(name) if isinstance(values, list) and name.isdigit() else name
        if isinstance(values, list) and (not isinstance(key, int) or key >= len(values)):
            return
        if not isinstance(values, dict | list):
            return
        if is_last:
            values[key] = value
        elif isinstance(values, dict) and not isinstance(values.get(key), dict | list):
            values[key] = {}
        values = values[key]


def build_by_hypothesis(count: int, seed: int, take: Callable[[bytes], None]) -> None:
    """Builds recipes: fields of the schema with values of any kind; hypothesis chooses both."""
    import hypothesis
    from hypothesis import strategies

    from tl_toolkit.recipe.load import json_schema

    fields = list_fields(json_schema())
    scalars = strategies.one_of(
        strategies.sampled_from(VALUES),
        strategies.integers(-(10**20), 10**20),
        strategies.floats(),
        strategies.text(max_size=20),
    )
    values = strategies.recursive(
        scalars,
        lambda inner: strategies.one_of(
            strategies.lists(inner, max_size=4),
            strategies.dictionaries(strategies.text(max_size=8), inner, max_size=4),
        ),
        max_leaves=8,
    )
    changes = strategies.lists(
        strategies.tuples(strategies.sampled_from(fields), values), min_size=1, max_size=4
    )

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(changes)
    def try_one(chosen: list[tuple[tuple[str, ...], Any]]) -> None:
        recipe = json.loads(BASE)
        for path, value in chosen:
            put(recipe, path, value)
        take(json.dumps(recipe).encode("utf-8", "surrogatepass"))

    try_one()


BASE = json.dumps(
    {
        "version": 1,
        "name": "x",
        "data": {"train": "photos", "validation": 0.25, "image_size": 32},
        "model": {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"},
        "phases": [{"name": "head", "epochs": 1}, {"name": "tune", "epochs": 1, "unfreeze": 1}],
    }
)


def validate(path: Path) -> tuple[int, str, float]:
    """Returns exit code, text and processor seconds of `tltool validate PATH` in this process."""
    from tl_toolkit.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        began = time.process_time()
        code = run(["validate", str(path)])
        seconds = time.process_time() - began
    return code, err.getvalue() + out.getvalue(), seconds


def draw_photos(folder: Path) -> None:
    """Draws the images that the recipes speak of."""
    for name in ("yes", "0"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8)).save(folder / "photos" / name / f"{number}.png")


def fuzz_recipes(
    count: int, seed: int, folder: Path, *, by_hypothesis: bool = True, limit: float = math.inf
) -> dict[str, Any]:
    """Tries recipes; returns how many ended with each code, and the longest time.

    Raises:
        AssertionError: One ended otherwise, or took `limit` processor seconds; the file is left as
            `folder/fault.yaml`.
    """
    draw_photos(folder)
    codes: collections.Counter[int] = collections.Counter()
    longest = 0.0
    path = folder / "x.yaml"

    def take(content: bytes) -> None:
        nonlocal longest
        path.write_bytes(content)
        code, text, seconds = validate(path)
        codes[code] += 1
        longest = max(longest, seconds)
        # Hypothesis takes words of this file for values: a message may quote one.
        has_trace = any(line.startswith("Traceback (") for line in text.splitlines())
        fault = code not in CODES or has_trace or (code != 0 and not text.strip())
        if fault or seconds >= limit:
            path.rename(folder / "fault.yaml")
            raise AssertionError(f"{folder}/fault.yaml: code {code}, {seconds:.2f} s\n{text}")

    source = random.Random(seed)
    for _ in range(count // 3 if by_hypothesis else count // 2):
        take(mutate_text(TEXT, source).encode("utf-8", "surrogatepass"))
        take(mutate_bytes(TEXT.encode(), source))
    if by_hypothesis:
        build_by_hypothesis(count - 2 * (count // 3), seed, take)
    return {"codes": dict(sorted(codes.items())), "longest": longest}


# ------------------------------------------------------------------------------------------ images


def list_images() -> Iterator[bytes]:
    """Yields small images of each format and mode that the decoder knows."""
    random_pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("RGB", "JPEG", {"quality": 80}),
        ("RGB", "JPEG", {"quality": 80, "progressive": True, "exif": exif}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {"exif": exif}),
        ("L", "PNG", {}),
        ("P", "PNG", {}),
        ("1", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "BMP", {}),
        ("P", "BMP", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("RGB", "WEBP", {"exif": exif}),
        ("RGBA", "WEBP", {}),
        ("RGB", "TIFF", {}),
    ]
    for mode, kind, options in kinds:
        image = Image.fromarray(random_pixels).convert("RGB" if mode != "RGBA" else mode)
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind, **options)
        yield buffer.getvalue()
    frames = [Image.fromarray(random_pixels[::step]).convert("P") for step in (1, 1, 1)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    yield buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(random_pixels[..., 0].astype(np.uint16) * 257).save(buffer, "PNG")
    yield buffer.getvalue()


def fuzz_images(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Scans damaged images and decodes them as training does; returns how many had each verdict.

    Raises:
        AssertionError: Scan and training disagree; the file is left in `folder`.
    """
    source = random.Random(seed)
    images = list(list_images())
    verdicts: collections.Counter[str] = collections.Counter()
    done = 0
    while done < count:
        size = min(200, count - done)
        paths = []
        for number in range(size):
            path = folder / f"{number}.img"
            path.write_bytes(mutate_bytes(source.choice(images), source))
            paths.append(str(path))
        verdicts.update(compare(paths, folder / "cache"))
        done += size
    return dict(sorted(verdicts.items()))


def compare(paths: list[str], cache: Path) -> list[str]:
    """Returns the verdicts of the scan, after training has decoded the same files."""
    from tl_toolkit.errors import DataError
    from tl_toolkit.images.manifest import Example
    from tl_toolkit.images.pipeline import Images, resize_pixels
    from tl_toolkit.images.scan import inspect_images

    scanned: dict[str, np.ndarray] = {}
    inspections = inspect_images(
        paths, cache_dir=cache, keep=lambda sha256, image: scanned.update({sha256: image.numpy()})
    )
    for inspection in inspections:
        split = Images([Example(*inspection[:2], "train", ("x",))], image_size=SIZE)
        try:
            pixels = split.load([0])[0]
        except DataError:
            assert inspection.verdict != "good", inspection
            continue
        assert inspection.verdict == "good", inspection
        if inspection.sha256 in scanned:  # else the verdict was known
            expected = resize_pixels(scanned[inspection.sha256], SIZE, "stretch")
            assert np.array_equal(pixels, expected), inspection
    return [inspection.verdict for inspection in inspections]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("recipes", "images"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Below folders of its own, as `..` is a folder that a recipe may name, and all in it is listed.
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"), "a", "b")
    folder.mkdir(parents=True)
    began = time.monotonic()
    if arguments.what == "recipes":
        result = fuzz_recipes(arguments.count, arguments.seed, folder, limit=SECONDS)
    else:
        result = fuzz_images(arguments.count, arguments.seed, folder)
    print(f"{arguments.count:,} {arguments.what}, seed {arguments.seed}: {result}, "
          f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
    import shutil

    shutil.rmtree(folder.parents[1])


if __name__ == "__main__":
    sys.exit(main())
