"""Images of several requests in one call of the model.

One thread calls the model. While it runs, requests wait; what fits together (of one version, one
signature and one size of images) is one call then, at most `max_batch` images. A call that the
model refuses is made again in halves, until the image at fault is alone: others get their answers.
A model that is no export gets each request in a call of its own, as its client sent it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tl_toolkit.serving.heads import count_images, count_pixels
from tl_toolkit.serving.saved_model import ServedModel, Signature
from tl_toolkit.serving.tensors import Refusal
from tl_toolkit.serving.worker import Worker

__all__ = ["Batcher", "Observer"]

Arrays = Mapping[str, np.ndarray]
Observer = Callable[[int, float], None]
"""Receives the number of images of a call, and its seconds."""


@dataclass(eq=False)
class _Job:
    """A part of a request, which is answered by one call."""

    model: ServedModel
    signature: Signature
    inputs: Arrays
    count: int
    pixels: int
    future: asyncio.Future[Arrays]
    arrived: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for jobs that one call may answer."""
        if not _can_share(self.model, self.signature):
            return (id(self),)
        shapes = tuple(self.inputs[name].shape[1:] for name in self.signature.inputs)
        return (id(self.model), self.signature.name, shapes)


class Batcher:
    """Calls a model for many requests.

    Args:
        max_batch: The most images of a call.
        max_pixels: The most pixels of an image, and of the images of a call.
        wait_ms: How long the first image of a call waits for others.
        limit: The most images that wait.
        observe: Receives each call.
    """

    def __init__(
        self, *, max_batch: int, max_pixels: int, wait_ms: float, limit: int, observe: Observer
    ) -> None:
        self._max_batch = max_batch
        self._max_pixels = max_pixels
        self._wait = wait_ms / 1000
        self._limit = limit
        self._observe = observe
        self._waiting: OrderedDict[tuple[Any, ...], deque[_Job]] = OrderedDict()
        self._count = 0
        self._arrival = asyncio.Event()
        self._caller, self._reader = Worker("model"), Worker("heads")
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return self._count

    async def close(self) -> None:
        """Ends the work; call it when no request waits. A call that runs is not waited for."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._caller.close()
        self._reader.close()

    async def answer(
        self, model: ServedModel, signature: Signature, inputs: Arrays, *, timeout: float
    ) -> Arrays:
        """Returns what the model returns for the images of a request.

        Args:
            model: The model.
            signature: Its signature.
            inputs: An array for each input, with at least one image.
            timeout: Seconds.

        Raises:
            Refusal: Too many images wait, the model refuses these, or it takes too long.
        """
        can_share = _can_share(model, signature)
        count = count_images(signature, inputs)
        self._check_count(count, self._limit if can_share else min(self._limit, self._max_batch))
        jobs: list[_Job] = []
        try:
            async with asyncio.timeout(timeout):
                pixels = await self._reader.run(count_pixels, signature, inputs, self._max_pixels)
                self._check_pixels(pixels, can_share=can_share)
                self._check_count(count, self._limit)  # others came meanwhile
                jobs = [
                    self._put(model, signature, part, weights)
                    for part, weights in self._split(inputs, pixels, can_share=can_share)
                ]
                parts = [await job.future for job in jobs]
        except TimeoutError:
            raise Refusal(504, f"the model did not answer within {timeout:g} seconds") from None
        finally:
            for job in jobs:
                if not job.future.cancel() and not job.future.cancelled():
                    job.future.exception()  # of parts behind the one that was refused
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _check_count(self, count: int, most: int) -> None:
        if count > most:
            raise Refusal(413, f"a request takes at most {most} images, this one has {count}")
        if self._count + count > self._limit:
            raise Refusal(429, "too many images wait for the model", {"Retry-After": "1"})

    def _check_pixels(self, pixels: Sequence[int], *, can_share: bool) -> None:
        limit = self._max_pixels
        if max(pixels) > limit:
            place = pixels.index(max(pixels))
            text = f"image {place} has more than {limit:,} pixels, which are not read"
            raise Refusal(413, text)
        # What has no readable head counts as the limit, and is no image to a graph.
        if not can_share and sum(size for size in pixels if size < limit) > limit:
            raise Refusal(413, f"the images have more than {limit:,} pixels, which are not read")

    def _split(
        self, inputs: Arrays, pixels: Sequence[int], *, can_share: bool
    ) -> Iterator[tuple[Arrays, Sequence[int]]]:
        """Yields the parts of a request that are calls of their own, with pixels of each image."""
        if not can_share:
            yield inputs, pixels
            return
        start = 0
        while start < len(pixels):
            end, total = start, 0
            while end < len(pixels) and end - start < self._max_batch:
                total += pixels[end]
                if end > start and total > self._max_pixels:
                    break
                end += 1
            yield {name: array[start:end] for name, array in inputs.items()}, pixels[start:end]
            start = end

    def _put(
        self, model: ServedModel, signature: Signature, inputs: Arrays, pixels: Sequence[int]
    ) -> _Job:
        future = asyncio.get_running_loop().create_future()
        job = _Job(model, signature, inputs, len(pixels), sum(pixels), future)
        self._waiting.setdefault(job.key, deque()).append(job)
        self._count += job.count
        self._arrival.set()
        return job

    async def _work(self) -> None:
        while True:
            self._arrival.clear()
            if not self._waiting:
                await self._arrival.wait()
            jobs = await self._gather()
            if not jobs:
                continue
            start = time.monotonic()
            results = await self._caller.run(_answer, jobs)
            self._observe(sum(job.count for job in jobs), time.monotonic() - start)
            for job, result in zip(jobs, results, strict=True):
                if job.future.done():
                    continue
                if isinstance(result, Exception):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)

    async def _gather(self) -> list[_Job]:
        """Returns the jobs of the next call: those that wait longest, with what fits to them."""
        key = next(iter(self._waiting))
        until = self._waiting[key][0].arrived + self._wait
        while self._count_waiting(key) < self._max_batch and (rest := until - time.monotonic()) > 0:
            self._arrival.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._arrival.wait(), rest)
        queue, count, pixels = self._waiting.pop(key), 0, 0
        jobs: list[_Job] = []
        while queue and (
            not jobs
            or (
                count + queue[0].count <= self._max_batch
                and pixels + queue[0].pixels <= self._max_pixels
            )
        ):
            job = queue.popleft()
            self._count -= job.count
            if not job.future.done():  # its client has waited for too long
                jobs.append(job)
                count += job.count
                pixels += job.pixels
        if queue:  # behind what came after it, so that no kind of images waits for ever
            self._waiting[key] = queue
        return jobs

    def _count_waiting(self, key: tuple[Any, ...]) -> int:
        return sum(job.count for job in self._waiting[key])


def _answer(jobs: Sequence[_Job]) -> list[Arrays | Exception]:
    """Returns what the model returns for each job, or why it returns nothing."""
    first = jobs[0]
    try:
        outputs = first.model.call(first.signature.name, _join(jobs))
    except Exception as error:  # whatever the model raises, its clients wait for an answer
        if len(jobs) == 1:
            return [error]
        middle = len(jobs) // 2
        return [*_answer(jobs[:middle]), *_answer(jobs[middle:])]
    if len(jobs) == 1:
        return [outputs]
    ends = np.cumsum([job.count for job in jobs])
    if any(values.ndim == 0 or len(values) != ends[-1] for values in outputs.values()):
        return [answer for job in jobs for answer in _answer([job])]  # whose is which is unknown
    return [
        {name: values[end - job.count : end] for name, values in outputs.items()}
        for job, end in zip(jobs, ends, strict=True)
    ]


def _can_share(model: ServedModel, signature: Signature) -> bool:
    """Returns whether images of several requests may be given to a signature in one call."""
    return model.is_export and signature.is_batched


def _join(jobs: Sequence[_Job]) -> Arrays:
    if len(jobs) == 1:
        return jobs[0].inputs
    names = jobs[0].signature.inputs
    return {name: np.concatenate([job.inputs[name] for job in jobs]) for name in names}
