"""A scripted operator: watches the simulator's truth, takes over when the policy falters, corrects and gives back, as people do.

Pure logic: one `decide` per control step, no transport, no clock. What it draws at random is a function of (seed, kind and number of
the episode). Its parameters are written into every result; it is no person, and results that used it say so.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import numpy.typing as npt

from takeover.app.operators.outcome_keys import OutcomeKey
from takeover.app.operators.sight import Sight
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, Privileged
from takeover.data.seeding import stream

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OperatorParameters:
    """Steps are control steps (50 ms at 20 Hz). Raises `ValueError` naming the field and its range."""

    stall_steps: int = 16
    """Takes over after this many steps without progress."""
    progress_m: float = 0.0015
    """The path to go must shrink by this much to count as progress."""
    opposite_steps: int = 6
    """Takes over after this many steps of motion away from where an expert would go."""
    reaction_min_steps: int = 3
    reaction_max_steps: int = 6
    """From noticing to pressing the deadman."""
    correct_min_steps: int = 10
    correct_max_steps: int = 47
    """Length of a correction, unless it is held on."""
    hold_on_from_step: int = 60
    """A correction that lasts until here is held to the end: letting go too early completes nothing."""
    noise: float = 0.12
    """Standard deviation of the hand's slow wander, of full deflection; it fades where the expert moves little."""
    noise_memory: float = 0.85
    """How much of the wander remains from one step to the next."""
    tremor: float = 0.03
    """Standard deviation of independent noise per step, of full deflection."""
    speed: float = 1.0
    """Of the expert's deflection."""
    one_axis: int = 0
    """1: moves the arm along one axis at a time, as with a keyboard."""
    sight_only: int = 0
    """1: sees observations, not the simulator's truth; judges and steers by rules of its own (`operators.sight`)."""
    sight_delay_steps: int = 0
    """How old the observation is that it sees."""
    sight_noise_m: float = 0.0
    """Standard deviation of the slow error of its eye, on top of the noise that the policy sees too."""
    keys: int = 0
    """1: judges each episode with the success and failure keys, for stations whose reward they are (`reward = "keys"`)."""
    key_min_steps: int = 6
    key_max_steps: int = 20
    """From success to its key; 0.3 to 1.0 s at 20 Hz."""
    key_wrong: float = 0.03
    """Share of episodes with the wrong key: failure for a success, or success where there is none."""
    seed_offset: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"operator parameter {name} = {value}: allowed is {low} to {high}")
        for low_name, high_name in (("reaction_min_steps", "reaction_max_steps"), ("correct_min_steps", "correct_max_steps"), _KEY_RANGE):
            if getattr(self, low_name) > getattr(self, high_name):
                raise ValueError(f"operator parameter {low_name} is above {high_name}")

    def as_dict(self) -> dict[str, float]:
        """For results and summaries."""
        return asdict(self)


_RANGES: dict[str, tuple[float, float]] = {
    "stall_steps": (2, 1000),
    "progress_m": (0.0, 0.1),
    "opposite_steps": (1, 1000),
    "reaction_min_steps": (0, 100),
    "reaction_max_steps": (0, 100),
    "correct_min_steps": (1, 1000),
    "correct_max_steps": (1, 1000),
    "hold_on_from_step": (0, 100_000),
    "noise": (0.0, 1.0),
    "noise_memory": (0.0, 0.999),
    "tremor": (0.0, 1.0),
    "speed": (0.1, 1.5),
    "one_axis": (0, 1),
    "sight_only": (0, 1),
    "sight_delay_steps": (0, 40),
    "sight_noise_m": (0.0, 0.02),
    "keys": (0, 1),
    "key_min_steps": (0, 200),
    "key_max_steps": (0, 200),
    "key_wrong": (0.0, 1.0),
    "seed_offset": (0, 1_000_000),
}
_KEY_RANGE = ("key_min_steps", "key_max_steps")
_BLIND_STEPS = (40, 90)  # when a wrong success key is pressed in an episode without success

STYLES: dict[str, OperatorParameters] = {
    "expert": OperatorParameters(),
    "slow": OperatorParameters(reaction_min_steps=8, reaction_max_steps=16, speed=0.6),
    "sloppy": OperatorParameters(noise=0.5, tremor=0.15),
    "other-style": OperatorParameters(one_axis=1, speed=1.4, correct_min_steps=25, correct_max_steps=70),
    "lenient": OperatorParameters(stall_steps=32, opposite_steps=14),
    "limited": OperatorParameters(sight_only=1, sight_delay_steps=3, sight_noise_m=0.0005),
}
"""The operators of every comparison; docs/learning.md has the table."""


