"""What reading objects several at a time is worth, on a store that answers late.

    python benchmarks/objects.py --images 200 --delay 0.05
    python benchmarks/objects.py --listed 50000

Images lie in memory, behind fsspec; each request for one waits before it answers. A scan and an
epoch are timed with as many readers as files of a disk have, and with as many as objects have.
With --listed a listing of so many objects is timed instead, the first one and another.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import fsspec
import numpy as np
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def draw(system: fsspec.AbstractFileSystem, count: int, side: int) -> None:
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "photo.jpg")
        for number in range(count):
            small = generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(small).resize((side, side)).save(place)
            name = f"/benchmark/photos/{'ab'[number % 2]}/{number}.jpg"
            system.pipe(name, place.read_bytes())


def measure(readers: int | None) -> tuple[int, float, float]:
    from tl_toolkit.images.pipeline import Images
    from tl_toolkit.images.scan import ScanSettings, scan
    from tl_toolkit.plan.tasks import plan_task
    from tl_toolkit.recipe.load import build_recipe
    from tl_toolkit.recipe.remote import mirror_of
    from tl_toolkit.sources import objects
    from tl_toolkit.sources.remote import list_remote

    address = "memory://benchmark/photos"
    recipe = build_recipe(
        {
            "version": 1,
            "name": "objects",
            "data": {"train": address, "image_size": 64},
            "model": {"base": "lenet5", "weights": "random"},
            "phases": [{"name": "head", "epochs": 1}],
        }
    ).recipe
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ):
        os.environ |= {"TL_TOOLKIT_CACHE": cache, "TL_TOOLKIT_REMOTE_GB": "0"}
        with mock.patch.object(objects, "_READERS", readers or objects._READERS):
            recipe = recipe.model_copy(
                update={"data": recipe.data.model_copy(update={"train": mirror_of(address)})}
            )
            list_remote({"data.train": recipe.data.train})
            began = time.perf_counter()
            manifest = scan(plan_task(recipe).survey().list_files(), ScanSettings())
            scanned = time.perf_counter()
            images = Images(manifest.examples, image_size=(64, 64), memory_budget=0)
            for _ in images.batches(np.arange(len(images)), 32):
                pass
            count = objects.count_readers([address])
            return count, scanned - began, time.perf_counter() - scanned


def measure_listing(system: fsspec.AbstractFileSystem, count: int) -> None:
    from tl_toolkit.recipe.remote import mirror_of
    from tl_toolkit.sources.objects import INDEX
    from tl_toolkit.sources.remote import list_remote

    for number in range(count):
        system.pipe(f"/benchmark/listed/{'ab'[number % 2]}/photo-{number:06}.jpg", b"x")
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ):
        os.environ["TL_TOOLKIT_CACHE"] = cache
        folder = mirror_of("memory://benchmark/listed")
        for words in ("new", "again"):
            began = time.process_time()
            list_remote({"data.train": folder})
            microseconds = 1e6 * (time.process_time() - began) / count
            size = (folder / INDEX).stat().st_size / count
            print(f"{words:>6}: {microseconds:.0f} us of a core, {size:.0f} bytes, each object")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--delay", type=float, default=0.05, help="Seconds of each request.")
    parser.add_argument("--listed", type=int, default=0, help="Time a listing of so many alone.")
    arguments = parser.parse_args()
    system = fsspec.filesystem("memory")
    if arguments.listed:
        measure_listing(system, arguments.listed)
        return
    draw(system, arguments.images, arguments.side)
    cat_file = type(system).cat_file

    def answer_late(self, path, **options):  # type: ignore[no-untyped-def]
        time.sleep(arguments.delay)
        return cat_file(self, path, **options)

    with mock.patch.object(type(system), "cat_file", answer_late):
        measure(None)  # compiles the decoder
        print(f"{'readers':>8} {'scan s':>8} {'epoch s':>8}")
        for few in (1, None):
            readers, scan, epoch = measure(few)
            print(f"{readers:>8} {scan:8.2f} {epoch:8.2f}")


if __name__ == "__main__":
    main()
