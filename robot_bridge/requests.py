"""Control requests as the control thread acts on them; STOP, handshake and lease were dealt with by the I/O side."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from takeover.data.schema import (
    Clear,
    EpisodeKind,
    Fault,
    Finish,
    Hold,
    HoldReason,
    Mark,
    Mode,
    Next,
    Outcome,
    OutcomeSource,
    Ready,
    Resume,
    Role,
    SetOutcome,
    SpeedScale,
    Start,
    UndoOutcome,
)
from takeover.robot_bridge.episode import EpisodeError
from takeover.robot_bridge.inbox import MAX_REQUEST_AGE_NS, PendingRequest, Refused, StateShown
from takeover.robot_bridge.lease import holds
from takeover.robot_bridge.modes import ModeEvent
from takeover.robot_bridge.robots.base import RobotError

if TYPE_CHECKING:
    from takeover.robot_bridge.control import ControlLoop

MIN_SPEED_SCALE = 0.05
MAX_FAILURES = 1000


_LABELLING = (SetOutcome, UndoOutcome, Mark)
_LEASED = (Resume, Clear, SetOutcome, UndoOutcome, Next, Mark, SpeedScale, Ready)
_MOVING = (Clear, Start, Resume, Ready, Next)  # after which the robot may move
_STATION = (Start, Finish, Fault)  # asked by a station's supervisor too, on a connection of its own and with the station's key


class RequestHandler:
    """One method per request type; each raises `Refused` or `EpisodeError` with the answer for the asker."""

    def __init__(self, control: "ControlLoop") -> None:
        self._control = control
        self._stops = 0  # that had been pressed when what is handled now was asked
        self._shown: StateShown | None = None  # to who asked it
        self._methods: dict[type, Callable[[Any], None]] = {
            Start: self._start,
            Finish: self._finish,
            Hold: self._hold,
            Resume: self._resume,
            Clear: self._clear,
            Ready: self._ready,
            SetOutcome: self._set_outcome,
            UndoOutcome: self._undo,
            Next: self._next,
            Mark: self._mark,
            SpeedScale: self._speed_scale,
            Fault: self._fault,
        }

    def handle_all(self) -> None:
        """Act on every waiting request and answer it."""
        control = self._control
        while control.io.inbox.requests:
            item = control.io.inbox.requests.popleft()
            self._stops = item.stops
            self._shown = item.shown
            try:
                self._permit(item)
                self._in_time(item)
                self._methods[type(item.request)](item.request)
            except (Refused, EpisodeError, RobotError) as error:
                control.io.reply(item, str(error))
            else:
                control.io.reply(item)
                control.io.state_now()

    def _permit(self, item: PendingRequest) -> None:
        request, lease = item.request, self._control.io.lease
        if isinstance(request, Hold):
            return
        if isinstance(request, _LABELLING) and item.role is Role.LABELER:
            return
        if item.role is not Role.OPERATOR:
            raise Refused(f"role {item.role} may not ask for {type(request).__name__}")
        now = time.monotonic_ns()
        holder = lease.holder(now)
        if isinstance(request, _LEASED) and holder and not lease.is_of(item.sender, item.owner) and not lease.scripted(now):
            raise Refused(holds(holder, item.sender))
        other_key = item.user != self._control.io.lease_user
        if isinstance(request, _STATION) and holder and other_key and not lease.scripted(now):
            raise Refused(holds(holder, item.sender))

    def _in_time(self, item: PendingRequest) -> None:
        """Nothing is done late: not what was asked before a STOP, nor while the loop stood still or the robot was away."""
        if isinstance(item.request, _MOVING) and item.stops != self._control.io.inbox.stops:
            raise Refused("STOP was pressed after this was asked: not done")
        waited_ns = time.monotonic_ns() - item.arrival_ns
        if not self._control.lockstep and not isinstance(item.request, Hold) and waited_ns > MAX_REQUEST_AGE_NS:
            raise Refused(f"{type(item.request).__name__} was asked more than a second ago: not done")

    def _start(self, request: Start) -> None:
        control = self._control
        mode = control.mode.mode
        if mode is not Mode.READY:
            raise Refused(f"start is possible in mode ready; the bridge is in {mode}")
        if request.kind is not EpisodeKind.DEMONSTRATION and control.policy_present() and control.actor_silent(time.monotonic_ns()):
            raise Refused("the actor is silent")
        if request.kind is not EpisodeKind.DEMONSTRATION and not control.policy_present():
            raise Refused("the actor has no policy yet")
        if request.kind is not EpisodeKind.DEMONSTRATION and control.lockstep and control.acting_policy()[0] == 0:
            raise Refused("the actor has not answered yet")  # the first episode names the version that drives it, in every run
        if request.kind is EpisodeKind.DEMONSTRATION and control.lockstep and control.config.operator != "scripted":
            raise Refused("demonstrations in lockstep need the scripted operator")
        if trouble := control.recorder_trouble():
            raise Refused(trouble)
        lack, detail = control.camera_trouble(time.monotonic_ns())
        if lack is not HoldReason.NONE and request.kind is not EpisodeKind.DEMONSTRATION and not control.lockstep:
            raise Refused(f"the policy needs the camera: {lack.replace('_', ' ')}: {detail}")
        if request.unattended:
            self._permit_practice(request)
        control.book.start_block(request.kind, request.episodes, request.max_failures if request.unattended else 0)
        if request.unattended:
            control.io.event("unattended_started", f"{request.sender}: at most {request.max_failures} failures")
            control.audit(request.sender, "unattended_started", episodes=request.episodes, max_failures=request.max_failures)
        control.io.event("block_started", f"{request.kind} x {request.episodes or 'open end'}", value=float(request.episodes))
        control.begin_reset()

    def _permit_practice(self, request: Start) -> None:
        """Nobody will be there: the robot must stop, reset and judge by itself."""
        spec = self._control.spec
        if request.kind is EpisodeKind.DEMONSTRATION:
            raise Refused("demonstrations need a person")
        if self._control.lockstep:
            raise Refused("unattended practice is for real time")
        if not 1 <= request.max_failures <= MAX_FAILURES:
            raise Refused(f"unattended practice needs a budget of 1 to {MAX_FAILURES} failures, not {request.max_failures}")
        lacks = [text for has, text in ((spec.has_watchdog, "a watchdog"), (spec.can_reset, "an automatic reset")) if not has]
        if not spec.simulated or self._control.config.reward != "task":
            lacks.append("a task that judges its own outcome")
        if lacks:
            raise Refused(f"unattended practice needs {' and '.join(lacks)}, which robot {spec.robot_id} does not have")

    def _finish(self, request: Finish) -> None:
        control = self._control
        if control.book.block is None:
            raise Refused("no block of episodes is running")
        control.book.block.finishing = True
        control.io.event("finish_asked", request.sender)
        episode = control.book.episode
        if request.now and episode is not None and episode.recorded:
            self._end(Outcome.ABORTED, OutcomeSource.NEXT)
        elif episode is None or not episode.recorded:
            control.finish_block()

    def _end(self, outcome: Outcome, source: OutcomeSource, discard: bool = False) -> None:
        """The running episode ends with this step. Raises `Refused` when a STOP ends it already: that cause stands."""
        control = self._control
        if control.end_request is not None and control.end_request[1] is OutcomeSource.STOP:
            raise Refused("STOP ends this episode")
        control.end_request, control.hold_asker = (outcome, source, discard), ""

    def _hold(self, request: Hold) -> None:
        control = self._control
        if control.mode.mode not in (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD, Mode.RESETTING):  # the next episode would move it
            raise Refused(f"nothing moves in mode {control.mode.mode}")
        control.change(ModeEvent.HOLD, HoldReason.OPERATOR, request.sender)
        control.holds += 1  # also of what is held already
        control.asked_to_hold, control.hold_asker = True, request.sender

    def _resume(self, request: Resume) -> None:
        control = self._control
        if control.mode.mode is not Mode.HOLD:
            raise Refused(f"resume is possible in mode hold; the bridge is in {control.mode.mode}")
        if self._shown is not None and self._shown.holds != control.holds:
            raise Refused("held again since this was asked: not done")
        lease, now = control.io.lease, time.monotonic_ns()
        led = lease.holder(now) and not lease.scripted(now)  # then by who asks, see `_permit`
        if control.unattended and control.asked_to_hold and not led and request.sender != control.hold_asker:
            raise Refused(f"{control.hold_asker} asked for this hold of practice: resumed by who did, or by who takes the lease")
        control.resume()

    def _clear(self, request: Clear) -> None:
        control = self._control
        if control.mode.mode is not Mode.STOPPED:
            raise Refused(f"nothing to clear in mode {control.mode.mode}")
        control.clear_stop(request.sender, self._stops)

    def _ready(self, request: Ready) -> None:
        if not self._control.waiting_for_next:
            raise Refused("no manual reset is being made")
        self._control.begin_reset()

    def _set_outcome(self, request: SetOutcome) -> None:
        """A key that names no episode is for the one its sender saw: by now another may run."""
        control = self._control
        episode = control.book.episode
        meant = request.episode_id
        if not meant and self._shown is not None:
            meant = self._shown.meant
            if not meant:
                raise Refused("no episode was in view when this was asked: not done")
        if episode is not None and episode.recorded and meant in ("", episode.id):
            if request.outcome not in (Outcome.SUCCESS, Outcome.FAILURE):
                raise Refused("a running episode is ended by success or failure")
            self._end(request.outcome, OutcomeSource.OPERATOR)
            episode.ended_by = request.sender
        else:
            waits = episode is not None and not episode.recorded and meant == episode.id  # whose start is being made
            control.book.ended.relabel(request.outcome, request.sender, "" if waits else meant)
            self._counted_again()

    def _undo(self, request: UndoOutcome) -> None:
        self._control.book.ended.undo(request.sender)
        self._counted_again()

    def _counted_again(self) -> None:
        """An episode that is no longer thrown away may be the last one that was asked for: then no other is made."""
        control = self._control
        block, episode = control.book.block, control.book.episode
        if block is not None and block.complete and (episode is None or not episode.recorded):
            control.finish_block()

    def _next(self, request: Next) -> None:
        """Of the episode that its sender saw, or of the wait between two: never of one that has begun since."""
        control, shown = self._control, self._shown
        episode = control.book.episode
        running = episode.id if episode is not None and episode.recorded else ""
        if shown is not None and shown.running != running and not request.discard:
            raise Refused("an episode has begun or ended since this was asked: not done")
        if running and (shown is None or shown.meant == running):
            self._end(Outcome.ABORTED, OutcomeSource.NEXT, request.discard)
        elif request.discard:
            last = control.book.ended.last
            if shown is not None and last is not None and last.id != shown.meant:
                raise Refused("another episode has ended since this was asked: not done")
            control.book.discard_last(request.sender)
        elif control.waiting_for_next or control.waiting_for_press:
            control.begin_reset()
        else:
            raise Refused("no episode is running")

    def _mark(self, request: Mark) -> None:
        control = self._control
        control.io.event("mark", request.text, **control.where(), sim_state=control.robot.save() if control.spec.simulated else b"")

    def _speed_scale(self, request: SpeedScale) -> None:
        if not MIN_SPEED_SCALE <= request.scale <= 1.0:
            raise Refused(f"speed scale {request.scale}; allowed {MIN_SPEED_SCALE} to 1")
        self._control.speed_scale = request.scale
        self._control.io.event("speed_scale", request.sender, value=request.scale)

    def _fault(self, request: Fault) -> None:
        control = self._control
        if not control.spec.simulated:
            raise Refused("faults are for simulators")
        control.robot.inject(request.name, request.value)
        control.io.event("fault_injected", request.name, value=request.value, **control.where())
