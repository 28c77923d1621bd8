"""Decoding beside the app: in limited time and memory, and whatever becomes of the process that does it."""

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.http.problems import Problem
from app.images.files import ImageFile
from app.images.pool import PROCESSES, Decoder
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load
from tests.app.playing import SPEC, png
from tests.waiting import until_gone

MAX_PIXELS = 16_000_000


def slow_jpeg(scans: int = 3000) -> bytes:
    """A small progressive file that draws the same large image again and again."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 200).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * scans + data[-2:]


def children_of(decoder: Decoder) -> list[int]:
    return [child.process.pid for child in decoder._children if child.process.pid is not None]


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(max_pixels=MAX_PIXELS)
    yield decoder
    decoder.close()


@pytest.fixture
def impatient() -> Iterator[Decoder]:
    """Of seconds far fewer than ``slow_jpeg`` takes, and enough for all others on a busy machine."""
    decoder = Decoder(max_pixels=MAX_PIXELS, seconds=3)
    yield decoder
    decoder.close()


def decoded(decoder: Decoder, *files: bytes) -> np.ndarray:
    named = [ImageFile(data, f"images[{number}]") for number, data in enumerate(files)]
    return asyncio.run(decoder.arrays(named, SPEC))


def test_it_gives_what_training_reads(decoder: Decoder) -> None:
    files = [png(kind) for kind in range(4)]
    expected = np.stack([load(file, SPEC, max_pixels=MAX_PIXELS) for file in files])
    assert np.array_equal(decoded(decoder, *files), expected)


def test_a_decode_that_takes_too_long_is_killed_and_named(impatient: Decoder) -> None:
    decoded(impatient, png(0))
    (before,) = children_of(impatient)
    with pytest.raises(Problem, match=r"images\[0\]: decoding takes too long") as met:
        decoded(impatient, slow_jpeg())
    assert (met.value.kind.name, met.value.more["image"]) == ("decoding-too-slow", "images[0]")
    until_gone([before])
    assert decoded(impatient, png(0)).shape == (1, *SPEC.shape)
    assert children_of(impatient) != [before]


def test_the_others_are_decoded_meanwhile(impatient: Decoder) -> None:
    async def both() -> None:
        slow = asyncio.create_task(impatient.arrays([ImageFile(slow_jpeg(), "slow")], SPEC))
        await impatient.arrays([ImageFile(png(0), "quick")], SPEC)
        assert not slow.done()
        with pytest.raises(Problem, match="slow"):
            await slow

    asyncio.run(both())


def test_a_decoder_that_dies_on_an_image_refuses_it_alone(decoder: Decoder) -> None:
    decoded(decoder, png(0))
    (child,) = children_of(decoder)

    async def killed() -> None:
        os.kill(child, signal.SIGSTOP)
        task = asyncio.create_task(decoder.arrays([ImageFile(png(0), "images[0]")], SPEC))
        while decoder._idle:  # noqa: ASYNC110  # it tells nobody when it takes the work
            await asyncio.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        await task

    with pytest.raises(Problem, match=r"images\[0\]: the image makes its decoder fail"):
        asyncio.run(killed())
    assert decoded(decoder, png(0)).shape == (1, *SPEC.shape)


def test_the_first_refused_image_is_named_although_a_later_one_is_refused_sooner(decoder: Decoder) -> None:
    large = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500), np.uint8)).save(large, "PNG")
    damaged = large.getvalue()[:-200]  # read for a while before it is refused
    for _ in range(3):
        with pytest.raises(Problem, match=r"images\[1\]: ") as met:
            decoded(decoder, png(0), damaged, b"nothing", png(1))
        assert met.value.more["image"] == "images[1]"


def test_a_request_of_many_images_lets_one_of_another_request_pass(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many images of the first wait, the other's is next when one of those that are being decoded is ready."""
    started: list[str] = []
    decode = decoder._decoded

    def noted(file: ImageFile, spec: ImageSpec, deadline: float) -> UInt8Array:
        started.append(file.where)
        return decode(file, spec, deadline)

    monkeypatch.setattr(decoder, "_decoded", noted)
    many = [ImageFile(png(0), f"many[{number}]") for number in range(200)]

    async def both() -> None:
        upload = asyncio.create_task(decoder.arrays(many, SPEC))
        while not started:  # noqa: ASYNC110  # it tells nobody when it takes the first
            await asyncio.sleep(0)
        before = len(started)
        await decoder.then([ImageFile(png(1), "other")], SPEC, lambda images: images)
        assert started.index("other") <= before + 2 * PROCESSES
        assert not upload.done()
        assert len(await upload) == len(many)

    asyncio.run(both())


def test_images_of_a_request_come_back_in_the_order_sent(decoder: Decoder) -> None:
    files = [png(kind % 4) for kind in range(40)]
    expected = np.stack([load(file, SPEC, max_pixels=MAX_PIXELS) for file in files])
    assert np.array_equal(decoded(decoder, *files), expected)


def test_a_decoder_that_died_idle_costs_nobody_anything(decoder: Decoder) -> None:
    for _ in range(30):  # who forked it may not have noticed yet
        assert decoded(decoder, png(0)).shape == (1, *SPEC.shape)
        pids = children_of(decoder)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until_gone(pids)
    assert decoded(decoder, png(0)).shape == (1, *SPEC.shape)


def test_who_waited_too_long_for_a_decoder_is_asked_to_come_back() -> None:
    decoder = Decoder(max_pixels=MAX_PIXELS, seconds=0)
    with pytest.raises(Problem) as met:
        decoded(decoder, png(0))
    assert (met.value.kind.name, met.value.headers) == ("busy", {"Retry-After": "5"})
    decoder.close()


def test_closing_stops_what_runs() -> None:
    decoder = Decoder(max_pixels=MAX_PIXELS)

    async def closed() -> list[int]:
        task = asyncio.create_task(decoder.arrays([ImageFile(slow_jpeg(), "images[0]")], SPEC))
        while not children_of(decoder):  # noqa: ASYNC110  # nor when it has started
            await asyncio.sleep(0.01)
        pids = children_of(decoder)
        await asyncio.to_thread(decoder.close)
        with pytest.raises(Problem):
            await task
        return pids

    until_gone(asyncio.run(closed()))


def test_memory_of_a_decoder_is_limited(decoder: Decoder) -> None:
    decoded(decoder, png(0))
    (child,) = children_of(decoder)
    limits = (Path("/proc") / str(child) / "limits").read_text()
    address_space = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(address_space.split()[3]) < 4 << 30
