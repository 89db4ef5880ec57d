"""The learner card: which version acts, and what became of each correction."""

from dataclasses import dataclass

from takeover.app.console.models.snapshot import Snapshot


@dataclass(frozen=True)
class CorrectionRow:
    episode: str
    length: str
    in_batch: str
    acts: str
    version: str


@dataclass(frozen=True)
class LearnerCard:
    note: str
    acting: str
    newest: str
    updates: str
    sentence: tuple[tuple[str, bool], ...]  # pieces, bold or not
    rows: tuple[CorrectionRow, ...]
    progress: float | None  # of waiting or cloning; None while training
    progress_text: str
    error: str = ""


def _number(record: dict[str, float | str], key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, (int, float)) else None


def _seconds(record: dict[str, float | str], key: str) -> str:
    value = _number(record, key)
    return "…" if value is None else f"{value:.1f}"


def learner_card(view: Snapshot) -> LearnerCard:
    learner = view.learner
    if learner is None:
        return LearnerCard("not heard yet", "–", "–", "–", (("The learner has not reported yet.", False),), (), None, "")
    acting = view.actor.version if view.actor else (view.state.policy_version if view.state else 0)
    note = (
        f"{learner.learner}, {learner.updates_per_s:.0f} updates/s"
        if learner.phase == "training"
        else f"{learner.learner}, {learner.phase}"
    )
    rows = tuple(_row(record) for record in reversed(learner.corrections[-8:]))
    progress, progress_text = None, ""
    if learner.phase == "waiting":
        progress = min(1.0, learner.demonstrations / max(1, view.demonstrations_wanted))
        progress_text = f"{learner.demonstrations} of {view.demonstrations_wanted} demonstrations"
    elif learner.phase == "cloning":
        progress, progress_text = learner.progress, f"cloning, {learner.progress:.0%}".replace("%", " %")
    return LearnerCard(
        note=note,
        acting=f"v{acting}" if acting else "none",
        newest=f"v{learner.newest_version}" if learner.newest_version else "none",
        updates=f"{learner.updates:,}",
        sentence=_sentence(view),
        rows=rows,
        progress=progress,
        progress_text=progress_text,
        error=learner.error,
    )


def _row(record: dict[str, float | str]) -> CorrectionRow:
    number, version = _number(record, "episode_number"), _number(record, "version")
    length = _number(record, "length_s")
    return CorrectionRow(
        episode=f"{number:.0f}" if number is not None else "?",
        length=f"{length:.1f} s" if length is not None else "…",
        in_batch=_seconds(record, "to_batch_s"),
        acts=_seconds(record, "to_acting_s"),
        version=f"v{version:.0f}" if version else "…",
    )


def _sentence(view: Snapshot) -> tuple[tuple[str, bool], ...]:
    """``Last correction is in update 24,346 after 0.8 s; acting after 3.1 s``, as far as known."""
    learner = view.learner
    if learner is None:
        return ()
    last = learner.last_correction
    if learner.phase == "training" and (waits := learner.metrics.get("actor_waits", 0.0)) > 0.0:
        return (
            ("It finds out what the cloned policy is worth; your corrections count. ", False),
            (f"What drives changes in {waits:,.0f} updates.", True),
        )
    if not last:
        text = {
            "waiting": "It waits for demonstrations to clone.",
            "cloning": "The first policy is being cloned from the demonstrations.",
            "error": learner.error or "The learner reported an error.",
        }.get(learner.phase, "No correction yet. Take over when the robot falters; it learns from that.")
        return ((text, False),)
    update, batch, acting = _number(last, "update"), _number(last, "to_batch_s"), _number(last, "to_acting_s")
    if update is None or batch is None:
        return (("Last correction is on its way to the learner", False),)
    pieces: list[tuple[str, bool]] = [(f"Last correction is in update {update:,.0f} after ", False), (f"{batch:.1f} s", True)]
    if acting is None:
        return (*pieces, ("; not acting yet", False))
    return (*pieces, ("; acting after ", False), (f"{acting:.1f} s", True))
