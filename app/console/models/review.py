"""What Review shows of an episode: pure functions and frozen snapshots, no Qt, no files.

Time on the page is step / control_hz: held steps are not among an episode's N steps, so a hold is a break in the curves, not a gap.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from takeover.data.schema import ControlMode, RobotSpec, SafetyBit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEAD_S = 2.0  # playback starts this long before the onset


def minus(text: str) -> str:
    """With a true minus, as everywhere on screen; nothing is "−0"."""
    return text.replace("-", "−") if any(digit in text for digit in "123456789") else text.lstrip("-")


@dataclass(frozen=True)
class Span:
    """Steps ``start`` to ``stop`` (exclusive) driven by one; ``driver``: policy, human or ramp."""

    start: int
    stop: int
    driver: str


def versions_text(versions: IntArray) -> str:
    """``v3``, ``v3–v5`` or, where no answer came in time in any step, ``no answer``. Version 0 is a missing answer."""
    known = versions[versions > 0]
    if not len(known):
        return "no answer"
    return f"v{known[0]}" if known[0] == known[-1] else f"v{known[0]}–v{known[-1]}"


def driver_spans(control_mode: IntArray) -> list[Span]:
    """Unbroken stretches of who drove, from (N,) control modes."""
    names = {ControlMode.POLICY: "policy", ControlMode.HUMAN: "human", ControlMode.TRANSITION: "ramp"}
    spans: list[Span] = []
    for step, mode in enumerate(control_mode.tolist()):
        driver = names.get(ControlMode(mode), "")
        if spans and spans[-1].driver == driver and spans[-1].stop == step:
            spans[-1] = Span(spans[-1].start, step + 1, driver)
        else:
            spans.append(Span(step, step + 1, driver))
    return [span for span in spans if span.driver]


@dataclass(frozen=True)
class Flag:
    step: int
    icon: str
    text: str


@dataclass(frozen=True)
class Signal:
    """A curve of the timeline: (N,) values, NaN where missing, on the axis ``low`` to ``high``."""

    name: str
    unit: str
    values: FloatArray
    low: float
    high: float

    def text(self, step: int) -> str:
        value = self.values[step]
        if not np.isfinite(value):
            return "–"
        digits = 0 if self.high - self.low >= 100 else 1 if self.high - self.low >= 5 else 2
        return minus(f"{value:.{digits}f}")


@dataclass(frozen=True)
class Timeline:
    """One episode, ready to paint. Actions are canonical, [-1, 1], (N, A), NaN where absent."""

    episode_id: str
    control_hz: float
    control_mode: IntArray  # (N,)
    run_id: IntArray  # (N,)
    policy_version: IntArray  # (N,)
    safety_bits: IntArray  # (N,)
    action_names: list[str]
    policy_action: FloatArray
    human_action: FloatArray
    applied_action: FloatArray
    signals: list[Signal]
    flags: list[Flag]
    spans: list[Span]
    outcome: str
    operator: str

    @property
    def steps(self) -> int:
        return len(self.control_mode)

    def breaks(self) -> list[int]:
        """Steps at which a new run begins (a hold or gap lies before them): curves are not joined there."""
        return (np.flatnonzero(np.diff(self.run_id)) + 1).tolist()


def nice_axis(values: FloatArray, least: float, zero: bool) -> tuple[float, float]:
    """Axis ends at two significant digits, at least ``least`` apart; from zero if asked."""
    finite = values[np.isfinite(values)]
    low = 0.0 if zero or not finite.size else float(finite.min())
    high = float(finite.max()) if finite.size else least
    if high - low < least:
        centre = (high + low) / 2
        low, high = (0.0, least) if zero else (centre - least / 2, centre + least / 2)
    step = 10.0 ** np.floor(np.log10(high - low)) / 2
    return float(np.floor(low / step + 1e-9) * step) + 0.0, float(np.ceil(high / step - 1e-9) * step) + 0.0  # -0.0 is 0.0


def disagreement_mm(spec: RobotSpec, policy_action: FloatArray, applied: FloatArray) -> FloatArray:
    """(N,) distance in mm between what the policy asked for and what was applied, over the metre-valued action entries."""
    metres = [index for index, unit in enumerate(spec.action.units) if unit == "m"]
    scale = np.array([spec.action.scale[index] for index in metres])
    return np.asarray(1000.0 * np.linalg.norm((policy_action[:, metres] - applied[:, metres]) * scale, axis=1), float)


def build_signals(
    spec: RobotSpec, observation: FloatArray, policy_action: FloatArray, applied: FloatArray, scores: dict[str, FloatArray]
) -> list[Signal]:
    """At most four curves: detector scores first, then gripper width, height, contact force, and disagreement with the policy."""
    made: list[Signal] = []
    for name, title, least in (("steps_to_go", "Steps to go", 10.0), ("confidence", "Confidence", 1.0)):
        if name in scores:
            made.append(Signal(title, "", scores[name], *nice_axis(scores[name], least, True)))
    named = {name.lower(): index for index, name in enumerate(spec.observation.names)}
    units = spec.observation.units

    def column(part: str) -> tuple[FloatArray, str] | None:
        for name, index in named.items():
            if part in name:
                return observation[:, index], units[index] if index < len(units) else ""
        return None

    gripper = column("gripper_width") if spec.action.gripper != "none" else None
    if gripper is not None:
        values = gripper[0] * 1000.0 if gripper[1] == "m" else gripper[0]
        made.append(Signal("Gripper", "mm" if gripper[1] == "m" else gripper[1], values, *nice_axis(values, 10.0, True)))
    height = column("tool_z")
    if height is not None and height[1] == "m" and len(made) < 3:
        values = height[0] * 1000.0
        made.append(Signal("Height", "mm from start", values, *nice_axis(values, 20.0, False)))
    force = [index for name, index in named.items() if "force" in name and index < len(units) and units[index] == "N"]
    if force:
        values = np.linalg.norm(observation[:, force], axis=1)
        made.append(Signal("Force", "N", values, *nice_axis(values, 5.0, True)))
    apart = disagreement_mm(spec, policy_action, applied)
    if np.isfinite(apart).any():
        made.append(Signal("Disagreement", "mm", apart, *nice_axis(apart, 5.0, True)))
    return made[:4]


def clipped_text(bits: int) -> str:
    """What the safety filter changed, in words; empty: nothing."""
    return ", ".join(str(bit.name).lower().replace("_", " ") for bit in SafetyBit if bit and bits & bit)