def operator_parameters(values: Mapping[str, float | str]) -> OperatorParameters:
    """Parameters of ``values["style"]`` (default expert) with the other values put in. Raises `ValueError` with what is known."""
    style = str(values.get("style", "expert"))
    if style not in STYLES:
        raise ValueError(f"unknown operator style {style!r}; known: {', '.join(STYLES)}")
    kinds = {entry.name: entry.type for entry in fields(OperatorParameters)}
    changes: dict[str, float | int] = {}
    for name, value in values.items():
        if name == "style":
            continue
        if name not in kinds:
            raise ValueError(f"unknown operator parameter {name!r}; known: style, {', '.join(kinds)}")
        number = float(value)
        changes[name] = round(number) if kinds[name] is int else number
    return replace(STYLES[style], **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OperatorDecision:
    """``action`` (A,) canonical, zeros while the deadman is up; ``resume``: presses the resume key; ``reason``: why it drives.

    ``outcome``: presses the key that ends the episode so.
    """

    deadman: bool
    action: list[float]
    resume: bool = False
    reason: str = ""
    outcome: Outcome | None = None


@dataclass
class _Memory:
    """What the operator remembers within one episode. Steps are episode steps; -1: none."""

    correcting: bool = False
    watch_from: int = -1  # step of the latest progress; -1: look afresh
    best: float = float("inf")  # shortest path to go seen, m
    opposite: int = 0
    press_at: int = -1
    release_at: int = -1
    taken_at: int = -1
    distance_taken: float = 0.0
    reason: str = ""
    held: int = 0  # steps of the present hold
    wander: FloatArray = field(default_factory=lambda: np.zeros(4))


class ScriptedOperator:
    """Call `decide` once per control step. Raises `ValueError` for unknown or out-of-range parameters."""

    def __init__(self, parameters: OperatorParameters | Mapping[str, float | str], seed: int) -> None:
        self.parameters = parameters if isinstance(parameters, OperatorParameters) else operator_parameters(parameters)
        self._seed = seed
        self._episode: tuple[EpisodeKind | None, int, str] | None = None
        self._random = stream(seed, "operator")
        self._memory = _Memory()
        self._key = self._draw_key("none", 0)
        self._eye = stream(seed, "sight")
        self._sight = Sight(self.parameters.sight_delay_steps, self.parameters.sight_noise_m)

    def decide(self, privileged: Privileged) -> OperatorDecision:
        """What the operator does at this step."""
        episode = (privileged.episode_kind, privileged.episode_number, privileged.episode_id)
        if episode != self._episode:
            self._episode = episode
            role = f"operator-{privileged.episode_kind or 'none'}"
            self._random = stream(self._seed + self.parameters.seed_offset, role, max(0, privileged.episode_number))  # -1 between episodes
            self._memory = _Memory()
            self._key = self._draw_key(role, max(0, privileged.episode_number))
            self._eye = stream(self._seed + self.parameters.seed_offset, f"sight-{role}", max(0, privileged.episode_number))
            self._sight.begin_episode()
        idle = OperatorDecision(False, [0.0] * len(privileged.expert_action))
        if not privileged.expert_action or privileged.mode in (Mode.OFFLINE, Mode.STOPPED, Mode.RESETTING):
            return idle
        if privileged.mode == Mode.HOLD and privileged.hold_reason == HoldReason.OPERATOR:
            return idle  # a person wants it held, and ends that
        if self.parameters.keys and privileged.mode != Mode.HOLD:
            pressed = self._judge(privileged)
            if pressed is not None or (self._key.done and privileged.episode_kind != EpisodeKind.DEMONSTRATION):
                return replace(idle, outcome=pressed)
        if self.parameters.sight_only and privileged.episode_kind in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY):
            privileged = self._sight.see(privileged, self._eye)
        if privileged.episode_kind == EpisodeKind.DEMONSTRATION:
            return self._demonstrate(privileged, idle)
        if privileged.episode_kind != EpisodeKind.POLICY or privileged.mode == Mode.READY:
            return idle
        if privileged.mode == Mode.HOLD:
            return replace(idle, resume=self._resumes())
        self._memory.held = 0
        return self._supervise(privileged, idle)

    # --- outcome keys ---

    def _draw_key(self, role: str, number: int) -> OutcomeKey:
        p = self.parameters
        rng = stream(self._seed + p.seed_offset, f"keys-{role}", number)
        return OutcomeKey.draw(rng, p.key_min_steps, p.key_max_steps, p.key_wrong, *_BLIND_STEPS)

    def _judge(self, privileged: Privileged) -> Outcome | None:
        """In episodes that run. Raises `ValueError` where the task does not say what success is."""
        if privileged.episode_kind not in (EpisodeKind.DEMONSTRATION, EpisodeKind.POLICY) or privileged.mode == Mode.READY:
            return None
        if "success" not in privileged.values:
            raise ValueError("the scripted operator's keys need privileged 'success'; this robot's task gives none")
        return self._key.see(privileged.episode_step, privileged.values["success"][0] > 0.5)

    # --- demonstrations ---

    def _demonstrate(self, privileged: Privileged, idle: OperatorDecision) -> OperatorDecision:
        """All of it by hand. In a hold the deadman is let go for one step in ten, so that the next press is a fresh one and lasts
        longer than the news of the hold takes to end."""
        memory = self._memory
        memory.held = memory.held + 1 if privileged.mode == Mode.HOLD else 0
        if memory.held % 10 == 1:
            return idle
        return OperatorDecision(True, self._hand(privileged.expert_action), reason="demonstration")

    # --- supervision ---

    def _resumes(self) -> bool:
        """Lets go first, presses at the second held step, and again every half second while that did not help."""
        memory = self._memory
        memory.watch_from, memory.held = -1, memory.held + 1
        return memory.held % 10 == 2

    def _supervise(self, privileged: Privileged, idle: OperatorDecision) -> OperatorDecision:
        memory = self._memory
        step, distance = privileged.episode_step, _path_to_go(privileged)
        if memory.correcting:
            if self._done_correcting(step, distance):
                memory.correcting = False
                memory.watch_from = -1
                return idle
            return OperatorDecision(True, self._hand(privileged.expert_action), reason=memory.reason)
        reason = self._falters(privileged, step, distance)
        if reason and memory.press_at < 0:
            low, high = self.parameters.reaction_min_steps, self.parameters.reaction_max_steps
            memory.press_at = step + int(self._random.integers(low, high + 1))
            memory.reason = reason
        if memory.press_at < 0 or step < memory.press_at:
            return idle
        self._take(step, distance)
        return OperatorDecision(True, self._hand(privileged.expert_action), reason=memory.reason)

    def _falters(self, privileged: Privileged, step: int, distance: float) -> str:
        """ "stall", "opposite" or "": what an onlooker would object to."""
        memory = self._memory
        if memory.watch_from < 0 or distance < memory.best - self.parameters.progress_m:
            memory.best, memory.watch_from = distance, step
        velocity, wanted = np.array(privileged.tool_velocity), np.array(privileged.expert_action[:3])
        speeds = float(np.linalg.norm(velocity)) * float(np.linalg.norm(wanted))
        away = float(velocity @ wanted) < -0.2 * speeds and float(np.linalg.norm(velocity)) > _MOVING_M_S
        memory.opposite = memory.opposite + 1 if away else max(0, memory.opposite - 1)
        if memory.opposite >= self.parameters.opposite_steps:
            return "opposite"
        return "stall" if step - memory.watch_from >= self.parameters.stall_steps else ""

    def _take(self, step: int, distance: float) -> None:
        memory = self._memory
        memory.correcting = True
        memory.press_at, memory.opposite = -1, 0
        low, high = self.parameters.correct_min_steps, self.parameters.correct_max_steps
        memory.release_at = step + int(self._random.integers(low, high + 1))
        memory.taken_at, memory.distance_taken = step, distance
        memory.wander = np.zeros_like(memory.wander)

    def _done_correcting(self, step: int, distance: float) -> bool:
        """Time is up, and it has led somewhere: half of the way that was left."""
        memory = self._memory
        if step >= self.parameters.hold_on_from_step or step < memory.release_at:
            return False
        return distance < 0.5 * memory.distance_taken or step - memory.taken_at >= self.parameters.correct_max_steps

    def _hand(self, wanted: list[float]) -> list[float]:
        """The expert's action as a hand would give it: slow wander and tremor on the arm, the gripper as meant."""
        memory = self._memory
        parameters = self.parameters
        arm = np.array(wanted[:4])
        if parameters.one_axis:
            arm[np.arange(4) != np.abs(arm).argmax()] = 0.0
        fresh = np.sqrt(1.0 - parameters.noise_memory**2) * self._random.standard_normal(4)
        memory.wander = parameters.noise_memory * memory.wander + fresh
        effort = 0.25 + 0.75 * min(1.0, float(np.linalg.norm(arm[:3])))
        arm = parameters.speed * arm + effort * (parameters.noise * memory.wander + parameters.tremor * self._random.standard_normal(4))
        return [*np.clip(arm, -1.0, 1.0).tolist(), *wanted[4:]]


_MOVING_M_S = 0.01


def _path_to_go(privileged: Privileged) -> float:
    """Metres, from the task's truth. Raises `ValueError` where a task gives none: there is nothing to judge progress by."""
    try:
        return float(privileged.values["distance"][0])
    except (KeyError, IndexError):
        raise ValueError("the scripted operator needs privileged 'distance' (path to go, m); this robot's task gives none") from None
