"""The judges of `benchmarks.torture` and `benchmarks.soak` find what they are there to find."""

import itertools
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from benchmarks.soak import judge, report
from benchmarks.soak_samples import Sample, Sampler, Series
from benchmarks.torture import Ledger
from benchmarks.torture_events import LIMITS, PROCESSES, ROBOT, THREADS, Strike, motion, moved_while_held, strike
from benchmarks.trend import trend
from takeover.data.schema import Mode, Source, State, Step

MS = 1_000_000


def step(t_ms: float, who: Source = Source.POLICY, action: float = 0.3, mode: Mode = Mode.POLICY) -> Step:
    """Only what a judge looks at."""
    return cast(Step, SimpleNamespace(t_applied_ns=int(t_ms * MS), source=[int(who)], action=[action, 0.0], mode=mode))


def halted(t_ms: float) -> State:
    return cast(State, SimpleNamespace(t_ns=int(t_ms * MS), mode=Mode.HOLD))


def test_events_follow_from_the_seed_and_reach_everything() -> None:
    assert [strike(3, i) for i in range(50)] == [strike(3, i) for i in range(50)]
    assert [strike(3, i) for i in range(50)] != [strike(4, i) for i in range(50)]
    targets = {strike(0, i).target for i in range(400)}
    threads = {f"{process}/{name}" for process, names in THREADS.items() for name in names}
    assert targets == {*PROCESSES, ROBOT, *threads}


def test_policy_that_goes_on_without_its_actor_is_found() -> None:
    stop = Strike(0, "stop", "actor", "", 1.0, 0.0)
    going_on = [step(t) for t in range(50, 1000, 50)]
    assert motion(stop, 0, 1000 * MS, going_on, []).last_ms == 950
    by_hand = [step(t, Source.HUMAN, mode=Mode.TAKEOVER) for t in range(50, 1000, 50)]
    fine = motion(stop, 0, 1000 * MS, by_hand, [])
    assert fine.judged
    assert fine.last_ms == 0, "a person may drive without an actor"
    assert motion(stop, 0, 1000 * MS, [step(t, action=0.0) for t in range(50, 1000, 50)], []).last_ms == 0


def test_hold_before_the_launcher_says_that_it_is_back_ends_the_outage_of_a_kill() -> None:
    kill = Strike(0, "kill", "recorder", "", 1.0, 0.0)
    steps = [step(t) for t in (50, 600, 1400)]
    assert motion(kill, 0, 1500 * MS, steps, [halted(650)]).last_ms == 600
    assert motion(kill, 0, 1500 * MS, steps, []).last_ms == 1400
    assert not motion(kill, 0, 300 * MS, steps, []).judged, "over before the limit"
    assert not motion(kill, 1600 * MS, 9000 * MS, steps, []).judged, "nothing was recorded"


@pytest.mark.parametrize("target", ["learner", "evaluator", "console", "bridge/camera"])
def test_what_does_not_move_the_robot_is_not_judged(target: str) -> None:
    process, _, thread = target.partition("/")
    assert Strike(0, "stick" if thread else "kill", process, thread, 1.0, 0.0).limits is None
    assert target not in LIMITS


def test_robot_that_hangs_is_judged_by_what_the_bridge_says() -> None:
    stop = Strike(0, "stop", ROBOT, "", 2.0, 0.0)
    assert motion(stop, 0, 2000 * MS, [], [halted(180)]).last_ms == 180
    assert motion(stop, 0, 2000 * MS, [], []).last_ms == 2000


def test_held_step_that_moves_is_counted() -> None:
    assert moved_while_held([step(1), step(2, Source.NONE, 0.0, Mode.HOLD), step(3, Source.NONE, 0.1, Mode.HOLD)]) == 1


def test_ledger_goes_on_and_refuses_another_seed(tmp_path) -> None:
    ledger = Ledger(tmp_path / "state.json", 5)
    ledger.acknowledged({"a": {1, 2}, "": {7}})
    ledger.acknowledged({"a": {2, 3}})
    ledger.content["events"].append({})
    ledger.save()
    again = Ledger(tmp_path / "state.json", 5)
    assert again.done == 1
    assert again.content["committed"] == {"a": [1, 2, 3]}
    with pytest.raises(SystemExit, match="seed 5"):
        Ledger(tmp_path / "state.json", 6)


def test_a_run_of_another_commit_is_not_gone_on_with(tmp_path) -> None:
    ledger = Ledger(tmp_path / "state.json", 5)
    ledger.content["commit"] = "0123abc"
    ledger.save()
    with pytest.raises(SystemExit, match="begun at commit 0123abc"):
        Ledger(tmp_path / "state.json", 5)


def test_trend_of_a_leak_and_of_noise() -> None:
    t = np.arange(0, 3600, 5.0)
    noise = np.random.default_rng(0).normal(0, 0.5, len(t))
    smooth = np.convolve(noise, np.ones(10) / 3.16, "same")  # neighbours resemble each other
    flat, leak = trend(t, 100 + smooth), trend(t, 100 + 5 * t / 3600 + smooth)
    assert flat.low < 0 < flat.high
    assert flat.below(1.0)
    assert leak.low < 5 < leak.high
    assert not leak.below(1.0)
    loose = trend(t, 100 + 5 * t / 3600 + 10 * np.cos(t / 60))
    assert loose.low < 1.0 < loose.slope
    assert not loose.below(1.0), "a wide interval excuses nothing"
    independent = trend(t, 100 + noise, lag_s=1.0)
    assert flat.high - flat.low > 1.5 * (independent.high - independent.low)
    with pytest.raises(ValueError, match="8 samples"):
        trend(t[:5], t[:5])


def series(name: str, mb_per_h: float, descriptors: int = 0) -> Series:
    """An hour; ``descriptors`` leaked in it."""
    times = [5.0 * i for i in range(720)]
    ripple = itertools.cycle((0.0, 0.1, 0.05))
    return Series(name, 1, [Sample(t, 200.0, 100 + mb_per_h * t / 3600 + next(ripple), 20 + int(descriptors * t / 3600), 9) for t in times])


def test_judge_of_a_process() -> None:
    assert judge(series("bridge", 0.3), 720.0, 3600.0)["problems"] == []
    assert "grows by 4.0 MB/h" in judge(series("bridge", 4.0), 720.0, 3600.0)["problems"][0]
    assert "learner grows by 4.0 MB/h" in judge(series("learner", 4.0), 720.0, 3600.0)["problems"][0], "its replay buffer is full by then"
    assert "descriptors at the end" in judge(series("learner", 0.0, 12), 720.0, 3600.0)["problems"][0]


def test_process_that_was_started_again_late_is_told_and_the_others_are_judged() -> None:
    late = Series("evaluator", 2, series("evaluator", 0.0).samples[500:])
    sampler = cast(Sampler, SimpleNamespace(series=[series("bridge", 4.0), late]))
    told = {"commit": "c", "seconds": 3600.0, "steps": 1, "episodes": 1, "restarts": {"evaluator": 1}, "error": ""}
    text, content = report(sampler, told, 60.0, "")
    assert content["problems"][0] == "evaluator was started again 1 times"
    assert "bridge grows by 4.0 MB/h" in content["problems"][1]
    assert "failures  2" in text
