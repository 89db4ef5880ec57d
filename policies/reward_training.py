"""Train a reward classifier on what a workspace holds, and publish it as the next version."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
from torch import Tensor

from takeover.data.workspace import Workspace
from takeover.policies.reward_compare import Comparison, WorseReward, compare
from takeover.policies.reward_data import Recorded, RewardEpisode, read_recorded, split
from takeover.policies.reward_fit import (
    Examples,
    Progress,
    Quality,
    RewardCancelled,
    check_enough,
    checks_of,
    choose_threshold,
    fit,
    gather,
    verdicts,
)
from takeover.policies.reward_model import RewardConfig, RewardModel
from takeover.policies.reward_settings import RewardError, RewardSettings, parse_settings
from takeover.policies.reward_store import RewardManifest, load_reward, newest_for, write_reward

__all__ = ["RewardCancelled", "RewardRequest", "request_like", "train_reward"]


class RewardRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be trained: for which robot and task, on what."""

    robot_id: str
    task_id: str
    settings: RewardSettings = RewardSettings()
    state: bool = True  # the observation's numbers are inputs
    without: tuple[str, ...] = ()  # observations that are left out of the inputs
    cameras: tuple[str, ...] = ()  # whose policy pictures are inputs
    checks: tuple[str, ...] = ()  # observations that must lie in the range of the positives
    new_encoder: bool = False  # train a new picture encoder though the version before has one


def request_like(workspace: Workspace | Path | str, robot_id: str, task_id: str) -> RewardRequest:
    """What the newest classifier of a robot and task was asked for, so that the next one is made the same way. Raises `RewardError`."""
    where = workspace.path if isinstance(workspace, Workspace) else Path(workspace)
    manifest = newest_for(where, robot_id, task_id)
    if manifest is None:
        raise RewardError(f"no reward classifier for {robot_id}:{task_id} in {where}; `takeover reward train` makes one")
    config = RewardConfig.of(manifest.config)
    names = manifest.observation_names
    return RewardRequest(
        robot_id=robot_id,
        task_id=task_id,
        settings=parse_settings(manifest.settings | {"device": "auto"}),  # it may have been another machine
        state=bool(config.inputs),
        without=tuple(name for i, name in enumerate(names) if i not in config.inputs) if config.inputs else (),
        cameras=config.cameras,
        checks=tuple(names[index] for index, _, _ in config.checks),
    )


def train_reward(
    workspace: Workspace | Path | str, request: RewardRequest, progress: Progress, *, refuse_worse: bool = False
) -> tuple[RewardManifest, list[str]]:
    """Returns the new version and what could not be read. Nothing is written before everything is done.

    ``refuse_worse``: one that is worse than the version before, on the same held-out episodes, is not written: `WorseReward`.

    Raises `RewardError` (too little data, one class, unknown names), `RewardCancelled`, `OSError`.
    """
    where = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    settings = request.settings
    before = newest_for(where.path, request.robot_id, request.task_id)
    recorded = read_recorded(where, request.robot_id, request.task_id, settings)
    names = list(recorded.spec.observation.names)
    config = _config(request, names)
    held_out = split(
        recorded.episodes, settings.held_out, before.held_out if before is not None else (), before.trained_on if before is not None else ()
    )
    training = [episode for episode in recorded.episodes if episode.judged and episode.episode_id not in held_out]
    kept_out = [episode for episode in recorded.episodes if episode.episode_id in held_out]
    check_enough(training, settings)
    features: dict[str, Tensor] | None = None
    encoder: dict[str, Tensor] = {}
    if config.cameras:
        from takeover.policies.reward_pictures import features_of

        encoder, features = features_of(where, config, recorded, training, settings, None if request.new_encoder else before, progress)
    examples = gather(training, features)
    _check_pictures(examples, request)
    config = replace(config, checks=checks_of(request.checks, names, examples))
    head = fit(config, examples, recorded.spec.observation.units, settings, progress)
    model, best, ends = choose_threshold(RewardModel(config, head | encoder), kept_out, features)
    against = _against(where, before, model, _encoder_name(encoder), kept_out, features)
    if refuse_worse and against is not None and against.worse:
        raise WorseReward(against.said())
    manifest = write_reward(
        where.path,
        model,
        parent=before.version if before is not None else 0,
        settings=asdict(settings),
        robot_id=request.robot_id,
        task_id=request.task_id,
        observation_names=names,
        snapshot=recorded.snapshot,
        label_log_bytes=recorded.label_log_bytes,
        data=_counts(recorded, training, kept_out, examples),
        metrics=_metrics(best),
        ends=ends,
        trained_on=[episode.episode_id for episode in training],
        held_out=[episode.episode_id for episode in kept_out],
        encoder=_encoder_name(encoder),
        against=against,
    )
    return manifest, recorded.problems


