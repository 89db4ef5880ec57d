"""A correction does not begin while pictures are old, nor by a press made then."""

import time

import pytest

from takeover.app.console.devices import Devices
from takeover.app.inputs.keyboard import Keyboard
from takeover.data.schema import Mode

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
