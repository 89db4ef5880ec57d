"""A correction does not begin while pictures are old, nor by a press made then."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from peer import SPEC, make_state

from takeover.app.console.controller import Controller
from takeover.app.console.devices import Devices
from takeover.app.inputs.keyboard import Keyboard
from takeover.data.schema import CameraFrame, Mode, RunConfig
from takeover.robot_bridge.protocol import ClockOffset

SECOND = 1_000_000_000


def test_a_press_without_pictures_does_not_begin_when_they_are_back() -> None:
    keyboard = Keyboard()
    devices = Devices(keyboard, None)
    devices.may_start = False
    keyboard.press("space")
    assert not devices.poll().deadman
    devices.may_start = True
    kept = devices.poll()
    assert (kept.deadman, kept.neutral) == (False, False)
    keyboard.release("space")
    assert devices.poll().neutral
    keyboard.press("space")
    assert devices.poll().deadman
    devices.may_start = True  # it is while somebody drives, however old the pictures are
    assert devices.poll().deadman


class Seen:
    """Devices without pictures, and what the station says."""

    def __init__(self) -> None:
        self.keyboard = Keyboard()
        self.devices = Devices(self.keyboard, None)
        self.devices.may_start = False
        self.devices.seen = lambda: (self.mode, time.monotonic_ns() + self.later_ns)
        self.mode: Mode | None = None
        self.later_ns = 0

    def polled(self, mode: Mode | None, polls: int = 5) -> tuple[str, ...]:
        """The presses of some polls in ``mode``."""
        self.mode = mode
        readings = [self.devices.poll() for _ in range(polls)]
        assert not any(reading.deadman for reading in readings)
        return tuple(press for reading in readings for press in reading.presses)


@pytest.fixture
def seen() -> Seen:
    return Seen()


def test_a_press_without_pictures_holds_a_policy_that_drives_once(seen: Seen) -> None:
    assert seen.polled(Mode.POLICY) == (), "nobody presses"
    for mode in (None, *Mode):
        if mode is not Mode.POLICY:
            seen.keyboard.press("space")
            assert seen.polled(mode) == (), "nothing moves by itself"
            seen.keyboard.release("space")
            seen.polled(mode)
    for _ in range(2):
        seen.keyboard.press("space")
        assert seen.polled(Mode.POLICY) == ("hold",)
        seen.keyboard.release("space")
        assert seen.polled(Mode.POLICY) == ()


@pytest.mark.parametrize("before", [None, Mode.READY, Mode.RESETTING, Mode.HOLD, Mode.TAKEOVER])
def test_a_press_that_is_still_down_holds_a_policy_that_begins_to_drive(seen: Seen, before: Mode | None) -> None:
    seen.keyboard.press("space")
    assert seen.polled(before) == ()
    seen.devices.may_start = True  # the pictures are back: this press stays one in vain
    assert seen.polled(Mode.POLICY) == ("hold",)


def test_who_resumes_under_a_key_that_is_still_down_is_not_held_again(seen: Seen) -> None:
    seen.keyboard.press("space")
    assert seen.polled(Mode.POLICY) == ("hold",)
    assert seen.polled(Mode.HOLD) == ()
    seen.later_ns = 10 * SECOND
    assert seen.polled(Mode.POLICY) == (), "the key may be stuck"
    assert seen.polled(Mode.RESETTING) == seen.polled(Mode.POLICY) == (), "in the next episode neither"
    seen.keyboard.release("space")
    seen.polled(Mode.POLICY)
    seen.keyboard.press("space")
    seen.later_ns = 0
    assert seen.polled(Mode.POLICY) == ("hold",)


def test_a_hold_that_did_not_come_about_is_asked_for_again(seen: Seen) -> None:
    seen.keyboard.press("space")
    assert seen.polled(Mode.POLICY) == ("hold",)
    assert seen.polled(Mode.RESETTING) == (), "the episode ended before it arrived"
    assert seen.polled(Mode.POLICY) == ("hold",)
    seen.later_ns = SECOND * 3 // 10
    assert seen.polled(Mode.POLICY) == (), "it may still be on its way"
    seen.later_ns = SECOND * 7 // 10
    assert seen.polled(Mode.POLICY, 1) == ("hold",), "it was lost"
    seen.later_ns = -SECOND
    assert seen.polled(Mode.POLICY) == (), "nothing was heard since"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Controller]:
    """A console that was greeted by a bridge, without its threads."""
    made = Controller(RunConfig(session_id="test", workspace=str(tmp_path), sockets=str(tmp_path / "s")))
    made.client.spec = SPEC
    yield made
    made.keyboard.close()


def arrive(desk: Controller, camera: str, taken_ns: int) -> None:
    frame = CameraFrame(session="session-1", rec_seq=-1, camera=camera, counter=1, t_source_ns=taken_ns, width=1, height=1, jpeg=b"")
    desk.client._on_frame(frame)


def test_a_picture_is_at_least_as_old_as_it_has_been_here(desk: Controller) -> None:
    now = time.monotonic_ns()
    arrive(desk, "front", now + 3600 * SECOND)  # by a clock that has jumped
    assert 0.0 <= desk.picture_ages(time.monotonic_ns())["front"] < 5000.0
    assert 9000.0 < desk.picture_ages(now + 10 * SECOND)["front"] < 15_000.0
    desk.client._clock = ClockOffset()
    desk.client._clock.heard(now, now + 3600 * SECOND, now)
    assert 9000.0 < desk.picture_ages(now + 10 * SECOND)["front"] < 15_000.0, "and by one that is known"
    arrive(desk, "wrist", now + 3590 * SECOND)
    assert 9000.0 < desk.picture_ages(now)["wrist"] < 15_000.0, "a slow way here counts"


def driven(desk: Controller, mode: Mode = Mode.TAKEOVER) -> None:
    desk.client.state = make_state(mode=mode, commander=desk.client.sender)
    desk.client.lease = "lease"
    desk.tick()


@pytest.mark.parametrize("named", ["yes", "auto", "no"])
@pytest.mark.parametrize("connect", ["", "tcp://10.77.0.1:5600"])
@pytest.mark.parametrize("simulated", [True, False])
def test_a_takeover_without_live_pictures_is_held_where_people_see_by_them_alone(desk, named, connect, simulated):
    desk.config = structs.replace(desk.config, line_of_sight=named, connect=connect)
    desk.client.spec = structs.replace(SPEC, simulated=simulated)
    now = time.monotonic_ns()
    alone = named == "no" or (named == "auto" and (bool(connect) or not simulated))
    driven(desk)
    assert desk.client.blind is alone, "none ever came"
    for camera in ("front", "wrist"):
        arrive(desk, camera, now + 60 * SECOND)
        desk.client.frames_ns[camera] = now + 60 * SECOND  # this machine may be slow
    driven(desk)
    assert not desk.client.blind
    assert desk.lost_pictures == ()
    desk.client.frames_ns["wrist"] = now - SECOND
    desk.client.frames["wrist"] = structs.replace(desk.client.frames["wrist"], t_source_ns=now - SECOND)
    driven(desk)
    assert desk.client.blind is alone, "one of them is enough"
    assert desk.lost_pictures == (("wrist",) if alone else ())
    assert desk.devices.may_start, "the deadman stays down: let go it would hand back to the policy"


def test_who_sees_by_pictures_alone_takes_nothing_over_before_the_first_one_came(desk):
    desk.config = structs.replace(desk.config, line_of_sight="no")
    driven(desk, Mode.POLICY)
    assert not desk.devices.may_start


def test_the_banner_says_why_until_the_hold_is_over(desk):
    desk.config = structs.replace(desk.config, line_of_sight="no")
    driven(desk)
    for mode, told in ((Mode.HOLD, True), (Mode.HOLD, True), (Mode.POLICY, False), (Mode.HOLD, False)):
        driven(desk, mode)
        assert bool(desk.lost_pictures) is told
        assert desk.snapshot().lost_pictures == desk.lost_pictures
    driven(desk)
    desk.client.state = make_state(mode=Mode.TAKEOVER, commander="somebody")
    desk.tick()
    assert desk.lost_pictures == (), "somebody else drives"
