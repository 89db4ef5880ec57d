"""What the console knows at one moment, frozen: the input of every presentation model. No Qt, no sockets."""

from dataclasses import dataclass, field

from takeover.app.inputs.base import DeviceReading
from takeover.data.schema import (
    ActorStatus,
    EpisodeKind,
    EvaluatorStatus,
    LearnerStatus,
    Mode,
    ProcessStatus,
    RobotSpec,
    State,
)

LINK_LOST_MS = 350.0  # without a state, of which 50 come a second: a person is told before 500, when receivers must take the link for lost
STOP_WAITS_S = 0.25  # without a confirmation, before it is said: on a link that works it takes some ms
PICTURE_OLD_MS = RECORDER_SILENT_MS = 500.0
STATUS_STALE_MS = 3000.0
SCRIPT = "operator"  # commander name of the scripted operator, which is no person


@dataclass(frozen=True)
class Snapshot:
    """Ages in ms at ``now_ns``; infinite when never heard."""

    now_ns: int = 0
    state: State | None = None
    state_age_ms: float = float("inf")
    spec: RobotSpec | None = None
    learner: LearnerStatus | None = None
    learner_age_ms: float = float("inf")
    actor: ActorStatus | None = None
    actor_age_ms: float = float("inf")
    evaluator: EvaluatorStatus | None = None
    processes: ProcessStatus | None = None
    reading: DeviceReading | None = None
    picture_age_ms: dict[str, float] = field(default_factory=dict)
    sender: str = ""
    holds_lease: bool = False
    round_trip_ms: float = -1.0
    frame: str = "view"
    speed: float = 1.0
    collect: bool = False
    scripted_demonstrations: bool = False
    demonstrations_wanted: int = 20
    person: str = ""
    focused: bool = True
    deadman_s: float = 0.0  # how long the person has been holding it
    operator: str = "console"
    lost_pictures: tuple[str, ...] = ()  # cameras without whose pictures the takeover went on that this console has had held
    stop_waits_s: float = 0.0  # since the STOP was pressed here that the bridge has not confirmed yet

    @property
    def link_lost(self) -> bool:
        return self.state is not None and self.state_age_ms > LINK_LOST_MS

    @property
    def live(self) -> bool:
        return self.state is not None and not self.link_lost

    @property
    def mode(self) -> Mode:
        """OFFLINE until something was heard."""
        return self.state.mode if self.state is not None else Mode.OFFLINE

    @property
    def mode_s(self) -> float:
        """How long the present mode has lasted."""
        if self.state is None:
            return 0.0
        return max(0.0, (self.state.t_ns - self.state.mode_since_ns) / 1e9 + (self.state_age_ms / 1e3 if self.live else 0.0))

    @property
    def scripted(self) -> bool:
        """The scripted operator commands the robot."""
        return self.state is not None and self.state.commander == SCRIPT

    @property
    def policy_version(self) -> int:
        """Newest version there is, acting or published."""
        acting = self.actor.version if self.actor else 0
        published = self.learner.newest_version if self.learner else 0
        return max(acting, published, self.state.policy_version if self.state else 0)

    @property
    def demonstrations(self) -> int:
        return self.learner.demonstrations if self.learner else 0

    @property
    def in_episode(self) -> bool:
        return self.state is not None and self.mode in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD) and bool(self.state.episode_id)

    @property
    def in_block(self) -> bool:
        """A block of episodes is running: an episode, or the reset between two."""
        return self.in_episode or self.mode is Mode.RESETTING

    @property
    def demonstration_waits(self) -> bool:
        """The start of the next demonstration is made; pressing the deadman begins it."""
        state = self.state
        return state is not None and state.mode is Mode.READY and bool(state.episode_id) and state.episode_kind == EpisodeKind.DEMONSTRATION

    @property
    def demonstrating(self) -> bool:
        """A block of demonstrations is running, whoever gives them."""
        return (
            self.state is not None and self.state.episode_kind == EpisodeKind.DEMONSTRATION and (self.in_block or self.demonstration_waits)
        )

    @property
    def probing(self) -> bool:
        """The episode is a no-help probe, drawn by chance: the policy drives alone, and a takeover in it is a failure."""
        return self.state is not None and self.state.probe >= 0 and bool(self.state.episode_id)

    @property
    def press_again(self) -> bool:
        """The deadman is held and nothing came of it: a hold or a late command came between, so only a fresh press counts."""
        waits = self.mode in (Mode.POLICY, Mode.HOLD) or self.demonstration_waits
        return self.live and waits and self.focused and self.deadman_s > 0.4 and self.mode_s > 0.4

    @property
    def collecting(self) -> bool:
        return self.collect or self.demonstrating

    @property
    def stale_cameras(self) -> list[str]:
        """Cameras whose picture is too old to correct by."""
        return [name for name, age in self.picture_age_ms.items() if age > PICTURE_OLD_MS]


def duration(seconds: float) -> str:
    """``4.4 s``, ``1:05``, ``1:02:05``; hours when days long."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def milliseconds(value: float) -> str:
    """``42 ms``, ``4.6 s``; a dash when unknown."""
    if value < 0 or value == float("inf"):
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def gigabytes(count: int) -> str:
    size = count / 1e9
    return f"{size:.1f} GB" if size < 10 else f"{size:,.0f} GB"


def signed(value: float) -> str:
    """``+0.44``, ``−0.53`` with a true minus."""
    return f"{value:+.2f}".replace("-", "−")


KEYS = {
    "keyboard": {"deadman": "Space", "resume": "P", "hold": "P", "success": "Enter", "failure": "Bksp", "next": "N", "mark": "M"},
    "gamepad": {"deadman": "RB", "resume": "Y", "hold": "Start", "success": "A", "failure": "B", "next": "N", "mark": "X"},
    "spacemouse": {"deadman": "button", "resume": "P", "hold": "P", "success": "Enter", "failure": "Bksp", "next": "N", "mark": "M"},
}


def device_key(reading: DeviceReading | None, act: str) -> str:
    """What to press on the device in use for ``act``."""
    return KEYS.get(reading.kind if reading else "keyboard", KEYS["keyboard"])[act]
