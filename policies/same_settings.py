"""Whether a saved state can go on with the settings of now: one comparison for every learner, and what versions before a setting did."""

from collections.abc import Mapping
from typing import Any

HOW = frozenset({"device", "written_gradients", "compile", "bf16", "keep_versions", "keep_every", "picture_bytes"})
"""How it is computed, and what of it stays on disk, not what is learned: may differ."""
STRETCHES = frozenset({"horizon"})
"""Changes other settings when a learner is made; those are what is saved and compared."""

BEFORE_HIL_SERL: dict[str, Any] = {
    "actor_average": 1.0,
    "clone_weight_decay": 0.0,
    "keep_warm_start": False,
    "actor_delay": 0,
    "anchor_weight": 0.0,
    "anchor_decay": 0.999,
    "kept_average": 0.005,
    "both_buffers": True,
    "takeover_reward": 0.0,
    "task_reward": True,
    "pre_takeover_weight": 1.0,
    "pre_takeover_s": 0.75,
    "residual_scale": 0.0,
    "progress_reward": 0.0,
    "relative_pose": False,
    "ee_frame": False,
    "observations": "state",
    "camera_features": 64,
    "crops": 4,
    "encoder_updates": 1000,
    "encoder_batch": 64,
    "encoder_learning_rate": 1e-3,
    "encoder_weight_decay": 0.1,
    "encoder": "frozen",
    "encoder_critic_rate": 1e-4,
    "picture_store": "raw",
    "horizon": 100,
    "bc_help": 0.0,
    "target_subset": 0,
    "reset_updates": 0,
}
BEFORE_IMITATION: dict[str, Any] = {"memory_steps": 0, "memory": "lfi", "average_horizon": 0, "policy_examples": "all", "reset_updates": 0}
BEFORE = BEFORE_HIL_SERL | BEFORE_IMITATION
"""What a version without this setting did, which is not always today's default. A new setting needs a line here."""
SAME_AS = {"gripper_bc_weight": "bc_weight", "gripper_bc_decay": "bc_decay"}
"""Before it was one of its own it was that other one."""
OLD_DEFAULTS: dict[str, Any] = {"keep_warm_start": False, "actor_delay": 1500, "anchor_decay": 0.9995}
"""Defaults of versions that did not have ``horizon``, where today's are others."""


def _before(name: str, saved: Mapping[str, Any]) -> Any:
    """Raises `KeyError` for a setting that is in no table."""
    return saved[SAME_AS[name]] if name in SAME_AS else BEFORE[name]


def carried_on(learner: str, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``learner`` needs beyond the settings that are ``given`` to go on as the version did that ``saved`` its own.

    Empty for a state of this version.
    """
    if learner != "hil-serl":
        return {name: value for name, value in BEFORE_IMITATION.items() if name not in saved and name not in given}
    lacks = [*BEFORE_HIL_SERL, *(name for name, other in SAME_AS.items() if other in saved)]
    needs = {name: _before(name, saved) for name in lacks if name not in saved}
    if "horizon" not in saved:
        needs |= {name: value for name, value in OLD_DEFAULTS.items() if saved.get(name) == value}
    return {name: value for name, value in needs.items() if name not in given}


def differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Why a state saved with the settings ``saved`` cannot go on with ``now``, setting by setting; empty when it can."""
    found = []
    for name in sorted((saved.keys() | now.keys()) - HOW - STRETCHES):
        if name not in now:
            found.append(f"{name} was {saved[name]} and is no setting of this version")
            continue
        try:
            was = saved[name] if name in saved else _before(name, saved)
        except KeyError:
            was = "unknown"
        if was != now[name]:
            found.append(f"{name} was {was} and is {now[name]}")
    return found
