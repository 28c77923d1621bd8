"""Decoding in separate processes: limits on time and memory, turns, and processes that die."""

import asyncio
import ctypes
import io
import itertools
import json
import math
import multiprocessing
import os
import pickle
import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.http.problems import Problem
from app.images import pool, sandbox
from app.images.files import ImageFile
from app.images.pool import Decoder, _Child, _Work
from lamanas_core import images
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import UInt8Array, load
from tests.app.playing import SPEC, png
from tests.waiting import PATIENCE_S, until_gone

MAX_PIXELS = 50_000_000
KEY = "a-key"


def slow_jpeg(scans: int = 3000) -> bytes:
    """A small progressive JPEG whose many scans repeat the same large image."""
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
def short_limit() -> Iterator[Decoder]:
    """A decoder whose time limit is too short for ``slow_jpeg``, but long enough for all other images."""
    decoder = Decoder(max_pixels=MAX_PIXELS, seconds=3)
    yield decoder
    decoder.close()


def decoded(decoder: Decoder, *files: bytes) -> np.ndarray:
    named = [ImageFile(data, f"images[{number}]") for number, data in enumerate(files)]
    return asyncio.run(decoder.arrays(KEY, named, SPEC))


def test_images_are_decoded_as_in_training(decoder: Decoder) -> None:
    files = [png(kind) for kind in range(4)]
    expected = np.stack([load(file, SPEC, max_pixels=MAX_PIXELS) for file in files])
    assert np.array_equal(decoded(decoder, *files), expected)


def test_each_file_is_decoded_once_for_several_networks(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    colour = ImageSpec(size=5, channels=3, normalise_polarity=False)
    named = [ImageFile(png(kind), f"images[{kind}]") for kind in range(4)]
    grey, photos = asyncio.run(decoder.arrays_for(KEY, named, [SPEC, colour]))
    for spec, arrays in ((SPEC, grey), (colour, photos)):
        assert np.array_equal(arrays, [load(bytes(file.data), spec, max_pixels=MAX_PIXELS) for file in named])
    order = json.loads(sandbox.order([len(png(0))], [SPEC, colour], seconds=10))
    sides: list[int] = []

    def decode(*_: object, side: int, **__: object) -> Image.Image:
        sides.append(side)
        return Image.new("L", (9, 9))

    monkeypatch.setattr(images, "decode", decode)
    sandbox._answer(ctypes.c_int(), order | {"specs": [vars(SPEC), vars(ImageSpec(size=300))]}, memoryview(png(0)), 1)
    assert sides == [600]


def test_decoding_that_takes_too_long_is_killed_and_names_the_image(short_limit: Decoder) -> None:
    decoded(short_limit, png(0))
    (before,) = children_of(short_limit)
    with pytest.raises(Problem, match=r"images\[0\]: decoding takes too long") as met:
        decoded(short_limit, slow_jpeg())
    assert (met.value.kind.name, met.value.more["image"]) == ("decoding-too-slow", "images[0]")
    until_gone([before])
    assert decoded(short_limit, png(0)).shape == (1, *SPEC.shape)
    assert children_of(short_limit) != [before]


def test_other_images_are_decoded_meanwhile(short_limit: Decoder) -> None:
    async def both() -> None:
        slow = asyncio.create_task(short_limit.arrays(KEY, [ImageFile(slow_jpeg(), "slow")], SPEC))
        await short_limit.arrays(KEY, [ImageFile(png(0), "quick")], SPEC)
        assert not slow.done()
        with pytest.raises(Problem, match="slow"):
            await slow

    asyncio.run(both())


def test_only_the_image_on_which_a_process_dies_is_refused(decoder: Decoder) -> None:
    decoded(decoder, png(0))
    (child,) = children_of(decoder)

    async def killed() -> None:
        os.kill(child, signal.SIGSTOP)
        task = asyncio.create_task(decoder.arrays(KEY, [ImageFile(png(0), "images[0]")], SPEC))
        while decoder._idle:  # noqa: ASYNC110  # there is no event to await
            await asyncio.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        await task

    with pytest.raises(Problem, match=r"images\[0\]: the image makes its decoder fail"):
        asyncio.run(killed())
    assert decoded(decoder, png(0)).shape == (1, *SPEC.shape)


def test_the_first_invalid_image_is_named_although_a_later_one_is_faster_to_refuse(decoder: Decoder) -> None:
    large = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500), np.uint8)).save(large, "PNG")
    damaged = large.getvalue()[:-200]  # takes a while to read before it is refused
    for _ in range(3):
        with pytest.raises(Problem, match=r"images\[1\]: ") as met:
            decoded(decoder, png(0), damaged, b"nothing", png(1))
        assert met.value.more["image"] == "images[1]"


