"""The keyboard as a device."""

import time

from takeover.app.inputs.base import InputDevice
from takeover.app.inputs.keyboard import GRIPPER_PULSE_NS, Keyboard


def test_space_held_is_the_deadman_and_letting_go_releases():
    keyboard: InputDevice | Keyboard = Keyboard()
    assert keyboard.poll().neutral
    keyboard.press("space")
    keyboard.press("w")
    keyboard.press("d")
    now = keyboard.poll()
    assert now.deadman
    assert not now.neutral
    assert now.twist == (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)
    keyboard.release("space")
    assert not keyboard.poll().deadman
    keyboard.release("w")
    keyboard.release("d")
    assert keyboard.poll().neutral


def test_opposite_keys_cancel():
    keyboard = Keyboard()
    keyboard.press("a")
    keyboard.press("right")
    assert keyboard.poll().twist[0] == 0.0


def test_auto_repeat_neither_presses_nor_releases():
    keyboard = Keyboard()
    assert keyboard.press("space", auto_repeat=True)
    assert not keyboard.poll().deadman
    keyboard.press("space")
    keyboard.release("space", auto_repeat=True)
    assert keyboard.poll().deadman


def test_shift_space_latches_and_space_or_shift_space_ends_it():
    keyboard = Keyboard()
    keyboard.press("space", shift=True)
    keyboard.release("space")
    assert keyboard.poll().deadman, "latched: holds without a key"
    keyboard.press("space")
    keyboard.release("space")
    assert not keyboard.poll().deadman
    keyboard.press("space", shift=True)
    keyboard.release("space")
    keyboard.press("space", shift=True)
    keyboard.release("space")
    assert not keyboard.poll().deadman


def test_focus_loss_releases_everything_also_the_latch():
    keyboard = Keyboard()
    keyboard.press("space", shift=True)
    keyboard.press("r")
    keyboard.press("g")
    keyboard.release_all()
    now = keyboard.poll()
    assert (now.deadman, now.twist, now.gripper, now.neutral) == (False, (0.0,) * 6, 0.0, True)


def test_gripper_toggles_and_a_tap_lasts():
    keyboard = Keyboard()
    keyboard.press("g")
    keyboard.release("g")
    assert keyboard.poll().gripper == -1.0, "starts open: the first tap closes"
    keyboard.press("g", t_ns=time.monotonic_ns() - GRIPPER_PULSE_NS)
    assert keyboard.poll().gripper == 1.0, "held longer than the pulse"
    keyboard.release("g")
    assert keyboard.poll().gripper == 0.0


def test_keys_that_do_not_drive_are_refused():
    assert not Keyboard().press("x")
    assert not Keyboard().release("x")


def test_a_keyboard_that_is_off_swallows_its_keys_and_drives_nothing():
    keyboard = Keyboard(enabled=False)
    assert keyboard.press("space")
    assert keyboard.press("w")
    assert not keyboard.press("p"), "keys that do not drive are nobody's but the window's"
    assert keyboard.poll().neutral
    assert not keyboard.poll().deadman
