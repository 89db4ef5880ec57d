"""The mode banner: word, icon, colour, time, why, what to do. It is filled only when a person must know."""

from dataclasses import dataclass

from takeover.app.console.models.holds import hold_text
from takeover.app.console.models.snapshot import STOP_WAITS_S, Snapshot, device_key, duration
from takeover.app.console.palette import HOLD, POLICY, READY, STOP, TAKEOVER
from takeover.app.console.palette import T3 as GREY
from takeover.data.schema import EpisodeKind, HoldReason, Mode


@dataclass(frozen=True)
class Banner:
    """``parts``: short phrases; text between ``**`` is bold."""

    word: str
    icon: str
    color: str
    elapsed: str
    parts: tuple[str, ...] = ()
    filled: bool = False
    hatched: bool = False


def banner(view: Snapshot) -> Banner:
    state = view.state
    if view.stop_waits_s > STOP_WAITS_S:
        return Banner(
            "STOP SENT",
            "octagon",
            STOP,
            duration(view.stop_waits_s),
            (
                "**The bridge has not confirmed it: the robot may still move**",
                "Use its own emergency stop",
                "It is sent again until it arrives",
            ),
            filled=True,
            hatched=True,
        )
    if state is None:
        up = view.processes.states.get("bridge", "") if view.processes else ""
        why = "The robot bridge is starting" if up in ("", "starting", "up") else f"The robot bridge: {up}"
        return Banner("OFFLINE", "plug", GREY, "", (why, "It connects by itself"))
    if view.link_lost:
        return Banner(
            "LINK LOST",
            "plug",
            STOP,
            duration(view.state_age_ms / 1e3),
            ("**No news from the robot bridge**", "The robot stops by itself; pictures are not live", "It reconnects by itself"),
            hatched=True,
        )
    elapsed = duration(view.mode_s)
    deadman = device_key(view.reading, "deadman")
    again = (f"**Let go of {deadman}, then hold it again**",) if view.press_again else ()
    if view.mode is Mode.TAKEOVER:
        return Banner("TAKEOVER", "hand", TAKEOVER, elapsed, _takeover_parts(view, deadman), filled=True)
    if view.mode is Mode.HOLD:
        text = hold_text(state.hold_reason, view.lost_pictures)
        line = "hold {deadman} to go on with the demonstration" if view.demonstrating else text.line
        todo = line.format(resume=f"**{device_key(view.reading, 'resume')}**", deadman=f"**{deadman}**", next="**N**")
        why = "You let go" if view.demonstrating and state.hold_reason is HoldReason.RELEASED else text.why
        probe = ("no-help probe",) if view.probing else ()
        return Banner("HOLD", "pause", HOLD, elapsed, again or (f"**{why}**", todo, *probe), filled=True)
    if view.mode is Mode.STOPPED:
        detail = state.hold_detail or "The robot stands still and takes no command"
        return Banner("STOPPED", "octagon", STOP, elapsed, (f"**{detail}**", "Hold **Clear** for 1 s to go on"), filled=True, hatched=True)
    if view.mode is Mode.POLICY and view.probing:
        return Banner("NO-HELP PROBE", "dice", POLICY, elapsed, again or _probe_parts(view, deadman))
    if view.mode is Mode.POLICY:
        parts = [f"v{state.policy_version} drives", f"hold **{deadman}** to take over"]
        if state.unattended:
            parts[0] = f"**Unattended practice**, {state.failures} of {state.max_failures} failures"
        if not view.holds_lease and state.commander:
            parts[1] = (
                f"the scripted operator supervises, hold **{deadman}** to drive" if view.scripted else f"{state.commander} supervises"
            )
        if state.speed_scale < 1:
            parts.append(f"slowed to {state.speed_scale:.0%}".replace("%", " %"))
        return Banner("POLICY", "robot", POLICY, elapsed, again or tuple(parts))
    if view.mode is Mode.RESETTING and view.probing:
        return Banner("RESETTING", "back", READY, elapsed, ("**Next: a no-help probe**", "The policy will drive alone; watch it"))
    if view.mode is Mode.RESETTING:
        return Banner("RESETTING", "back", READY, elapsed, ("The next start is being set up",))
    if view.mode is Mode.READY:
        return Banner("READY", "check", READY, elapsed, again or _ready_parts(view, deadman))
    return Banner("OFFLINE", "plug", GREY, "", ("The bridge has no robot",))


def _takeover_parts(view: Snapshot, deadman: str) -> tuple[str, ...]:
    state = view.state
    if not view.holds_lease:
        if view.scripted_demonstrations:
            return (
                "**The scripted operator demonstrates**",
                f"{view.demonstrations} of {view.demonstrations_wanted} recorded",
                "**Esc** stops it",
            )
        if view.scripted:
            return ("**The scripted operator drives**", f"hold **{deadman}** to drive yourself")
        return (f"**{state.commander if state else 'somebody'}** drives", "You are watching")
    latched = view.reading is not None and view.reading.raw.get("latched", 0.0) > 0
    held = f"**{deadman} latched**" if latched else f"**{deadman} held**"
    name = view.reading.name if view.reading else "Device"
    groups = [group.name for group in view.spec.action.groups] if view.spec else ["arm"]
    release = f"Press {deadman}" if latched else f"Release {deadman}"
    if view.probing:
        return (f"{name}, {held}", "**This probe counts as a failure**", f"{release}: the policy goes on from here")
    if state is not None and state.episode_kind == EpisodeKind.DEMONSTRATION:
        goes_on = f"{release}: the robot waits"
    else:
        goes_on = f"{release}: the policy goes on from here"
    return (f"{name}, {held}", f"You drive {' and '.join(groups)}", goes_on)


def _probe_parts(view: Snapshot, deadman: str) -> tuple[str, ...]:
    state = view.state
    if state is None:
        return ()
    drives = f"v{state.probe_version or state.policy_version} drives alone"
    if state.takeovers:
        return ("**It counts as a failure**: somebody took over", drives, f"hold **{deadman}** if it is unsafe again")
    return ("**Watch, do not help unless it is unsafe**", f"{drives}; a takeover (hold **{deadman}**) counts as a failure")


def _ready_parts(view: Snapshot, deadman: str) -> tuple[str, ...]:
    missing = [name for name, problem in (view.state.gate if view.state else {}).items() if problem]
    if view.scripted_demonstrations:
        return ("The scripted operator is about to demonstrate",)
    if view.learner is not None and view.learner.phase == "cloning":
        return ("The first policy is being trained", f"{view.learner.progress:.0%}".replace("%", " %"))
    if view.demonstration_waits and view.state is not None:
        total = view.state.block_size or view.demonstrations_wanted
        return (f"Demonstration {min(total, view.state.block_done + 1)} of {total}", f"hold **{deadman}** to begin")
    if view.collect:
        return ("Ready to record", f"**Start**, then hold **{deadman}** to demonstrate")
    if view.policy_version < 1:
        return ("No policy yet", f"{view.demonstrations} of {view.demonstrations_wanted} demonstrations")
    if missing:
        return ("Robot still", f"start gate: {len(missing)} missing")
    return ("Robot still, gate passed", "**Start** lets the policy drive")
