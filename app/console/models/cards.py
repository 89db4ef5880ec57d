"""The card on the front picture: hold, stop, lost link, and the empty states before and between blocks. One at a time, or none."""

from dataclasses import dataclass

from takeover.app.console.models.gate import gate
from takeover.app.console.models.holds import hold_text
from takeover.app.console.models.snapshot import Snapshot, device_key, duration
from takeover.app.console.palette import HOLD, POLICY, STOP
from takeover.app.console.palette import READY as GREY
from takeover.data.schema import HoldReason, Mode, State


@dataclass(frozen=True)
class CardButton:
    """``act`` is what the controller does. A disabled one says why in ``note`` of the card."""

    act: str
    label: str
    keys: tuple[str, ...] = ()
    enabled: bool = True
    primary: bool = False
    hold_s: float = 0.0


@dataclass(frozen=True)
class Card:
    title: str
    icon: str
    color: str
    steps: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()  # (label, value), at the right
    buttons: tuple[CardButton, ...] = ()
    note: str = ""
    progress: float | None = None
    numbered: bool = True


def card(view: Snapshot) -> Card | None:
    if view.state is None or view.link_lost:
        return _no_link(view)
    if view.mode is Mode.STOPPED:
        return Card(
            "Stopped: the robot stands still and takes no command",
            "octagon",
            STOP,
            (
                "Look at the robot: is anything in its way?",
                "Hold Clear (or the C key) for 1 s.",
                "Then start again; the running block was ended.",
            ),
            (("stopped for", duration(view.mode_s)),),
            (CardButton("clear", "Clear", ("C",), hold_s=1.0, primary=True),),
            "not a safety-rated stop: a real robot needs its own",
        )
    if view.mode is Mode.HOLD:
        return _hold(view)
    if view.mode is Mode.READY:
        return _ready(view)
    return None


def _no_link(view: Snapshot) -> Card:
    states = view.processes.states if view.processes else {}
    bridge = states.get("bridge", "")
    if view.state is None:
        starting = [name for name, text in states.items() if text != "up" and name != "console"]
        facts = tuple((name, text) for name, text in list(states.items())[:4])
        steps = ("The processes are starting; this takes a few seconds.",) if not bridge.startswith("failed") else (bridge,)
        return Card("Connecting to the robot", "plug", GREY, steps, facts, (), ", ".join(starting), numbered=False)
    return Card(
        "Link lost: no news from the robot bridge",
        "plug",
        STOP,
        (
            "The robot stops by itself when no command arrives.",
            "The bridge is restarted by itself; it comes back disarmed.",
            "Still lost after 10 s: restart it here.",
        ),
        (("silent for", duration(view.state_age_ms / 1e3)), ("bridge", bridge or "unknown")),
        (CardButton("restart:bridge", "Restart robot bridge"),),
    )


def _hold(view: Snapshot) -> Card:
    state = view.state
    if state is None:
        raise ValueError("a hold card needs a State")
    text = hold_text(state.hold_reason, view.lost_pictures)
    keys = {act: device_key(view.reading, act) for act in ("resume", "deadman", "next")}
    steps = tuple(step.format(**keys) for step in text.steps)
    title = text.title
    if view.demonstrating:  # nobody to resume to: only the person goes on
        steps = (
            *(s for s in steps if keys["resume"] not in s.split() and "Hold-to-run" not in s),
            f"Hold {keys['deadman']} to go on with the demonstration.",
        )
        title = "Held: you let go" if state.hold_reason is HoldReason.RELEASED else title
    waiting = [row.name.lower() for row in gate(view).rows if not row.ok]
    neutral = view.reading is None or view.reading.neutral
    can_resume = not waiting and neutral and view.policy_version > 0 and not view.demonstrating
    buttons = []
    if text.restart:
        names = {"bridge": "robot bridge", "actor": "policy process"}
        buttons.append(CardButton(f"restart:{text.restart}", f"Restart {names.get(text.restart, text.restart)}", primary=not can_resume))
    resume_keys = (keys["resume"],) if keys["resume"] == "P" else (keys["resume"], "P")
    if view.demonstrating:
        buttons.append(CardButton("redo", "Redo this one"))
    else:
        buttons.append(CardButton("resume", "Resume", resume_keys, can_resume, primary=can_resume))
    buttons.append(CardButton("next", "End episode", ("N",)))
    note = f"waits for: {', '.join(waiting)}" if waiting else "" if neutral else "let go of the device first"
    facts = [("held for", duration(view.mode_s))]
    if state.hold_detail and state.hold_reason not in (HoldReason.RELEASED, HoldReason.OPERATOR):
        facts.insert(0, ("detail", state.hold_detail))
    if state.hold_reason in (HoldReason.CAMERA_FROZEN, HoldReason.CAMERA_MISSING):
        facts += [(f"{name} picture", f"{age / 1e3:.1f} s old") for name, age in view.picture_age_ms.items() if age > 300]
    return Card(title, "pause", HOLD, steps, tuple(facts), tuple(buttons), note)