def turns_noted(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that receives the first file of each turn that begins from now on."""
    noted: list[str] = []
    answer = decoder._answer

    def note(files: Sequence[ImageFile], work: _Work) -> list[UInt8Array] | tuple[int, str]:
        noted.append(files[0].where)
        return answer(files, work)

    monkeypatch.setattr(decoder, "_answer", note)
    return noted


async def until_noted(noted: list[str], number: int) -> None:
    while len(noted) < number:  # noqa: ASYNC110  # turns begin in threads, which report to nobody
        await asyncio.sleep(0)


def test_a_single_image_does_not_wait_for_large_uploads(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image is decoded after at most one turn of another key, of the many uploads of which two are decoded."""
    monkeypatch.setattr(pool, "TURN_BYTES", 1)
    noted = turns_noted(decoder, monkeypatch)
    many = [ImageFile(png(0), f"many[{number}]") for number in range(200)]

    async def together() -> None:
        uploads = [asyncio.create_task(decoder.arrays(KEY, many, SPEC)) for _ in range(8)]
        await until_noted(noted, 4)
        before = len(noted)
        await decoder.arrays("other", [ImageFile(png(1), "other")], SPEC)
        assert noted.index("other") <= before + 4
        assert not any(upload.done() for upload in uploads)
        assert [len(arrays) for arrays in await asyncio.gather(*uploads)] == [200] * 8

    asyncio.run(together())


def test_a_large_upload_uses_one_process_at_a_time(decoder: Decoder) -> None:
    asyncio.run(decoder.arrays(KEY, [ImageFile(png(0), "many")] * 1000, SPEC))
    assert len(children_of(decoder)) == 1


def test_a_turn_sends_as_many_files_as_fit_and_at_least_one(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    file = png(0)
    sizes: list[int] = []
    answer = decoder._answer

    def note(files: Sequence[ImageFile], work: _Work) -> list[UInt8Array] | tuple[int, str]:
        sizes.append(len(files))
        return answer(files, work)

    monkeypatch.setattr(decoder, "_answer", note)
    for limit, expected in ((3 * len(file), [3, 3, 1]), (3 * len(file) - 1, [2, 2, 2, 1]), (1, [1] * 7)):
        monkeypatch.setattr(pool, "TURN_BYTES", limit)
        sizes.clear()
        assert len(decoded(decoder, *[file] * 7)) == 7
        assert sizes == expected


def test_a_turn_ends_after_the_image_that_exceeds_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    order = json.loads(sandbox.order([len(png(0))] * 3, [SPEC], seconds=10))
    files = memoryview(png(0) * 3)
    at = ctypes.c_int()
    size = int(np.prod(SPEC.shape))
    whole = sandbox._answer(at, order, files, MAX_PIXELS)
    assert (len(whole), at.value) == (1 + 3 * size, 2)
    monkeypatch.setattr(sandbox, "TURN_SECONDS", 0.0)
    assert sandbox._answer(at, order, files, MAX_PIXELS) == whole[: 1 + size]
    assert [signal.getitimer(timer)[0] for timer in (signal.ITIMER_REAL, signal.ITIMER_PROF)] == [0, 0]


def test_the_time_limits_apply_to_all_turns_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "TURN_BYTES", 1)
    now = itertools.count(step=3)
    monkeypatch.setattr("app.images.pool.time.monotonic", lambda: float(next(now)))
    decoder = Decoder(max_pixels=MAX_PIXELS, seconds=10)
    left: list[float] = []

    def answer(files: Sequence[ImageFile], work: _Work) -> list[UInt8Array]:
        left.append(work.decoding_left)
        work.turn_seconds = 3.0
        return [np.zeros((1, *SPEC.shape), np.uint8)]

    monkeypatch.setattr(decoder, "_answer", answer)
    # Each turn waits for 3 s of this clock and takes 3 s of a processor: the fourth turn exceeds the limit.
    with pytest.raises(Problem) as met:
        decoded(decoder, *[png(0)] * 5)
    assert (met.value.kind.name, left) == ("busy", [10, 7, 4])
    decoder.close()


def test_uploads_of_slow_images_leave_a_process_to_other_keys(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TURN_BYTES", 1)
    noted: list[str] = []
    go_on = threading.Event()

    def answer(files: Sequence[ImageFile], work: _Work) -> list[UInt8Array]:
        where = files[0].where
        noted.append(where)
        if where == "slow 1":  # the second image of an upload whose first one was slow
            assert go_on.wait(PATIENCE_S)
        work.turn_seconds = 1.0 if where.startswith("slow") else 0.01
        return [np.zeros((1, *SPEC.shape), np.uint8)]

    monkeypatch.setattr(decoder, "_answer", answer)
    slow = [ImageFile(b"", f"slow {number}") for number in range(3)]

    async def together() -> None:
        uploads = [asyncio.create_task(decoder.arrays(KEY, slow, SPEC))]
        await until_noted(noted, 2)
        uploads.append(asyncio.create_task(decoder.arrays(KEY, slow, SPEC)))
        await asyncio.sleep(0)  # it asks for its turn
        try:
            await asyncio.wait_for(decoder.arrays("other", [ImageFile(b"", "quick")], SPEC), PATIENCE_S)
            assert noted == ["slow 0", "slow 1", "quick"]
        finally:
            go_on.set()
        await asyncio.gather(*uploads)

    asyncio.run(together())


def ended_with(monkeypatch: pytest.MonkeyPatch, load: Callable[..., object], seconds: float) -> int | None:
    """The exit code of a process that decodes an image by ``load``, with a limit of this many seconds."""
    monkeypatch.setattr(sandbox, "load_for", load)
    order = json.loads(sandbox.order([1], [SPEC], seconds=seconds))
    arguments = (ctypes.c_int(), order, memoryview(b"x"), MAX_PIXELS)
    process = multiprocessing.get_context("fork").Process(target=sandbox._answer, args=arguments)
    process.start()
    process.join(PATIENCE_S)
    return process.exitcode


def test_the_limit_of_an_image_counts_the_time_that_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes a process wait; here, it waits by itself."""

    def waits(*_: object, **__: object) -> list[UInt8Array]:
        select.select([], [], [], 0.3)
        return []

    def computes(*_: object, **__: object) -> None:
        while True:
            pass

    assert ended_with(monkeypatch, waits, seconds=0.1) == 0
    assert ended_with(monkeypatch, computes, seconds=0.1) == -signal.SIGPROF
    assert ended_with(monkeypatch, lambda *_, **__: signal.pause(), seconds=0.01) == -signal.SIGALRM


def test_a_turn_counts_the_processor_time_of_its_process(decoder: Decoder) -> None:
    decoded(decoder, png(0))  # what the process took before does not count
    work = _Work([ImageFile(png(0), "images[0]")], [SPEC], decoding_left=10, waiting_left=math.inf)
    decoder._turn(work)
    (child,) = decoder._idle
    assert 0 < work.turn_seconds < child.processor_seconds()
    assert work.decoding_left == 10 - work.turn_seconds


GOOD = sandbox.ARRAY + bytes(2 * int(np.prod(SPEC.shape)))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        sandbox.ARRAY,
        GOOD + b"\0",
        GOOD[:-1],
        GOOD + GOOD[1:],
        b"?" + GOOD[1:],
        sandbox.REFUSAL,
        sandbox.REFUSAL + b"3 words",
        sandbox.REFUSAL + b"-1 words",
        sandbox.REFUSAL + b"0 \xff",
        pickle.dumps(GOOD),
    ],
)
def test_a_process_with_an_invalid_answer_is_killed(
    answer: bytes, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded(decoder, png(0))
    (before,) = children_of(decoder)
    monkeypatch.setattr(sandbox, "read_answer", lambda _, files, specs: READ(answer, files, specs))
    with pytest.raises(Problem, match="the image makes its decoder fail"):
        decoded(decoder, png(0), png(1), png(2))
    until_gone([before])
    assert children_of(decoder) == []


READ = sandbox.read_answer


def test_valid_answers_are_read() -> None:
    arrays = sandbox.read_answer(GOOD, 2, [SPEC])
    assert isinstance(arrays, list)
    assert [array.shape for array in arrays] == [(2, *SPEC.shape)]
    assert sandbox.read_answer(sandbox.REFUSAL + b"2 too large", 3, [SPEC]) == (2, "too large")


def test_images_are_returned_in_the_order_sent(decoder: Decoder) -> None:
    files = [png(kind % 4) for kind in range(40)]
    expected = np.stack([load(file, SPEC, max_pixels=MAX_PIXELS) for file in files])
    assert np.array_equal(decoded(decoder, *files), expected)


def test_a_refusal_names_its_image_although_the_process_is_reused(decoder: Decoder) -> None:
    class Taken(deque[_Child]):
        def append(self, child: _Child) -> None:
            child.at.value = 7  # another request uses the process at once
            super().append(child)

    decoder._idle = Taken()
    with pytest.raises(Problem, match=r"images\[1\]: not a PNG"):
        decoded(decoder, png(0), b"nothing", png(1))


def test_a_process_that_died_idle_is_replaced(decoder: Decoder) -> None:
    for _ in range(30):  # the fork server may not have noticed the exit yet
        assert decoded(decoder, png(0)).shape == (1, *SPEC.shape)
        pids = children_of(decoder)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until_gone(pids)
    assert decoded(decoder, png(0)).shape == (1, *SPEC.shape)


def test_a_request_that_waited_too_long_for_a_process_gets_retry_after() -> None:
    decoder = Decoder(max_pixels=MAX_PIXELS, seconds=0)
    with pytest.raises(Problem) as met:
        decoded(decoder, png(0))
    assert (met.value.kind.name, met.value.headers) == ("busy", {"Retry-After": "5"})
    decoder.close()


def test_closing_kills_running_processes() -> None:
    decoder = Decoder(max_pixels=MAX_PIXELS)

    async def closed() -> list[int]:
        task = asyncio.create_task(decoder.arrays(KEY, [ImageFile(slow_jpeg(), "images[0]")], SPEC))
        while not children_of(decoder):  # noqa: ASYNC110  # nor when it has started
            await asyncio.sleep(0.01)
        pids = children_of(decoder)
        await asyncio.to_thread(decoder.close)
        with pytest.raises(Problem):
            await task
        return pids

    until_gone(asyncio.run(closed()))


def test_the_memory_of_a_process_is_limited(decoder: Decoder) -> None:
    decoded(decoder, png(0))
    (child,) = children_of(decoder)
    limits = (Path("/proc") / str(child) / "limits").read_text()
    address_space = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(address_space.split()[3]) < 4 << 30


def test_a_decoding_process_exits_when_the_app_has_ended() -> None:
    child = _Child.start(MAX_PIXELS)
    child.connection.close()
    child.process.join(60)
    assert child.process.exitcode == 0
