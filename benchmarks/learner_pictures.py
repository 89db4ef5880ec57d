"""What a batch of pictures costs: 256 transitions, two cameras of 128x128, before and after the step, each shifted on its own."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image

from benchmarks.learner_steps import STEPS, steps_of
from takeover.data.schema import EpisodeKind, PolicyImage
from takeover.policies.picture_replay import PictureReplay
from takeover.policies.picture_shift import Pixels
from takeover.policies.pictures import JpegFrames, RawFrames
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import CAMERAS, SimCameras

BATCH, SIZE = 256, 128
TRANSITIONS = 100_000
NOISE = 2.0  # standard deviation of a camera's noise, of 255: without it rendered pictures would compress too well
_POSES = 24


def rendered() -> Pixels:
    """(24, cameras, 128, 128, 3): what the simulated robot's cameras see in different poses, cut square and made small."""
    robot = SimRobot("pick-lift")
    robot.connect()
    cameras, random = SimCameras(robot), np.random.default_rng(0)
    found = np.empty((_POSES, len(CAMERAS), SIZE, SIZE, 3), np.uint8)
    for i in range(_POSES):
        robot.reset(i)
        for _ in range(10):
            robot.apply(random.uniform(-1.0, 1.0, robot.spec.action.size))
            robot.advance()
        for j, picture in enumerate(cameras.pictures(cameras.capture())):
            height, width, _ = picture.rgb.shape
            box = ((width - height) // 2, 0, (width + height) // 2, height)
            found[i, j] = np.asarray(Image.fromarray(picture.rgb).resize((SIZE, SIZE), Image.Resampling.BOX, box))
    cameras.close()
    robot.close()
    return found


def filled(pictures: Pixels, episodes: int, compressed: bool) -> PictureReplay:
    """A replay of made-up steps, a tenth of them demonstrations, each with noisy pictures of its own."""
    spec, random = SimRobot("pick-lift").spec, np.random.default_rng(1)
    replay = PictureReplay(spec, CAMERAS, height=SIZE, width=SIZE, compressed=compressed)
    noise = random.normal(0.0, NOISE, (8, *pictures.shape[1:])).astype(np.float32)

    def images() -> Iterator[PolicyImage]:
        frame = pictures[random.integers(_POSES)] + np.roll(noise[random.integers(8)], int(random.integers(SIZE)), axis=1)
        for camera, picture in zip(CAMERAS, np.clip(frame, 0, 255).astype(np.uint8), strict=True):
            yield PolicyImage(camera=camera, height=SIZE, width=SIZE, data=picture.tobytes())

    for number in range(episodes):
        kind = EpisodeKind.DEMONSTRATION if number % 10 == 0 else EpisodeKind.POLICY
        start, steps, end = steps_of(spec, kind, number, random)
        replay.begin_episode(start)
        for i, step in enumerate(steps):
            after = list(images()) if i == STEPS - 1 else []
            replay.add(msgspec.structs.replace(step, images=list(images()), next_images=after))
        replay.end_episode(end)
    return replay


def picture_figures(rounds: int, episodes: int) -> dict[str, Any]:
    """Uncompressed, of a replay of ``episodes``, and compressed, of a quarter of them."""
    pictures = rendered()
    return {"raw": raw_figures(pictures, rounds, episodes), "jpeg": jpeg_figures(pictures, max(3, rounds // 4), max(1, episodes // 4))}


def raw_figures(pictures: Pixels, rounds: int, episodes: int) -> dict[str, Any]:
    """CPU time of a batch, and of copying its frames with no shift at all, in turns."""
    replay, generator = filled(pictures, episodes, compressed=False), torch.Generator().manual_seed(0)
    assert isinstance(replay.frames, RawFrames)
    out, sample, gather = np.empty((2 * BATCH, *replay.frames.shape), np.uint8), [], []
    still = np.zeros((2 * BATCH, 2), np.int64)
    for _ in range(rounds + 3):
        started = time.thread_time()
        replay.sample_pictures(BATCH, generator)
        sample.append(time.thread_time() - started)
        numbers = torch.randint(episodes * STEPS, (2 * BATCH,), generator=generator).numpy()
        started = time.thread_time()
        replay.frames.copy(numbers, still, out)
        gather.append(time.thread_time() - started)
    return {
        "batch": BATCH,
        "sample_ms": _median_ms(sample[3:]),
        "gather_alone_ms": _median_ms(gather[3:]),
        **_memory(replay, episodes * STEPS),
    }


def jpeg_figures(pictures: Pixels, rounds: int, episodes: int) -> dict[str, Any]:
    """CPU time of decoding a batch, and how long the learner waits for one that it left three times the (wall) time that decoding takes."""
    replay, generator = filled(pictures, episodes, compressed=True), torch.Generator().manual_seed(0)
    assert isinstance(replay.frames, JpegFrames)
    out, decode, wall, waits = np.empty((BATCH, *replay.frames.shape), np.uint8), [], [], []
    for _ in range(rounds):
        numbers = torch.randint(episodes * STEPS, (BATCH,), generator=generator).numpy()
        started, begun = time.thread_time(), time.perf_counter()
        replay.frames.copy(numbers, np.zeros((BATCH, 2), np.int64), out)
        decode.append(2.0 * (time.thread_time() - started))  # a batch has twice as many
        wall.append(2.0 * (time.perf_counter() - begun))
    busy = 3.0 * float(np.median(wall))
    replay.sample_pictures(BATCH, generator)
    for _ in range(rounds):
        time.sleep(busy)
        started = time.perf_counter()
        replay.sample_pictures(BATCH, generator)
        waits.append(time.perf_counter() - started)
    replay.close()
    return {
        "batch": BATCH,
        "decode_ms": _median_ms(decode),
        "wait_ms": _median_ms(waits),
        "while_the_learner_is_busy_for_ms": round(busy * 1e3, 1),
        **_memory(replay, episodes * STEPS),
    }


def _memory(replay: PictureReplay, transitions: int) -> dict[str, float]:
    """Numbers are stored twice for what a person drove (both buffers); the pictures are not."""
    rows = 4 * replay.columns.width * (replay.online.size + replay.demonstrations.size)
    per_transition = (replay.frames.used_bytes + rows) / transitions
    return {"bytes_per_transition": round(per_transition), f"gb_per_{TRANSITIONS}": round(per_transition * TRANSITIONS / 1e9, 2)}


def _median_ms(seconds: list[float]) -> float:
    return round(float(np.median(seconds)) * 1e3, 3)
