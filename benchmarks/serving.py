"""Measures `tltool serve` under load: 32 clients that ask again as soon as they are answered.

    python benchmarks/serving.py                    a minute of load, and batches beside one by one
    python benchmarks/serving.py --seconds 10 --rounds 1

The model is MobileNet of a quarter of the width at 128 x 128 pixels, with random weights: what it
answers costs no time. Clients send photos of 320 x 240 pixels as JPEG, rendered in code, in the
rows of TensorFlow Serving. They are one process, the server another, and both share the machine.

Lost requests are those without an answer. Memory is the server's resident set at each quarter of
the time. For the ratio, servers with --max-batch 32 and 1 take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from clock import TLTOOL
from PIL import Image

CLIENTS = 32
PREDICT = "/v1/models/load:predict"
RECIPE = {
    "version": 1,
    "name": "load",
    "data": {
        "builtin": "digits",
        "classes": ["3", "5"],
        "examples_per_class": 20,
        "validation": 0.2,
        "image_size": 128,
    },
    "model": {"base": "mobilenet", "arguments": {"alpha": 0.25}, "weights": "random"},
    "phases": [{"name": "head", "epochs": 0}],
    "yardsticks": False,
    "report": False,
}


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: How long they asked.
        codes: Answers by their status.
        lost: Requests without an answer.
        times: Milliseconds of each answer.
        memory: MB of the server at each quarter of the time.
        batch: Mean number of images of a call of the model.
    """

    seconds: float = 0.0
    codes: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    times: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    batch: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.codes.values()) / self.seconds


def render_photos(count: int = 8) -> list[bytes]:
    """Returns JPEG files of smooth noise."""
    random = np.random.default_rng(0)
    photos = []
    for _ in range(count):
        small = Image.fromarray(random.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        photos.append(buffer.getvalue())
    return photos


def write_requests(photos: list[bytes]) -> list[bytes]:
    """Returns whole requests, head and body."""
    requests = []
    for photo in photos:
        rows = [{"bytes": {"b64": base64.b64encode(photo).decode()}}]
        body = json.dumps({"signature_name": "serve_bytes", "instances": rows}).encode()
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    return requests


async def ask(port: int, requests: list[bytes], until: float, load: Load) -> None:
    """Asks until it is time, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = 0
    while time.perf_counter() < until:
        start = time.perf_counter()
        try:
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
        except (OSError, asyncio.IncompleteReadError):
            load.lost += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        load.codes[int(head[9:12])] += 1
        load.times.append(1000 * (time.perf_counter() - start))
        number += 1
    writer.close()


async def run_clients(port: int, seconds: float) -> Load:
    """Runs all clients, and reads the server's memory meanwhile."""
    load, requests = Load(), write_requests(render_photos())
    start = time.perf_counter()
    clients = [
        asyncio.create_task(ask(port, requests, start + seconds, load)) for _ in range(CLIENTS)
    ]
    for _ in range(4):
        await asyncio.sleep(seconds / 4)
        memory = await asyncio.to_thread(read_metric, port, "process_resident_memory_bytes")
        load.memory.append(memory / 1e6)
    await asyncio.gather(*clients)
    load.seconds = time.perf_counter() - start
    calls = read_metric(port, "tltool_batch_images_count")
    load.batch = read_metric(port, "tltool_batch_images_sum") / max(calls, 1)
    return load


def read_metric(port: int, name: str) -> float:
    """Returns a number of /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text = response.read().decode()
    return float(re.findall(rf"^{name} (\S+)$", text, re.M)[0])


@contextlib.contextmanager
def serving(run: Path, *options: str) -> Iterator[int]:
    """Yields the port of a server in a process of its own, and ends it by SIGTERM."""
    command = [TLTOOL, "serve", str(run), "--port", "0", *options]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        for line in server.stderr or ():
            if found := re.search(r"answers at http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            raise SystemExit("the server did not start")
        try:
            yield int(found[1])
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait() == 0  # noqa: S101


def measure(run: Path, seconds: float, *options: str) -> Load:
    """Returns what clients saw of a server."""
    with serving(run, *options) as port:
        return asyncio.run(run_clients(port, seconds))


def describe(name: str, load: Load) -> str:
    """Returns a line for people."""
    p50, p99 = np.percentile(load.times, [50, 99])
    codes = ", ".join(f"{count:,} x {code}" for code, count in sorted(load.codes.items()))
    return (
        f"{name:12} {load.rate:7.1f} answers/s  {codes}, lost {load.lost}  "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms  {load.batch:.1f} images a call  "
        f"memory {', '.join(f'{each:.0f}' for each in load.memory)} MB"
    )


def main() -> None:
    """Prints a line for each server, and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0, help="of the long load")
    parser.add_argument("--short", type=float, default=10.0, help="of each round of the ratio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="serve this run in place of a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None:
            import tl_toolkit as tl

            tl.finetune(RECIPE, out=run)
        if options.seconds:
            print(describe("batches", measure(run, options.seconds)), flush=True)
        ratios = []
        for _ in range(options.rounds):
            many, one = (measure(run, options.short, "--max-batch", size) for size in ("32", "1"))
            print(describe("batches", many), describe("one by one", one), sep="\n", flush=True)
            ratios.append(many.rate / one.rate)
    if ratios:
        print(f"batches against one by one: {statistics.median(ratios):.2f}", *ratios)


if __name__ == "__main__":
    sys.exit(main())
