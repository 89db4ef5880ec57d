"""The episode panel: what is being done, how far, by whom."""

from dataclasses import dataclass

from takeover.app.console.models.snapshot import Snapshot, device_key
from takeover.data.schema import EpisodeKind, Mode, Outcome, OutcomeSource, State


@dataclass(frozen=True)
class EpisodeView:
    title: str
    note: str
    prompt: str
    rows: tuple[tuple[str, str], ...]
    progress: float  # of the step limit
    can_judge: bool  # success and failure keys do something
    hint: str
    success_key: str
    failure_key: str
    can_redo: bool = False
    to_go: float = -1.0  # steps to go as a share of the step limit; below 0: nobody says
    can_veto: bool = False  # a learned reward said success, or says how likely it is


class EpisodeTrack:
    """Who drove the running episode, as shares of its step limit."""

    def __init__(self) -> None:
        self._episode = ""
        self.segments: list[tuple[float, float, int]] = []

    def add(self, state: State, who: int) -> None:
        """``who``: a driver of `models.strip`."""
        if state.episode_id != self._episode:
            self._episode, self.segments = state.episode_id, []
        if not state.episode_id or not state.episode_max_steps:
            return
        share = min(1.0, state.episode_step / state.episode_max_steps)
        if self.segments and self.segments[-1][2] == who:
            self.segments[-1] = (self.segments[-1][0], share, who)
        elif state.mode in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD, Mode.STOPPED):
            start = self.segments[-1][1] if self.segments else 0.0
            self.segments.append((start, share, who))


def episode_view(view: Snapshot) -> EpisodeView:
    state, spec = view.state, view.spec
    task = spec.task_id if spec else ""
    prompt = spec.prompt if spec else ""
    success, failure = device_key(view.reading, "success"), device_key(view.reading, "failure")
    hint = "hold 0.4 s to set the outcome" if view.reading and view.reading.kind == "gamepad" else "sets the outcome"
    if state is None or not state.episode_id:
        done = f"{state.block_done} finished" if state and state.block_done else ""
        return EpisodeView(
            "No episode", task, prompt, (("Step", "–"), ("By a person", "–"), ("Block", done or "–")), 0.0, False, hint, success, failure
        )
    kind = state.episode_kind
    hz = spec.control_hz if spec else 20.0
    paused = " (paused)" if view.mode is Mode.HOLD else ""
    limit = state.episode_max_steps
    open_end = not state.block_size or state.block_size >= 1000
    block = f"{state.block_done} finished" if open_end else f"{state.block_done} of {state.block_size}"
    if kind == EpisodeKind.DEMONSTRATION:
        total = state.block_size or view.demonstrations_wanted
        title = f"Demonstration {min(total, state.block_done + 1)} of {total}"
    elif view.probing:
        title = f"No-help probe {state.probe + 1}"
    else:
        title = f"Episode {state.episode_number}"
    human_s = state.human_steps / hz
    rows = (
        ("Step", f"{state.episode_step} of {limit}{paused}" if limit else f"{state.episode_step}{paused}"),
        (
            "By the script" if view.scripted else "By a person",
            f"{state.human_steps} steps, {human_s:.1f} s" if state.human_steps else "0 steps",
        ),
        _third_row(view, block),
    )
    undo = bool(state.last_outcome_episode)
    return EpisodeView(
        title,
        _note(view, task),
        prompt,
        rows,
        state.episode_step / limit if limit else 0.0,
        view.live and (view.in_episode or undo),
        hint,
        success,
        failure,
        view.live and view.demonstrating and (view.in_episode or state.block_done > 0),
        min(1.0, state.scores["steps_to_go"] / limit) if limit and view.in_episode and "steps_to_go" in state.scores else -1.0,
        view.live and veto_of(view) != "",
    )


def _note(view: Snapshot, task: str) -> str:
    state = view.state
    if state is None or state.episode_kind in (None, EpisodeKind.DEMONSTRATION):
        return task
    if view.probing:
        return f"v{state.probe_version or state.policy_version} alone, not trained on"
    return f"{task}, {state.episode_kind.value}"


def veto_of(view: Snapshot) -> str:
    """What "not success" means now: "outcome" takes back the last episode's, which a learned reward gave; "mark" notes this moment.

    "" where no learned reward says anything.
    """
    state = view.state
    if state is None:
        return ""
    if state.last_outcome is Outcome.SUCCESS and state.last_outcome_source == OutcomeSource.CLASSIFIER:
        return "outcome"
    return "mark" if view.in_episode and "success" in state.scores else ""


def _third_row(view: Snapshot, block: str) -> tuple[str, str]:
    state = view.state
    if state is not None and view.in_episode and "steps_to_go" in state.scores:
        said = f"about {state.scores['steps_to_go']:.0f} steps"
        if state.scores.get("success_offered"):
            return "To go", f"{said}, done?"
        return "To go", f"{said}, unsure" if state.scores.get("stalled") else said
    if state is not None and "success" in state.scores:
        return "Success chance", f"{state.scores['success']:.2f}"
    if state is not None and state.last_outcome is not None and not view.in_episode:
        return "Outcome", state.last_outcome.value
    return ("Block", block)
