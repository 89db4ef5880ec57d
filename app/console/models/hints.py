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
            *(() if view.demonstrating else ((resume, "resume"),)),
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
    if view.probing and view.mode is Mode.POLICY:
        keys = {act: device_key(view.reading, act) for act in ("deadman", "hold", "success", "failure")}
        return [
            (keys["deadman"], "take over if it is unsafe"),
            ("Esc", "STOP"),
            (keys["hold"], "hold"),
            (keys["success"], "success"),
            (keys["failure"], "failure"),
        ]
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


Group = tuple[str, tuple[Hint, ...]]

_ALWAYS: Group = (
    "Always",
    (("Esc", "STOP (latches)"), ("C", "hold 1 s: clear a STOP"), ("Ctrl+1 … 4", "pages"), ("F1", "this list"), ("Ctrl+K", "commands")),
)
_KEYBOARD: Group = (
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
)
_EPISODE: Group = (
    "Episode",
    (
        ("P", "hold, resume"),
        ("Enter", "success; starts when ready"),
        ("Backspace", "failure"),
        ("M", "mark this moment"),
        ("N", "next: end the episode"),
        ("Ctrl+Z", "undo the last outcome"),
    ),
)
_GAMEPAD: Group = (
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
)
_PLAYBACK: Group = (
    "Playback",
    (
        ("K", "play, pause"),
        ("J L", "back, forward; again: faster"),
        ("← →", "one frame"),
        ("Shift+← →", "one second"),
        (", .", "previous, next segment"),
        ("/", "search the queue"),
    ),
)
_LABELS: Group = (
    "Labels",
    (
        ("1 … 7", "cause, and on to the next"),
        ("Enter", "submit and next"),
        ("S U", "skip, unsure"),
        ("F", "flag"),
        ("Z", "undo"),
        ("Shift+Z", "redo"),
    ),
)
_EDGES: Group = (
    "Edges, at the play-head",
    (
        ("I O", "first, last step that counts"),
        ("Shift+I O", "all steps count again"),
        ("B", "onset: where the reason began"),
        ("Shift+B", "onset as recorded"),
        ("T", "type a tag"),
    ),
)
_CURVES: Group = (
    "Curves",
    (("Point", "reads the values"), ("Drag", "marks a stretch; its label opens the segments in Review")),
)

KEY_GROUPS: dict[str, tuple[Group, ...]] = {
    "operate": (_ALWAYS, _KEYBOARD, _EPISODE, _GAMEPAD),
    "review": (_ALWAYS, _PLAYBACK, _LABELS, _EDGES),
    "insights": (_ALWAYS, _CURVES),
    "setup": (_ALWAYS,),
}