def _ready(view: Snapshot) -> Card:
    learner = view.learner
    missing = [row for row in gate(view).rows if not row.ok and row.name != "Policy"]
    blocked = tuple(f"{row.name}: {row.value}" for row in missing)
    deadman = device_key(view.reading, "deadman")
    if view.scripted_demonstrations:
        done = view.demonstrations
        steps = ("The scripted operator shows the task; you can watch.", "Press Esc at any time to stop it.")
        return Card(
            "Scripted demonstrations", "robot", GREY, steps, (("recorded", f"{done} of {view.demonstrations_wanted}"),), (), "", None, False
        )
    if learner is not None and learner.phase == "cloning":
        steps = (
            "The learner imitates the demonstrations. This takes less than a minute.",
            "The policy will be mediocre: correcting it is what you are for.",
        )
        return Card(
            "Training the first policy", "insights", POLICY, steps, (("policy", "version 1"),), (), learner.text, learner.progress, False
        )
    if view.demonstration_waits and view.state is not None:
        return _demonstration_waits(view, view.state)
    if view.collect:
        how = (
            f"Press Start, then hold {deadman} and do the task; letting go pauses.",
            "Success ends it by itself; set the outcome yourself with the keys at the right.",
            "A bad one: Redo throws it away and starts again.",
        )
        button = CardButton("collect", "Start recording", ("Enter",), not blocked, True)
        facts = (("succeeded so far", f"{view.demonstrations}"), ("in this block", f"{view.demonstrations_wanted}"))
        return Card("Collect demonstrations", "star", GREY, how, facts, (button,), "; ".join(blocked))
    if view.policy_version < 1:
        return _no_policy(view, blocked)
    steps = (
        f"Watch the robot. When it falters, hold {deadman} and steer; let go to give it back.",
        "Every correction is learned from at once; the card at the right shows when it acts.",
    )
    button = CardButton("start", "Start", ("Enter",), not blocked, True)
    return Card(f"Ready: policy v{view.policy_version} will drive", "check", GREY, steps, (), (button,), "; ".join(blocked), None, False)


def _demonstration_waits(view: Snapshot, state: State) -> Card:
    total = state.block_size or view.demonstrations_wanted
    steps = (f"Hold {device_key(view.reading, 'deadman')} and do the task; reaching the goal ends it. Letting go holds the robot.",)
    buttons = [CardButton("finish", "End the block")]
    if state.block_done:
        buttons.insert(0, CardButton("redo", "Redo the last one"))
    if view.spec is not None and view.spec.simulated:
        buttons.append(CardButton("scripted", "Let the script go on"))
    return Card(f"Demonstration {min(total, state.block_done + 1)} of {total}", "star", GREY, steps, (), tuple(buttons), "", None, False)


def _no_policy(view: Snapshot, blocked: tuple[str, ...]) -> Card:
    done, wanted = view.demonstrations, view.demonstrations_wanted
    steps: tuple[str, ...] = (
        f"A first policy is cloned from {wanted} demonstrations that succeed; {done} are recorded, failed ones left out.",
        "Let the scripted operator give them, or record your own.",
    )
    buttons = [CardButton("record", "Record my own", (), not blocked, not (view.spec and view.spec.simulated))]
    if view.spec is not None and view.spec.simulated:
        missing = max(1, wanted - done)
        label = f"Use {missing} scripted demonstration{'s' if missing > 1 else ''}"
        buttons.insert(0, CardButton("scripted", label, ("Enter",), not blocked, True))
    else:
        steps = (steps[0],)
    title = "No demonstrations yet" if not done else f"{done} of {wanted} demonstrations"
    return Card(title, "star", GREY, steps, (), tuple(buttons), "; ".join(blocked), done / max(1, wanted), False)
