"""Whatever a station's limit changes is in the record: what was asked, what was applied, and why. Real bridge, one limit at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from takeover.data.schema import EpisodeKind, Mode, SafetyBit, SafetyLimits, SpeedScale, Step

from .station import eventually, station

PEG, PICK = "peg-insert", "pick-lift"


@pytest.mark.parametrize(
    ("bit", "task", "limits", "action"),
    [
        (SafetyBit.TRANSLATION, PEG, {"max_step_m": 0.001}, [0.0, 1.0, 0.0, 0.0]),
        (SafetyBit.SPEED, PEG, {"max_speed_m_s": 0.02}, [0.0, 1.0, 0.0, 0.0]),
        (SafetyBit.ACCELERATION, PEG, {"max_acceleration_m_s2": 0.1}, [0.0, 1.0, 0.0, 0.0]),
        (SafetyBit.ROTATION, PEG, {"max_step_rad": 0.005}, [0.0, 0.0, 0.0, 1.0]),
        (SafetyBit.WORKSPACE, PEG, {"workspace_low": [-0.05, -0.05, 0.0], "workspace_high": [0.05, 0.05, 0.5]}, [0.0, 1.0, 0.0, 0.0]),
        (SafetyBit.FORCE, PEG, {"max_force_n": 2.0, "force_debounce_steps": 1}, [0.0, 0.0, -1.0, 0.0]),
        (SafetyBit.JOINT_LIMIT, PEG, {"joint_margin_rad": 0.5}, [-1.0, 0.0, 0.0, 0.0]),
        (SafetyBit.SLOW_MODE, PEG, {"slow_speed_m_s": 0.01}, [0.0, 1.0, 0.0, 0.0]),
        (SafetyBit.GRIPPER, PICK, {"max_gripper_force_n": 5.0}, []),  # nothing: what the expert does
    ],
    ids=lambda value: value.name if isinstance(value, SafetyBit) else "",
)
def test_it_is_recorded(tmp_path: Path, bit: SafetyBit, task: str, limits: dict[str, Any], action: list[float]) -> None:
    with station(tmp_path, task=task, limits=SafetyLimits(**limits)) as made:
        recorder, operator = made.recorder(), made.operator()
        assert operator.take_lease().error == ""
        if bit is SafetyBit.SLOW_MODE:
            assert operator.ask(SpeedScale(sender="console", scale=0.5)).error == ""
        made.start(operator, EpisodeKind.DEMONSTRATION)
        made.until(lambda s: s.mode is Mode.READY and s.episode_kind is EpisodeKind.DEMONSTRATION)
        made.drive(operator, action or [0.0] * operator.spec.action.size)

        def changed() -> list[Step]:
            if operator.state is not None and operator.state.mode is Mode.HOLD:  # a busy machine holds
                made.drive(operator, action or [0.0] * operator.spec.action.size)
            if not action:
                operator.action = list(made.robot.advice().expert_action)
            return [step for step in list(recorder.steps) if step.safety_bits & bit]

        assert eventually(lambda: len(changed()) >= 3, 40.0), "the limit was never reached"
        for step in recorder.steps:
            difference = float(np.max(np.abs(np.subtract(step.asked_action, step.action))))
            assert step.safety_bits or difference < 1e-3, "nothing is changed in silence"
        for step in changed():
            assert step.asked_action != step.action
        assert any(step.asked_action == step.human_action for step in changed()), "asked is what was asked, not what was made of it"
        assert made.state().safety_counts[str(bit.name).lower()] >= 3
