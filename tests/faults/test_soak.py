"""Row 38, in short: bridge and recorder keep neither descriptors nor memory from episode to episode. `make soak` is the long form."""

import time
from collections.abc import Callable

from benchmarks.soak_samples import Sample, Sampler, Series
from takeover.data.schema import EpisodeKind, Mode, Next
from tests.robot_bridge.station import Operator

from .rig import BUSY, Rig, rig

Bound = Callable[[float, float, str], None]
WARM_UP_EPISODES, EPISODES = 6, 12
EPISODE_STEPS = 6
GROWTH_MB = 20.0  # generous: allocators grow in steps, the long form judges slopes


def episodes(station: Rig, operator: Operator, wanted: int, sampler: Sampler) -> None:
    """Episode after episode, each ended by `Next` after some steps."""
    began = {state.episode_id for _, state in station.watch.states}
    deadline = time.monotonic() + 40.0
    seen: set[str] = set()
    while len(seen) < wanted:
        assert time.monotonic() < deadline, f"{len(seen)} episodes of {wanted}: {station.watch.state}"
        state = station.watch.state
        if state is not None and state.mode is Mode.HOLD and state.hold_reason in BUSY:
            station.ask_resume(operator)
        new = state is not None and state.mode is Mode.POLICY and state.episode_id not in seen | began
        if state is not None and new and state.episode_step >= EPISODE_STEPS and not operator.ask(Next(sender=operator.name)).error:
            seen.add(state.episode_id)
            sampler.take()
        time.sleep(0.02)


def growth(series: Series, split: int, what: Callable[[Sample], float]) -> float:
    """Least of the last samples less the most of the warm-up: what came to stay."""
    values = [what(one) for one in series.samples]
    return min(values[-4:]) - max(values[:split])


def test_row_38_nothing_kept_from_episode_to_episode(bound: Bound) -> None:
    with rig(cameras=True) as station:
        station.actor(lambda _: [0.1, 0.0, 0.0, 0.0])
        operator = station.operator()
        station.begin(operator, EpisodeKind.POLICY)
        sampler = Sampler(station.launcher.pids)
        episodes(station, operator, WARM_UP_EPISODES, sampler)
        split = len(sampler.series[0].samples)
        episodes(station, operator, EPISODES, sampler)
        station.end_block()
        watched = {series.name: series for series in sampler.series}
        assert set(watched) == {"bridge", "recorder"}
        assert len(sampler.series) == 2, "one of them was started again"
        for series in watched.values():
            bound(max(0.0, growth(series, split, lambda one: one.descriptors)), 0.0, "descriptors")
            bound(max(0.0, growth(series, split, lambda one: one.threads)), 0.0, "threads")
            bound(max(0.0, growth(series, split, lambda one: one.own_mb)), GROWTH_MB, "MB")
