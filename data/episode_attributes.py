"""Attributes of an episode file: what is said of the whole episode."""

import hashlib
import json
from typing import Any

import h5py
import msgspec
import numpy as np

from takeover.data.episode_schema import SCHEMA_VERSION, EpisodeRecords, is_held, is_human
from takeover.data.schema import EpisodeEnd, EpisodeStart


def sha256_of(value: Any) -> str:
    """Hash of a struct's JSON."""
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def environment_args(start: EpisodeStart) -> str:
    """robomimic's ``env_args``; ``type`` 2 is a gym-style environment."""
    kwargs = {"robot": start.spec.robot_id, "parameters": start.parameters}
    return json.dumps({"env_name": start.spec.task_id, "type": 2, "env_kwargs": kwargs})


def put_attributes(root: h5py.File, demo: h5py.Group, episode: EpisodeRecords, end: EpisodeEnd, samples: int) -> None:
    """Write what is said of the whole episode; docs/episode-schema.md has the list."""
    start = episode.start
    action = start.spec.action
    root["data"].attrs["total"] = samples
    root["data"].attrs["env_args"] = environment_args(start)
    numbers = sorted(episode.rec_seqs())
    attributes: dict[str, Any] = {
        "num_samples": samples,
        "schema_version": SCHEMA_VERSION,
        "episode_id": start.episode_id,
        "session_id": start.session,
        "station_id": start.station_id,
        "robot_id": start.spec.robot_id,
        "task_id": start.spec.task_id,
        "task_prompt": start.spec.prompt,
        "kind": start.kind.value,
        "operator": start.operator,
        "consent_version": start.consent_version,
        "unattended": start.unattended,
        "policy_version": start.policy_version,
        "policy_sha256": start.policy_sha256,
        "learner_round": start.policy_version,
        "outcome": end.outcome.value,
        "outcome_source": end.outcome_source.value,
        "outcome_step": end.event_step,
        "control_hz": start.spec.control_hz,
        "camera_config_hash": sha256_of(start.spec.cameras),
        "action_groups": json.dumps([[group.name, group.start, group.stop] for group in action.groups]),
        "action_space": action.kind,
        "action_frame": action.frame,
        "action_scale": np.array(action.scale, np.float64),
        "config_sha256": start.config_sha256,
        "wall_minus_monotonic_ns": start.wall_ns - start.t_ns,
        "wall_minus_monotonic_end_ns": end.wall_ns - end.t_ns,
        "recovered": episode.recovered,
        "history": json.dumps(episode.history, ensure_ascii=False),
        "human_steps": sum(is_human(step) for step in episode.steps if not is_held(step)),
        "software": start.software,
        "held_steps": sum(is_held(step) for step in episode.steps),
        "first_rec_seq": numbers[0],
        "last_rec_seq": numbers[-1],
        "start": msgspec.json.encode(start).decode(),
        "end": msgspec.json.encode(end).decode(),
    }
    for name, value in attributes.items():
        demo.attrs[name] = value
