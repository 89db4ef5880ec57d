"""Closed episodes with real pictures in a workspace, to be exported."""

import msgspec
import numpy as np
import pytest

from takeover.data.catalog import Catalog
from takeover.data.entry import entry_of
from takeover.data.episode_file import write_episode
from takeover.data.episode_schema import gather
from takeover.data.exchange.pictures import encode_jpeg
from takeover.data.schema import CameraFrame, EpisodeKind, Outcome, PolicyImage, Step


def smooth(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that compresses as a camera's does: a gradient that moves."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(3 * x + 4 * index) % 192, (4 * y + index) % 192, (x + y) % 192], axis=-1).astype(np.uint8)


def with_pictures(records: list) -> list:
    """Real JPEGs instead of random bytes."""
    return [
        msgspec.structs.replace(record, jpeg=encode_jpeg(smooth(record.counter))) if isinstance(record, CameraFrame) else record
        for record in records
    ]


def with_policy_pictures(records: list, size: int = 16) -> list:
    """Small pictures for the policy in every step, and after the last one of a run."""
    steps = [record for record in records if isinstance(record, Step)]
    last = {}
    for step in steps:
        last[step.run_id] = step.seq

    def picture(seed: int) -> PolicyImage:
        data = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8).tobytes()
        return PolicyImage(camera="wrist", height=size, width=size, data=data)

    def changed(record):
        if not isinstance(record, Step):
            return record
        after = [picture(record.seq + 1)] if last[record.run_id] == record.seq else []
        return msgspec.structs.replace(record, images=[picture(record.seq)], next_images=after)

    return [changed(record) for record in records]


def enter(workspace, catalog, records: list):
    """Close one episode and enter it; returns its row."""
    episode = gather(records)
    path, sha256, size = write_episode(workspace, episode)
    entry = entry_of(episode, path.relative_to(workspace.path).as_posix(), sha256, size)
    catalog.add_episode(entry.session, entry.episode, entry.segments)
    return catalog.episode(episode.episode_id)


@pytest.fixture
def catalog(workspace):
    with Catalog.open(workspace) as opened:
        yield opened


@pytest.fixture
def recorded(workspace, catalog, stream):
    """Five episodes: demonstration, success with two holds, failure, autonomous success, a discarded demonstration."""
    made = [
        stream.episode(kind=EpisodeKind.DEMONSTRATION, takeovers=((0, 20),), steps=20, frames=True),
        stream.episode(holds=(12, 25), frames=True),
        stream.episode(outcome=Outcome.FAILURE, steps=30, frames=True),
        stream.episode(takeovers=(), steps=20, frames=True),
        stream.episode(kind=EpisodeKind.DEMONSTRATION, takeovers=((0, 20),), steps=20, discarded=True, frames=True),
    ]
    return [enter(workspace, catalog, with_policy_pictures(with_pictures(records))) for records in made]
