"""What recorder, learner, evaluator and actor want everyone to know: one line at the picture, all of it on demand. Pure, no Qt."""

from collections.abc import Mapping
from dataclasses import dataclass

from takeover.app.console.models.snapshot import STATUS_STALE_MS, Snapshot
from takeover.data.schema import State


@dataclass(frozen=True)
class Notice:
    """``who`` says it; ``fault``: something is wrong and a person has to do something."""

    who: str
    text: str
    fault: bool = False


def notices(view: Snapshot) -> tuple[Notice, ...]:
    """Faults first, each text once. Empty when all is well, or when nobody was heard lately: old news is no news."""
    found: list[Notice] = []
    learner, actor, evaluator = view.learner, view.actor, view.evaluator
    if view.state is not None and view.state.recorder_notice:
        found.append(Notice("Recorder", view.state.recorder_notice))
    if learner is not None and view.learner_age_ms <= STATUS_STALE_MS:
        if learner.error:
            found.append(Notice("Learner", learner.error, fault=True))
        found += [Notice("Learner", text) for text in learner.notices if text != learner.error]
    if actor is not None and view.actor_age_ms <= STATUS_STALE_MS:
        if actor.refused:
            found.append(Notice("Policy", actor.refused))
        elif actor.pinned:
            found.append(Notice("Policy", f"a rollback holds the robot to version {actor.pinned}; newer versions wait"))
    if evaluator is not None:
        if evaluator.error:
            found.append(Notice("Evaluator", evaluator.error))
        found += [Notice("Evaluator", text) for text in evaluator.notices]
    return tuple(sorted(dict.fromkeys(found), key=lambda notice: not notice.fault))


def line(found: tuple[Notice, ...]) -> tuple[str, str]:
    """The first one without line breaks, and how many more there are; empty when there is none."""
    if not found:
        return "", ""
    more = f"+{len(found) - 1}" if len(found) > 1 else ""
    return f"{found[0].who}: {' '.join(found[0].text.split())}", more


def in_full(found: tuple[Notice, ...]) -> str:
    """All of them, one paragraph each."""
    return "\n\n".join(f"{notice.who}: {notice.text}" for notice in found)


def refused(state: State) -> str:
    """How much the bridge has refused in this session, by kind."""
    return (
        f"{state.refused_commands} messages, {state.refused_requests} requests, "
        f"{state.refused_connections} connections, {state.bad_messages} unreadable"
    )


def last_refused(state: State) -> str:
    """The newest of them and how long ago: sender, field, value and what is allowed."""
    if not state.last_refusal:
        return "none"
    age_s = max(0.0, state.last_refusal_age_ms / 1000.0)
    ago = f"{age_s:.0f} s" if age_s < 120 else f"{age_s / 60:.0f} min"
    return f"{state.last_refusal} ({ago} ago)"


def reward_text(figures: Mapping[str, float]) -> str:
    """``v3, 1 of 3 vetoes, precision 0.90, recall 0.80`` of `EvaluatorStatus.reward`; "" where no learned reward is kept up."""
    if "version" not in figures:
        return ""
    text = f"v{figures['version']:.0f}"
    if "training" in figures:
        text += f", the next is being trained: {100 * figures['training']:.0f} %"
    elif figures.get("wanted"):
        text += f", {figures.get('vetoes', 0.0):.0f} of {figures['wanted']:.0f} vetoes until the next"
    return text + f"; held out: precision {figures.get('precision', 0.0):.2f}, recall {figures.get('recall', 0.0):.2f}"
