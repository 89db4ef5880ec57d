"""Key hints under the Operate page, for the mode and the device in use, and the full list for F1."""

from takeover.app.console.models.snapshot import Snapshot, device_key
from takeover.data.schema import Mode

Hint = tuple[str, str]


def hints(view: Snapshot) -> list[Hint]:
    if view.mode is Mode.STOPPED:
        return [("C", "hold 1 s to clear")]
    if view.mode is Mode.HOLD:
        resume = device_key(view.reading, "resume")
        return [
            (resume, "resume"),
            (device_key(view.reading, "deadman"), "take over"),
            ("N", "end episode"),
            ("M", "mark"),
            ("Esc", "STOP"),
            ("Ctrl+Z", "undo outcome"),
        ]
    if view.demonstration_waits:
        return [(device_key(view.reading, "deadman"), "hold to begin"), ("Esc", "STOP"), ("Ctrl+Z", "undo outcome")]
    if view.mode is Mode.READY:
        return [("Enter", "start"), ("[ ]", "speed"), ("Esc", "STOP"), ("Ctrl+Z", "undo outcome")]
    if view.reading is not None and view.reading.kind == "gamepad":
        return [
            ("RB", "hold to drive"),
            ("LS RS", "move, turn"),
            ("LT RT", "gripper"),
            ("LB", "fine"),
            ("X", "mark"),
            ("Start", "hold"),
            ("Back", "STOP"),
            ("[ ]", "speed"),
            ("N", "next"),
        ]
    drive = [("Space", "hold to drive"), ("W A S D", "move"), ("R F", "up, down"), ("Q E", "turn")]
    if view.spec is not None and view.spec.action.gripper != "none":
        drive.append(("G", "gripper"))
    return [*drive, ("M", "mark"), ("P", "hold"), ("Enter", "success"), ("Bksp", "failure"), ("N", "next")]


KEY_GROUPS: tuple[tuple[str, tuple[Hint, ...]], ...] = (
    (
        "Always",
        (("Esc", "STOP (latches)"), ("C", "hold 1 s: clear a STOP"), ("Ctrl+1 … 4", "pages"), ("F1", "this list"), ("Ctrl+K", "commands")),
    ),
    (
        "Drive with the keyboard",
        (
            ("Space", "hold: take over"),
            ("Shift+Space", "latch the takeover"),
            ("W A S D", "move, also arrows"),
            ("R F", "up, down"),
            ("Q E", "turn"),
            ("G", "gripper"),
            ("[ ]", "slower, faster"),
        ),
    ),
    (
        "Episode",
        (
            ("P", "hold, resume"),
            ("Enter", "success; starts when ready"),
            ("Backspace", "failure"),
            ("M", "mark this moment"),
            ("N", "next: end the episode"),
            ("Ctrl+Z", "undo the last outcome"),
        ),
    ),
    (
        "Drive with a gamepad",
        (
            ("RB", "hold: take over"),
            ("Left stick", "move"),
            ("Right stick", "up, down, turn"),
            ("LT RT", "open, close"),
            ("LB", "fine"),
            ("A B", "success, failure (hold 0.4 s)"),
            ("X Y", "mark, resume"),
            ("Start Back", "hold, STOP"),
        ),
    ),
)