def _against(
    where: Workspace,
    before: RewardManifest | None,
    model: RewardModel,
    encoder: str,
    kept_out: list[RewardEpisode],
    features: dict[str, Tensor] | None,
) -> Comparison | None:
    """None where the version before, if any, was trained on other observations or looks through another encoder."""
    if before is None or before.config["observation_size"] != model.config.observation_size:
        return None
    old, _ = load_reward(where.path, before.version)
    if old.config.cameras and (old.config.cameras, before.encoder) != (model.config.cameras, encoder):
        return None
    return compare(before.version, verdicts(old, kept_out, features), verdicts(model, kept_out, features))


def _config(request: RewardRequest, names: Sequence[str]) -> RewardConfig:
    if unknown := sorted(set(request.without) - set(names)):
        raise RewardError(f"no observation {', '.join(unknown)} to leave out; there are {', '.join(names)}")
    inputs = tuple(i for i, name in enumerate(names) if request.state and name not in request.without)
    if not inputs and not request.cameras:
        raise RewardError("nothing is left to see success by: give cameras, or leave fewer observations out")
    settings = request.settings
    return RewardConfig(
        observation_size=len(names),
        inputs=inputs,
        cameras=tuple(request.cameras),
        hidden=settings.hidden,
        members=settings.members,
        features=settings.features,
        picture_size=settings.picture_size,
        threshold=0.85,
    )


def _check_pictures(examples: Examples, request: RewardRequest) -> None:
    settings = request.settings
    if examples.positives < settings.min_positives or examples.negatives < settings.min_negatives:
        raise RewardError(
            f"only {examples.positives} positive and {examples.negatives} negative steps have pictures of "
            f"{', '.join(request.cameras)}: {settings.min_positives} and {settings.min_negatives} are needed; record with policy cameras"
        )


def _counts(recorded: Recorded, training: list[RewardEpisode], kept_out: list[RewardEpisode], examples: Examples) -> dict[str, int]:
    return {
        "episodes": len(recorded.episodes),
        "positives": examples.positives,
        "negatives": examples.negatives,
        "hard_negatives": int((examples.hard & (examples.labels == 0)).sum()),
        "episodes_with_success": sum(episode.has_positive for episode in training),
        "held_out_episodes": len(kept_out),
        "held_out_with_success": sum(episode.has_positive for episode in kept_out),
        "vetoed_episodes": sum(bool(episode.judgement.claims) for episode in recorded.episodes),
        "vetoes": sum(episode.vetoes for episode in recorded.episodes),
        "unreadable": len(recorded.problems),
    }


def _metrics(best: Quality) -> dict[str, float]:
    return {key: float(value) for key, value in asdict(best).items()} | {"precision": best.precision, "recall": best.recall}


def _encoder_name(encoder: dict[str, Tensor]) -> str:
    if not encoder:
        return ""
    from takeover.policies.reward_pictures import encoder_name

    return encoder_name(encoder)
