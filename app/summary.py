"""The result of a headless run as one JSON object. Pure, but for `software`."""

import hashlib
import importlib.metadata
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from takeover import __version__
from takeover.app.stream import FinishedEpisode
from takeover.data.schema import EvaluateReply, LearnerStatus, Outcome, RunConfig

WINDOW = 20  # episodes of intervention_rate.first_20 and .last_20
PACKAGES = ("torch", "mujoco", "numpy", "msgspec", "pyzmq", "h5py")


def summarise(
    *,
    config: RunConfig,
    episodes: Sequence[FinishedEpisode],
    before: EvaluateReply | None,
    after: EvaluateReply | None,
    learner: LearnerStatus | None,
    steps: dict[str, int],
    weights_sha256: str,
    wall_s: dict[str, float],
    control_hz: float,
    operator: dict[str, Any],
) -> dict[str, Any]:
    """Fields as in the README. ``episodes``: those of kind policy, in order. Latencies are null in lockstep, where time stands still."""
    realtime = config.clock == "realtime"
    return {
        "episodes": [_episode(episode) for episode in episodes],
        "intervention_rate": {
            "first_20": intervention_rate(episodes[:WINDOW]),
            "last_20": intervention_rate(episodes[-WINDOW:]),
        },
        "heldout_success": {"before": _success(before), "after": _success(after)},
        "learner": {
            "updates": learner.updates if learner is not None else 0,
            "extra_updates": learner.extra_updates if learner is not None else 0,
            "versions_published": learner.versions_published if learner is not None else 0,
        },
        "correction_to_batch_s": percentiles(learner.correction_to_batch_s) if realtime and learner is not None else None,
        "correction_to_acting_s": percentiles(learner.correction_to_acting_s) if realtime and learner is not None else None,
        "steps": steps,
        "weights_sha256": weights_sha256,
        "wall_s": {name: round(seconds, 2) for name, seconds in wall_s.items()},
        "simulated_s": round(steps["total"] / control_hz, 3),
        "workspace": config.workspace,
        "software": software(),
        "operator": operator,
        "robot": config.robot,
        "task": config.task,
        "learner_name": config.learner,
        "seed": config.seed,
        "clock": config.clock,
    }


def _episode(episode: FinishedEpisode) -> dict[str, Any]:
    end = episode.end
    success = end.outcome == Outcome.SUCCESS
    return {
        "success": success,
        "autonomous": end.autonomous,
        "outcome": end.outcome.value,
        "steps": end.steps,
        "human_steps": end.human_steps,
        "takeovers": end.takeovers,
        "policy_version": episode.start.policy_version,
    }


def intervention_rate(episodes: Sequence[FinishedEpisode]) -> float:
    """Human steps over steps of all these episodes together; 0 when there are none."""
    steps = sum(episode.end.steps for episode in episodes)
    return sum(episode.end.human_steps for episode in episodes) / steps if steps else 0.0


def _success(reply: EvaluateReply | None) -> dict[str, int] | None:
    return None if reply is None else {"successes": reply.successes, "n": reply.n}


def percentiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50 and p95 by the nearest rank; None when there are no values."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{share}": ordered[math.ceil(share / 100 * len(ordered)) - 1] for share in (50, 95)}


def software() -> dict[str, str]:
    versions = {"takeover": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def weights_sha256(workspace: str, version: int) -> str:
    """Of a published version's weights file."""
    path = Path(workspace) / "policies" / str(version) / "weights.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in two runs with the same seed on one machine."""
    return {key: value for key, value in summary.items() if key not in ("wall_s", "workspace", "software")}
