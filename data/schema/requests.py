"""Control requests, DEALER to ROUTER, answered by `Reply` within a deadline (MessagePack on the wire). Unknown fields are refused."""

import msgspec

from takeover.data.schema.enums import EpisodeKind, Outcome, Role
from takeover.data.schema.messages import PROTOCOL_VERSION, Strict, Telemetry
from takeover.data.schema.specs import RobotSpec


class Hello(Strict, frozen=True, kw_only=True, tag="hello"):
    protocol: int
    sender: str
    role: Role
    software: str


class Lease(Strict, frozen=True, kw_only=True, tag="lease", omit_defaults=True):
    """Ask for (or keep, or give back) the right to command. A lease lapses 500 ms after its holder's last command or renewal.

    What is left out is not sent: a bridge that knows no ``person`` refuses the field.
    """

    sender: str
    release: bool = False
    device_kind: str = ""  # "scripted": a script, which any person may pre-empt
    person: str = ""  # pseudonym of who drives, for the record; "": the bridge's station's own. Only where `Reply.names_people`
    consent_version: str = ""  # what that person agreed to


class Start(Strict, frozen=True, kw_only=True, tag="start"):
    """Begin a block of episodes. ``episodes`` 0: until told otherwise. POLICY needs an accepted policy."""

    sender: str
    kind: EpisodeKind
    episodes: int = 0
    unattended: bool = False  # practice with nobody there: slow, tighter limits, ends after `max_failures`
    max_failures: int = 0  # of unattended practice, 1 to 1000


class Finish(Strict, frozen=True, kw_only=True, tag="finish"):
    """End the block after the running episode (``now``: abort it)."""

    sender: str
    now: bool = False


class Hold(Strict, frozen=True, kw_only=True, tag="hold"):
    sender: str


class Resume(Strict, frozen=True, kw_only=True, tag="resume"):
    sender: str


class Ready(Strict, frozen=True, kw_only=True, tag="ready"):
    """A manual reset is done."""

    sender: str


class Stop(Strict, frozen=True, kw_only=True, tag="stop"):
    """Latching stop. Any role, no lease, acted on by the I/O thread at once."""

    sender: str
    reason: str = ""


class Clear(Strict, frozen=True, kw_only=True, tag="clear"):
    sender: str


class SetOutcome(Strict, frozen=True, kw_only=True, tag="set_outcome"):
    """Success or failure key: ends the running episode, or relabels ``episode_id`` afterwards."""

    sender: str
    outcome: Outcome
    episode_id: str = ""


class UndoOutcome(Strict, frozen=True, kw_only=True, tag="undo_outcome"):
    sender: str


class Next(Strict, frozen=True, kw_only=True, tag="next"):
    """Abort the running episode and go on with the next; ``discard``: throw it away and make it again (demonstrations)."""

    sender: str
    discard: bool = False


class Mark(Strict, frozen=True, kw_only=True, tag="mark"):
    sender: str
    text: str = ""


class SpeedScale(Strict, frozen=True, kw_only=True, tag="speed_scale"):
    sender: str
    scale: float


class ViewReport(Strict, frozen=True, kw_only=True, tag="view_report"):
    """How old the pictures are when a viewer on another computer gets them: the bridge lowers their quality for a slow link. Any role."""

    sender: str
    age_ms: float  # at least 0: worst of the cameras, less the time that the network takes at its best


class Fault(Strict, frozen=True, kw_only=True, tag="fault"):
    """Inject a simulator fault by name (drill mode and tests); refused by real robots."""

    sender: str
    name: str
    value: float = 1.0


ControlRequest = (
    Hello
    | Lease
    | Start
    | Finish
    | Hold
    | Resume
    | Ready
    | Stop
    | Clear
    | SetOutcome
    | UndoOutcome
    | Next
    | Mark
    | SpeedScale
    | ViewReport
    | Fault
)


class Reply(Telemetry, frozen=True, kw_only=True, tag="reply"):
    """Answer to a control request. ``error`` names what was refused and why; empty when done."""

    session: str
    error: str = ""
    lease: str = ""
    protocol: int = PROTOCOL_VERSION
    spec: RobotSpec | None = None  # with Hello
    t_ns: int = 0  # the bridge's monotonic clock when it answered
    names_people: bool = False  # with Hello: this bridge takes `Lease.person`


class ControlEnvelope(Strict, frozen=True, kw_only=True):
    request_id: int
    request: ControlRequest
    newest_state_seq: int = -1  # newest State.seq seen: what was asked more than a second ago is refused; -1: not said


class ReplyEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    request_id: int
    reply: Reply
