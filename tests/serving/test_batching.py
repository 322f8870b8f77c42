"""Batches of several requests: who shares a call of the model, and who pays for a bad image."""

import asyncio
import struct
import threading
import zlib

import numpy as np
import pytest

from tests.serving.models import draw_image
from tl_toolkit.serving.batching import Batcher
from tl_toolkit.serving.heads import count_pixels
from tl_toolkit.serving.saved_model import ServedModel
from tl_toolkit.serving.tensors import Refusal

RED, BLACK, TEXT = draw_image(255), draw_image(0), b"no image"
TORN = RED[:50]  # its head is that of an image


class Held(ServedModel):
    """The model, whose calls wait until it is let go of."""

    def __init__(self, path):
        super().__init__(path, 1)
        self.gate, self.begun, self.ended = (threading.Event() for _ in range(3))

    def call(self, signature, inputs):
        self.begun.set()
        self.gate.wait(60)
        self.ended.set()
        return super().call(signature, inputs)


@pytest.fixture(scope="module")
def model(small_model):
    return Held(small_model / "1")


class Desk:
    """A batcher, and the numbers of images of its calls."""

    def __init__(self, model, **settings):
        self.calls, self.model = [], model
        limits = {"max_batch": 8, "max_pixels": 1000, "limit": 16}
        settings = limits | {"wait_ms": 0} | settings
        self.batcher = Batcher(**settings, observe=lambda count, seconds: self.calls.append(count))

    def ask(self, *images, timeout=60, signature="serve_bytes"):
        inputs = {"bytes": np.array(images, object)}
        if signature == "serving_default":
            inputs = {"image": np.array(images, np.uint8)}
        found = self.model.find(signature)
        answer = self.batcher.answer(self.model, found, inputs, timeout=timeout)
        return asyncio.ensure_future(answer)

    async def hold(self):
        """Makes a first call, behind which all others wait."""
        self.model.gate.clear()
        self.model.begun.clear()
        first = self.ask(BLACK)
        await asyncio.to_thread(self.model.begun.wait, 60)
        assert self.batcher.waiting == 0
        return first


def run(model, scenario, **settings):
    """Runs a scenario at a desk; returns what it returns, and the calls of the model."""

    async def main():
        desk = Desk(model, **settings)
        try:
            return await scenario(desk), desk.calls
        finally:
            model.gate.set()
            await desk.batcher.close()

    return asyncio.run(main())


async def settle(desk, count, *requests):
    """Returns requests when their images wait for the model."""
    await wait_until(lambda: desk.batcher.waiting == count)
    return requests


async def wait_until(holds):
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


def reds(answer):
    return answer["probabilities"][:, 1].tolist()


def test_what_waits_meanwhile_is_one_call(model):
    async def scenario(desk):
        first = await desk.hold()
        others = await settle(
            desk, 4, *[desk.ask(*images) for images in ([RED], [BLACK, RED], [RED])]
        )
        model.gate.set()
        return [reds(await request) for request in (first, *others)]

    answers, calls = run(model, scenario)

    assert answers == [[0.0], [1.0], [0.0, 1.0], [1.0]]
    assert calls == [1, 4]


def test_a_call_has_no_more_images_than_it_may(model):
    async def scenario(desk):
        first = await desk.hold()
        others = await settle(desk, 9, *[desk.ask(RED, BLACK, RED) for _ in range(3)])
        model.gate.set()
        return [reds(await request) for request in (first, *others)]

    answers, calls = run(model, scenario)

    assert answers[1:] == [[1.0, 0.0, 1.0]] * 3
    assert calls == [1, 6, 3]


def test_a_large_request_is_several_calls(model):
    async def scenario(desk):
        return reds(await desk.ask(*[RED, BLACK] * 5))

    model.gate.set()
    answer, calls = run(model, scenario, max_batch=4)

    assert answer == [1.0, 0.0] * 5
    assert calls == [4, 4, 2]


def test_a_bad_image_is_refused_and_leaves_others_alone(model):
    async def scenario(desk):
        first = await desk.hold()
        images = [RED, TORN, BLACK, RED, RED]
        others = await settle(desk, 5, *[desk.ask(image) for image in images])
        model.gate.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    answers, calls = run(model, scenario)

    assert calls == [1, 5]
    refused = answers.pop(2)
    assert isinstance(refused, Refusal) and refused.status == 400
    assert [reds(answer) for answer in answers] == [[0.0], [1.0], [0.0], [1.0], [1.0]]


def test_a_large_request_is_refused_for_one_bad_image(model):
    async def scenario(desk):
        return await desk.ask(RED, TEXT, RED, TEXT)

    model.gate.set()
    with pytest.raises(Refusal, match="refuses"):
        run(model, scenario, max_batch=1)


def test_images_of_different_sizes_share_no_call(model):
    async def scenario(desk):
        first = await desk.hold()
        small, large = np.zeros((1, 2, 3)), np.full((2, 2, 3), 255)
        others = await settle(
            desk,
            3,
            *[desk.ask(image, signature="serving_default") for image in (small, large, small)],
        )
        model.gate.set()
        return [reds(await request) for request in (first, *others)]

    answers, calls = run(model, scenario)

    assert answers == [[0.0], [0.0], [1.0], [0.0]]
    assert calls == [1, 2, 1]


def test_no_more_images_wait_than_may(model):
    async def scenario(desk):
        first = await desk.hold()
        waiting = await settle(desk, 15, desk.ask(*[RED] * 15))
        with pytest.raises(Refusal) as caught:
            await desk.ask(RED, RED)
        model.gate.set()
        await asyncio.gather(first, *waiting)
        return caught.value, desk.batcher.waiting

    (refusal, left), _ = run(model, scenario)

    assert (refusal.status, refusal.headers) == (429, {"Retry-After": "1"})
    assert left == 0


