"""Whether a learner may go on from a checkpoint, and with which settings."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from takeover.data.schema import RobotSpec, RunConfig
from takeover.data.spaces import differences, spaces_of
from takeover.policies.base import Learner, LearnerError
from takeover.policies.same_settings import carried_on, differing

log = logging.getLogger("learner")


class OtherSettings(LearnerError):
    """A checkpoint was made by another learner, with other settings or for another robot; says which and what to do."""


def check_same_settings(folder: Path, state: Mapping[str, Any], learner: Learner, spec: RobotSpec) -> None:
    """Raises `OtherSettings` when ``state``, a checkpoint in ``folder``, is not one of this learner with these settings and this robot."""
    differ = differing(state["values"]["parameters"], learner.state()["values"]["parameters"])
    if state["values"]["learner"] != learner.name:
        differ.insert(0, f"the learner was {state['values']['learner']} and is {learner.name}")
    saved_robot = spaces_of(msgspec.convert(state["run"]["spec"], RobotSpec))
    differ += [f"the robot's {what} was {was} and is {now}" for what, was, now in differences(saved_robot, spaces_of(spec))]
    if differ:
        raise OtherSettings(
            f"{folder} holds what was learned with other settings: {'; '.join(differ)}. Set them back to go on, "
            f"or move that folder away to learn anew from the recorded episodes. The policies there are stay as they are"
        )


def kept_settings(config: RunConfig, state: Mapping[str, Any]) -> dict[str, Any]:
    """Settings beyond those of ``config`` with which its learner does what the version did that made ``state``, a checkpoint."""
    if state["values"]["learner"] != config.learner:
        return {}  # refused later, by name
    given = config.learner_parameters
    before = {name: value for name, value in state.get("kept", {}).items() if name not in given}
    kept = before | carried_on(config.learner, state["values"]["parameters"], given)
    if kept:
        log.warning("going on with settings of an earlier version: %s", ", ".join(f"{name} = {value}" for name, value in kept.items()))
    return kept
