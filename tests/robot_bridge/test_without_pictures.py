"""What is driven and what ends while cameras freeze or fail: the loop by hand, with cameras whose trouble the test makes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from takeover.data.schema import CameraSpec, Command, EpisodeEnd, HoldReason, Mode, PolicyImage, Source
from takeover.robot_bridge.control import CAMERA_GONE_S

from .by_hand import ByHand

FRONT, SIDE = "front", "side"


class Cameras:
    """Two of them: what is wrong with which."""

    def __init__(self) -> None:
        self.specs = [CameraSpec(name=name, width=16, height=8, rate_hz=20.0) for name in (FRONT, SIDE)]
        self.error = ""
        self.still: list[str] = []
        self.missing: list[str] = []

    def offer(self, *_: object) -> None:
        pass

    def ages_ms(self, now_ns: int) -> dict[str, float]:
        return {spec.name: -1.0 if spec.name in self.missing else 10.0 for spec in self.specs}

    def robot_reset(self, begun_ns: int, ended_ns: int) -> None:
        pass

    def frozen(self, now_ns: int) -> list[str]:
        return self.still

    def worst_age_ms(self) -> float:
        return 10.0

    def newest_policy_images(self) -> list[PolicyImage]:
        return []

    def policy_images_now(self) -> list[PolicyImage]:
        return []


class Filmed(ByHand):
    """The policy needs `FRONT`, people who drive see by both, unless they see the robot itself."""

    def __init__(self, folder: Path, *, line_of_sight: bool, **config: Any) -> None:
        super().__init__(folder, **config)
        self.pictures = Cameras()
        self.control.cameras = self.pictures  # type: ignore[assignment]
        self.control.spec = structs.replace(self.control.spec, policy_cameras=[FRONT])
        self.control.watched = [] if line_of_sight else [FRONT, SIDE]
        size = self.control.spec.action.size
        self.answers, self.action = [[0.0] * size], [0.0] * size

    @property
    def reason(self) -> HoldReason:
        return self.control.mode.reason

    @property
    def ends(self) -> list[str]:
        return [str(record.outcome) for record in self.records if isinstance(record, EpisodeEnd)]


@contextlib.contextmanager
def filmed(folder: Path, *, line_of_sight: bool, **config: Any) -> Iterator[Filmed]:
    made = Filmed(folder, line_of_sight=line_of_sight, **config)
    try:
        yield made
    finally:
        made.close()


def steps(hand: Filmed, seconds: float) -> int:
    return round(seconds / hand.control.period_s)


class ArmOnly(Filmed):
    """A person who drives the arm alone."""

    def command(self, **changes: Any) -> Command:
        return super().command(**({"authority": ["arm"]} | changes))


def test_in_a_partial_takeover_the_policy_drives_nothing_that_it_does_not_see(tmp_path: Path) -> None:
    with contextlib.closing(ArmOnly(tmp_path, line_of_sight=True, task="sort-two")) as hand:
        hand.answers = [[0.0] * 4 + [1.0]]
        hand.run()
        hand.tick()
        hand.deadman, hand.action = True, [0.3, 0.0, 0.0, 0.0, 0.0]
        hand.tick(6)
        assert (hand.mode, hand.steps[-1].source) == (Mode.TAKEOVER, [Source.HUMAN, Source.POLICY])
        hand.pictures.still = [SIDE]
        hand.tick(3)
        assert hand.steps[-1].source == [Source.HUMAN, Source.POLICY], "not a camera of the policy"
        hand.pictures.still = [FRONT]
        frozen_at = hand.control.seq
        hand.tick(4)
        assert hand.mode is Mode.TAKEOVER, "who drives sees the robot"
        blind = [step for step in hand.steps if step.seq > frozen_at]
        assert len(blind) >= 3
        for step in blind:
            assert (step.source, step.asked_action[4], step.policy_action) == ([Source.HUMAN, Source.NONE], 0.0, None)
        hand.deadman, hand.action = False, [0.0] * 5
        hand.tick(3)
        assert (hand.mode, hand.reason) == (Mode.HOLD, HoldReason.CAMERA_FROZEN)
        handed_back = [step for step in hand.steps if step.seq > blind[-1].seq + 1]
        assert handed_back
        assert not [step.seq for step in handed_back if Source.POLICY in step.source], "not even in the step that hands back"
        hand.deadman, hand.action = True, [0.3, 0.0, 0.0, 0.0, 0.0]
        hand.tick(2)
        assert (hand.mode, hand.control.last_source) == (Mode.TAKEOVER, (Source.HUMAN, Source.NONE))


def test_a_camera_that_is_silent_before_it_fails_ends_the_episode(tmp_path: Path) -> None:
    with filmed(tmp_path, line_of_sight=True) as hand:
        hand.run()
        hand.pictures.still = [FRONT]
        hand.tick(steps(hand, 2 * CAMERA_GONE_S))
        assert (hand.mode, hand.reason, hand.ends) == (Mode.HOLD, HoldReason.CAMERA_FROZEN, []), "frozen is not gone"
        hand.pictures.error = "unplugged"
        hand.tick(steps(hand, CAMERA_GONE_S) - 2)
        hand.pictures.error = ""
        hand.tick(2)
        hand.pictures.error = "unplugged"
        hand.tick(steps(hand, CAMERA_GONE_S) - 2)
        assert (hand.mode, hand.ends) == (Mode.HOLD, []), "back in time, then gone again"
        hand.tick(4)
        assert (hand.ends, hand.control.book.block) == (["aborted"], None)


def test_a_person_held_for_a_camera_that_the_policy_does_not_need_is_not_held_for_ever(tmp_path: Path) -> None:
    with filmed(tmp_path, line_of_sight=False) as hand:
        hand.run()
        hand.tick()
        hand.deadman, hand.action = True, [0.3, 0.0, 0.0, 0.0]
        hand.tick(3)
        assert hand.mode is Mode.TAKEOVER
        hand.pictures.missing = [SIDE]
        hand.tick()
        assert (hand.mode, hand.reason) == (Mode.HOLD, HoldReason.CAMERA_MISSING)
        hand.tick(steps(hand, CAMERA_GONE_S) - 2)
        assert hand.ends == []
        hand.tick(4)
        assert hand.ends == ["aborted"]


def test_time_gone_counts_within_one_hold(tmp_path: Path) -> None:
    with filmed(tmp_path, line_of_sight=True) as hand:
        hand.run()
        hand.pictures.error = "unplugged"
        hand.tick(steps(hand, CAMERA_GONE_S) - 2)
        hand.deadman, hand.action = True, [0.3, 0.0, 0.0, 0.0]
        hand.tick(3)
        assert hand.mode is Mode.TAKEOVER, "who sees the robot goes on"
        hand.deadman, hand.action = False, [0.0] * 4
        hand.tick(4)
        assert (hand.mode, hand.ends) == (Mode.HOLD, [])
        hand.tick(steps(hand, CAMERA_GONE_S))
        assert hand.ends == ["aborted"]
