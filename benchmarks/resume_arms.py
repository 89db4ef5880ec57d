"""What `benchmarks.resume` kills a learner under: settings and a stream per arm, and what shows that the arm is about what it says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.resume_run import LABELER, Run
from benchmarks.resume_streams import CAMERAS, Record, changing, for_labels, kept_pictures, rough, tool_spec
from takeover.data.labels import Labels
from takeover.data.schema import EpisodeKind, OutcomeChange
from tests.policies.conftest import Script, make_spec
from tests.policies.test_learner_process import FAST, demonstrations, episode

Parts = list[list[Record]]
Seen = list[tuple[int, str]]  # how often, and what; each must have happened
STEPS = 30  # of an episode
PARTS = 4  # between which labels are given

IMITATION = {"updates_per_step": 1, "clone_updates": 60, "learning_starts": 5, "hidden": 16, "batch": 32}
PICTURES = {
    **{"observations": "pictures", "camera_features": 8, "crops": 3, "encoder_updates": 15, "encoder_batch": 8, "hidden": 16, "batch": 8},
    **{"clone_updates": 20, "critic_warmup": 5, "learning_starts": 5, "actor_delay": 40, "updates_per_step": 0.5},
}
TRAINED = PICTURES | {"encoder": "trained", "updates_per_step": 0.2, "actor_delay": 15, "picture_bytes": 12_000_000}


@dataclass(frozen=True)
class Arm:
    """A learner with settings, and the stream it learns from while it is killed."""

    about: str
    learner: str
    settings: dict[str, Any]
    stream: Callable[[int], Parts]
    """From the number of kills."""
    seen: Callable[[Run, Any], Seen]
    """From the run that was killed and the learner as it goes on from its last checkpoint."""
    config: Mapping[str, Any] = field(default_factory=dict)
    warm: int = 0
    """Records of the first part that are learned from before the first kill."""
    cloning: int = 0
    """Kills while it clones, before it has learned anything."""


def _few(kills: int) -> int:
    """Episodes enough for so many kills."""
    return 2 + kills * 2 // 3


def _plain(kills: int) -> Parts:
    script, rng = Script(make_spec()), np.random.default_rng(7)
    return [demonstrations(script) + [record for _ in range(_few(kills)) for record in episode(script, rng, STEPS)][:-1]]


def _policy_episodes(run: Run) -> int:
    return sum(_is_start(record) and record.kind == EpisodeKind.POLICY for part in run.parts for record in part)


def _is_start(record: Record) -> bool:
    return type(record).__name__ == "EpisodeStart"


def _learned(run: Run, learner: Any) -> Seen:
    return [(learner.train_steps, "steps"), (learner.human_steps, "of them a person's")]


def _rlif(run: Run, learner: Any) -> Seen:
    replay, delay = learner.replay, learner.parameters.actor_delay
    rewards = replay.online.rows[: replay.online.size, replay.columns.reward]
    waited = sum(0 <= updates < delay for updates in run.went_on_from)
    return [
        (replay.train_steps - replay.online.size, "steps dropped by the ring"),
        (int((rewards <= -0.9).sum()), "steps before takeovers punished"),
        (replay._marks.marked, "steps drawn less often"),
        (int(replay._packing.relative), "relative frames"),
        (len(learner._progress.tensors()), "tensors of steps to go"),
        (waited, f"kills while the actor waited (for {delay} updates)"),
        (sum(updates >= delay for updates in run.went_on_from), "after it"),
    ]


def _resets(run: Run, learner: Any) -> Seen:
    return [(learner.extra_updates, "updates while the robot was reset")]


def _residual(run: Run, learner: Any) -> Seen:
    base = 0 if learner._base is None else int((learner._base != 0.0).sum())
    return [(base, "weights of the frozen actor"), (learner.train_steps, "steps")]


def _memory(run: Run, learner: Any) -> Seen:
    held = sum(stored.kind == EpisodeKind.POLICY for stored in learner._episodes.values())
    return [(_policy_episodes(run) - held, f"of {_policy_episodes(run)} episodes let go of, {learner.parameters.memory} first")]


def _labels(run: Run, learner: Any) -> Seen:
    given = Labels(run.workspace, run.station.recorder.catalog).events_since(0, LABELER)
    changes = [record for part in run.parts for record in part if isinstance(record, OutcomeChange)]
    left_out = learner.replay._labelled.places_out() if hasattr(learner, "replay") else []
    return [
        (sum(event.value not in ("", "false") for event in given), "labels given"),
        (sum(event.value in ("", "false") for event in given), "taken back"),
        (len(run.label_uses()), "noted with the update that used them first"),
        (len(changes), "outcomes changed after the episode"),
        *([(len(left_out), "steps kept out at the end")] if hasattr(learner, "replay") else []),
    ]


def _frozen(run: Run, learner: Any) -> Seen:
    rows = learner.replay.demonstrations.size + learner.replay.online.size
    return [
        (int(learner.frozen), "encoder cloned"),
        (rows * len(CAMERAS) * learner.parameters.crops, "crops encoded for what the replay holds"),
        (learner.train_steps, "steps with pictures"),
        (run.encoding, "kills while what was kept is encoded"),
    ]


def _trained(run: Run, learner: Any) -> Seen:
    learned = int((learner._encoder != learner._cloned_encoder).sum())
    gone = learner.train_steps - learner.replay.online.size
    return [
        (learned, "weights of the encoder moved since cloning"),
        (learner.picture_bytes // 1000, "kB of pictures held"),
        (gone, "steps gone with their pictures"),
        (run.encoding, "kills while what was kept is taken over"),
    ]


def give_labels(run: Run, stop: int) -> None:
    """After part ``stop``: exclude an episode, trim, exclude a correction and date an onset in another; before that, take back what was
    given at the stop before."""
    labels = Labels(run.workspace, run.station.recorder.catalog)
    if stop:
        earlier = for_labels(run.parts[stop - 1])[-2]
        labels.undo(LABELER)
        labels.undo(LABELER)
        labels.add_label(earlier, "exclude", False, LABELER)
    first, second = for_labels(run.parts[stop])[-2:]
    labels.add_label(first, "exclude", True, LABELER)
    labels.add_label(f"{second}:t0", "exclude", True, LABELER)
    labels.add_label(f"{second}:t1", "quality", "bad", LABELER)
    labels.add_label(second, "trim", "2-26", LABELER)


_CHANGING = {"config": {"demonstrations": 3}, "stream": lambda _: changing(PARTS)}
_SEEING = {"config": {"policy_cameras": CAMERAS, "checkpoint_every_updates": 3, "publish_every_updates": 10}, "cloning": 3}

ARMS: dict[str, Arm] = {
    "plain": Arm("hil-serl as it ships, small", "hil-serl", FAST, _plain, _learned),
    "sirius": Arm("sirius as it ships, small", "sirius", IMITATION, _plain, _learned),
    "rlif": Arm(
        "RLIF, relative frames, steps to go, REDQ, a kept warm start whose phases change, a ring that is full",
        "hil-serl",
        FAST
        | {"takeover_reward": -1.0, "pre_takeover_weight": 0.3, "pre_takeover_s": 0.25, "relative_pose": True, "ee_frame": True}
        | {"progress_reward": 0.5, "ensemble": 4, "target_subset": 2, "replay_capacity": 1000, "updates_per_step": 0.5, "actor_delay": 600},
        lambda kills: [rough(tool_spec(), 6, 18 + _few(kills) // 2, 60)],
        _rlif,
        {"demonstrations": 6},
        warm=1250,
    ),
    "resets": Arm("extra updates while the robot is reset", "hil-serl", FAST | {"reset_updates": 9}, _plain, _resets),
    "residual": Arm(
        "a residual on a frozen clone",
        "hil-serl",
        FAST | {"residual_scale": 0.3},
        lambda kills: [rough(make_spec(gripper=True), 2, _few(kills), STEPS)],
        _residual,
    ),
    "iwr-memory": Arm(
        "iwr with a small memory and a history",
        "iwr",
        IMITATION | {"memory_steps": 150, "memory": "lfi", "history": 3},
        lambda kills: [rough(make_spec(gripper=True), 2, _few(kills), STEPS)],
        _memory,
    ),
    "hg-dagger-memory": Arm(
        "hg-dagger with a small memory, modes and averaged weights",
        "hg-dagger",
        IMITATION | {"memory_steps": 150, "memory": "mfi", "modes": 3, "average_horizon": 50},
        lambda kills: [rough(make_spec(), 2, _few(kills), STEPS)],
        _memory,
    ),
    "labels": Arm("hil-serl, labels and outcomes that come and are taken back", "hil-serl", FAST, seen=_labels, **_CHANGING),
    "labels-sirius": Arm("sirius, the same", "sirius", IMITATION, seen=_labels, **_CHANGING),
    "pictures": Arm(
        "two cameras through a frozen encoder", "hil-serl", PICTURES, lambda kills: [kept_pictures(_few(kills), STEPS)], _frozen, **_SEEING
    ),
    "pictures-trained": Arm(
        "two cameras, the encoder goes on learning, pictures bounded",
        "hil-serl",
        TRAINED,
        lambda kills: [kept_pictures(_few(kills), STEPS)],
        _trained,
        **_SEEING,
    ),
    "pictures-jpeg": Arm(
        "the same with JPEGs, decoded ahead",
        "hil-serl",
        TRAINED | {"picture_store": "jpeg", "picture_bytes": 1_000_000},
        lambda kills: [kept_pictures(_few(kills), STEPS)],
        _trained,
        **_SEEING,
    ),
}