def test_a_request_that_could_never_wait_is_told_so(model):
    async def scenario(desk):
        await desk.ask(*[RED] * 17)

    with pytest.raises(Refusal, match="at most 16 images, this one has 17") as caught:
        run(model, scenario)
    assert caught.value.status == 413


def test_what_waits_for_too_long_is_told_so_and_never_run(model):
    async def scenario(desk):
        first = await desk.hold()
        with pytest.raises(Refusal) as caught:
            await desk.ask(RED, timeout=0.01)
        model.gate.set()
        await first
        await desk.ask(BLACK)
        return caught.value

    refusal, calls = run(model, scenario)

    assert refusal.status == 504
    assert calls == [1, 1]


def test_the_first_image_waits_for_others(model):
    async def scenario(desk):
        first = desk.ask(RED)
        await asyncio.sleep(0.01)
        rest = desk.ask(*[BLACK] * 7)
        return [reds(await request) for request in (first, rest)]

    model.gate.set()
    answers, calls = run(model, scenario, wait_ms=60_000)

    assert answers == [[1.0], [0.0] * 7]
    assert calls == [8]


def test_a_call_has_no_more_pixels_than_it_may(model):
    async def scenario(desk):
        first = await desk.hold()
        others = await settle(desk, 7, *[desk.ask(*images) for images in ([RED] * 5, [RED], [RED])])
        model.gate.set()
        return [reds(await request) for request in (first, *others)]

    answers, calls = run(model, scenario, max_pixels=3 * 64)

    assert [len(answer) for answer in answers] == [1, 5, 1, 1]
    assert calls == [1, 3, 3, 1]


@pytest.mark.parametrize("side", [32, 40_000])
def test_a_bomb_is_refused_by_its_head_and_never_decoded(model, side):
    head = bytearray(RED)
    head[16:24] = struct.pack(">II", side, side)
    head[29:33] = struct.pack(">I", zlib.crc32(head[12:29]))

    async def scenario(desk):
        await desk.ask(RED, bytes(head))

    model.gate.set()
    with pytest.raises(Refusal, match="image 1 has more than 1,000 pixels") as caught:
        run(model, scenario)
    assert caught.value.status == 413


def test_a_file_without_a_readable_head_shares_no_call(model):
    async def scenario(desk):
        first = await desk.hold()
        others = await settle(desk, 3, *[desk.ask(image) for image in (RED, TEXT, RED)])
        model.gate.set()
        return await asyncio.gather(first, *others, return_exceptions=True)

    _, calls = run(model, scenario)

    assert calls == [1, 1, 1, 1]


def lengthen(png, chunks):
    """Returns a PNG with chunks of text behind its head."""
    return png[:33] + chunks + png[33:]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_pixels_are_counted_by_the_head_of_a_file(model, kind):
    inputs = {"bytes": np.array([draw_image(side=9, kind=kind)], object)}

    assert count_pixels(model.find("serve_bytes"), inputs, 1000) == [81]


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (lengthen(RED, b"\0\0\0\1tEXtxabcd"), 64),  # a wrong checksum
        (lengthen(RED, (b"\0\0\0\0tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))) * 9000), 64),
        (RED[:12] + b"IDAT" + RED[16:], 1000),
        (b"\xff\xd8\xff\xe0", 1000),
        (b"%!PS", 1000),
        (b"", 1000),
    ],
)
def test_a_damaged_file_has_the_pixels_of_its_head_or_the_most(model, data, pixels):
    inputs = {"bytes": np.array([data], object)}

    assert count_pixels(model.find("serve_bytes"), inputs, 1000) == [pixels]


def test_a_model_that_is_no_export_gets_each_request_by_itself(model, monkeypatch):
    monkeypatch.setattr(model, "is_export", False)

    async def scenario(desk):
        first = await desk.hold()
        others = await settle(desk, 4, *[desk.ask(*images) for images in ([RED] * 3, [RED])])
        model.gate.set()
        answers = [reds(await request) for request in (first, *others)]
        for images, reason in (([RED] * 5, "most 4 images"), ([RED] * 4, "more than 200 pixels")):
            with pytest.raises(Refusal, match=reason) as caught:
                await desk.ask(*images)
            assert caught.value.status == 413
        return answers

    answers, calls = run(model, scenario, max_batch=4, max_pixels=200)

    assert answers == [[0.0], [1.0] * 3, [1.0]]
    assert calls == [1, 3, 1]


def test_outputs_of_another_length_are_asked_for_again_by_request(model, monkeypatch):
    """Whose is which is unknown."""
    call = model.call

    def drop(signature, inputs):
        answer = call(signature, inputs)
        return {name: values[answer["probabilities"][:, 1] > 0] for name, values in answer.items()}

    monkeypatch.setattr(model, "call", drop)

    async def scenario(desk):
        first = await desk.hold()
        others = await settle(desk, 3, *[desk.ask(image) for image in (RED, BLACK, RED)])
        model.gate.set()
        return [reds(await request) for request in (first, *others)]

    answers, _ = run(model, scenario)

    assert answers == [[], [1.0], [], [1.0]]


def test_its_end_waits_for_no_call(model):
    async def main():
        desk = Desk(model)
        first = await desk.hold()
        model.ended.clear()
        await desk.batcher.close()
        first.cancel()
        return model.ended.is_set()

    try:
        assert not asyncio.run(main())
    finally:
        model.gate.set()
