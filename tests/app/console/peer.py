"""A minimal bridge peer on real sockets: publishes states, pictures and statuses, takes commands and requests."""

import threading
import time
from pathlib import Path

import msgspec
from PySide6.QtCore import QBuffer, QByteArray, QIODevice
from PySide6.QtGui import QColor, QImage, QPainter

from takeover.data.schema import (
    ActionGroup,
    ActionSpec,
    ActorStatus,
    CameraFrame,
    CameraSpec,
    Command,
    Committed,
    ControlEnvelope,
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Hello,
    HoldReason,
    LauncherReply,
    LauncherRequest,
    LearnerStatus,
    Lease,
    Mode,
    ObservationSpec,
    Outcome,
    OutcomeSource,
    ProcessStatus,
    Reply,
    ReplyEnvelope,
    RobotSpec,
    RunConfig,
    State,
)
from takeover.robot_bridge.protocol import Endpoints, Publisher, Pull, Router

SPEC = RobotSpec(
    robot_id="sim",
    task_id="peg-insert",
    prompt="Insert the square peg into the hole",
    control_hz=20.0,
    max_steps=100,
    action=ActionSpec(
        kind="ee_delta",
        frame="base",
        names=["x", "y", "z", "yaw"],
        units=["m", "m", "m", "rad"],
        scale=[0.005, 0.005, 0.005, 0.05],
        groups=[ActionGroup(name="arm", start=0, stop=4)],
        gripper="none",
    ),
    observation=ObservationSpec(names=["a", "b"], units=["m", "m"]),
    cameras=[
        CameraSpec(name="front", width=640, height=480, rate_hz=30.0),
        CameraSpec(name="wrist", width=640, height=480, rate_hz=30.0),
    ],
    simulated=True,
    has_watchdog=True,
    can_reset=True,
    workspace_low=[-0.3, -0.3, 0.0],
    workspace_high=[0.3, 0.3, 0.5],
)
GATE = {"cameras": "", "command_echo": "", "device_neutral": "", "disk": "", "recorder": "", "learner": "", "policy": "", "watchdog": ""}


def make_state(**changes: object) -> State:
    """A READY state; ``changes`` replace fields."""
    now = time.monotonic_ns()
    base = State(
        session="session-1",
        seq=1,
        t_ns=now,
        mode=Mode.READY,
        mode_since_ns=now - 1_400_000_000,
        hold_reason=HoldReason.NONE,
        hold_detail="",
        step_seq=10,
        source=[0],
        observation=[0.0, 0.0],
        tool_position=[0.02, 0.01, 0.08],
        tool_velocity=[0.0, 0.0, 0.0],
        tool_yaw=0.1,
        gripper_width_m=0.02,
        force_n=[0.5, 0.2, 3.0],
        action=[0.0] * 4,
        human_action=None,
        policy_action=None,
        commander="console-op-01",
        device_id="",
        command_age_ms=8.0,
        policy_age_ms=12.0,
        picture_age_ms={"front": 40.0, "wrist": 42.0},
        speed_scale=1.0,
        episode_id="",
        episode_kind=None,
        episode_number=0,
        episode_step=0,
        episode_max_steps=100,
        episode_time_s=0.0,
        intervention_id=-1,
        takeovers=0,
        human_steps=0,
        block_done=0,
        block_size=0,
        last_outcome=None,
        last_outcome_episode="",
        policy_version=12,
        train_steps=0,
        steps_total=2000,
        steps_dropped=0,
        steps_late=0,
        lateness_p99_ms=1.2,
        safety_counts={},
        record_backlog=0,
        recorder_age_ms=30.0,
        disk_free_bytes=41_000_000_000,
        resumes=0,
        gate=dict(GATE),
    )
    return msgspec.structs.replace(base, **changes)


def make_learner(**changes: object) -> LearnerStatus:
    base = LearnerStatus(
        learner="hil-serl",
        phase="training",
        progress=1.0,
        text="training",
        updates=24766,
        updates_per_s=40.0,
        demonstrations=20,
        finished_train_step=100,
        backlog_steps=16,
        newest_version=12,
        versions=[(12, 0)],
        versions_published=12,
        last_correction={
            "episode_number": 136,
            "intervention_id": 0,
            "length_s": 2.2,
            "update": 24346,
            "to_batch_s": 0.8,
            "version": 12,
            "to_acting_s": 3.1,
        },
        corrections=[
            {
                "episode_number": 127,
                "intervention_id": 0,
                "length_s": 1.8,
                "update": 23011,
                "to_batch_s": 0.8,
                "version": 10,
                "to_acting_s": 2.9,
            },
            {
                "episode_number": 131,
                "intervention_id": 0,
                "length_s": 1.7,
                "update": 23900,
                "to_batch_s": 0.9,
                "version": 11,
                "to_acting_s": 3.4,
            },
            {
                "episode_number": 136,
                "intervention_id": 0,
                "length_s": 2.2,
                "update": 24346,
                "to_batch_s": 0.8,
                "version": 12,
                "to_acting_s": 3.1,
            },
        ],
    )
    return msgspec.structs.replace(base, **changes)


def jpeg(text: str, color: str = "#4A5A55") -> bytes:
    """A 640x480 picture, encoded by Qt."""
    image = QImage(640, 480, QImage.Format.Format_RGB32)
    image.fill(QColor(color))
    painter = QPainter(image)
    painter.fillRect(280, 200, 80, 200, QColor("#8FB5A8"))
    painter.drawText(20, 460, text)
    painter.end()
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    image.save(buffer, "JPG", 80)
    return bytes(data.data())


class Peer:
    """Bridge, learner, actor, recorder and launcher, as far as a console can see them. State at 50 Hz while `publishing`."""

    def __init__(self, folder: Path) -> None:
        self.config = RunConfig(session_id="session-1", workspace=str(folder / "workspace"), sockets=str(folder / "s"))
        (folder / "workspace").mkdir()
        endpoints = Endpoints(self.config.sockets)
        endpoints.prepare()
        self.state = make_state()
        self.spec = SPEC
        self.learner: LearnerStatus | None = make_learner()
        self.actor: ActorStatus | None = ActorStatus(version=12, sha256="", since_ns=0, rate_hz=20.0, inference_ms=0.4)
        self.publishing = True
        self.pictures = True
        self.commands: list[tuple[int, Command]] = []
        self.requests: list[object] = []
        self.launcher_requests: list[LauncherRequest] = []
        self.refusals: dict[str, str] = {}
        self.process_states = dict.fromkeys(("bridge", "recorder", "actor", "learner", "evaluator", "console"), "up")
        self._frames = {"front": jpeg("front"), "wrist": jpeg("wrist", "#5A5A62")}
        self._endpoints = endpoints
        self._episodes: list[Committed] = []
        self._cursor = 0
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(5)

    def set(self, **changes: object) -> None:
        self.state = msgspec.structs.replace(self.state, **changes)

    def finish_episode(
        self, number: int, steps: int, human_steps: int, outcome: Outcome, kind: EpisodeKind = EpisodeKind.POLICY, episode_id: str = ""
    ) -> None:
        """Announce an episode as committed."""
        episode_id = episode_id or f"episode-{number}"
        start = EpisodeStart(
            session="session-1",
            rec_seq=self._cursor,
            episode_id=episode_id,
            number=number,
            kind=kind,
            spec=SPEC,
            station_id="local",
            operator="op-01",
            start_seed=1,
            policy_version=1,
            policy_sha256="",
            config_sha256="",
            wall_ns=0,
            t_ns=0,
        )
        end = EpisodeEnd(
            session="session-1",
            rec_seq=self._cursor + 1,
            episode_id=episode_id,
            outcome=outcome,
            outcome_source=OutcomeSource.TASK,
            event_step=steps,
            steps=steps,
            human_steps=human_steps,
            takeovers=int(human_steps > 0),
            autonomous=human_steps == 0,
            t_ns=0,
            wall_ns=0,
        )
        self._episodes.append(Committed(session="session-1", first=self._cursor, cursor=self._cursor + 1, records=[start, end]))
        self._cursor += 2

    def last_command(self) -> Command | None:
        return self.commands[-1][1] if self.commands else None

    def asked(self, kind: type) -> list:
        return [request for request in list(self.requests) if isinstance(request, kind)]

    def close(self) -> None:
        self._stop.set()
        self._thread.join(3)

    def _run(self) -> None:
        ends = self._endpoints
        with (
            Publisher(ends, "state", State) as states,
            Publisher(ends, "learner_status", LearnerStatus) as learner,
            Publisher(ends, "actor_status", ActorStatus) as actor,
            Publisher(ends, "process_status", ProcessStatus) as processes,
            Publisher(ends, "committed", Committed) as committed,
            Publisher(ends, "camera/front", CameraFrame) as front,
            Publisher(ends, "camera/wrist", CameraFrame) as wrist,
            Pull(ends, "command", Command) as commands,
            Router(ends, "control", ControlEnvelope, ReplyEnvelope) as control,
            Router(ends, "launcher", LauncherRequest, LauncherReply) as launcher,
        ):
            self._ready.set()
            seq = 0
            next_s = time.monotonic()
            while not self._stop.is_set():
                while (command := commands.receive()) is not None:
                    self.commands.append((time.monotonic_ns(), command))
                while (received := control.receive()) is not None:
                    self._answer(control, *received)
                while (asked := launcher.receive()) is not None:
                    self.launcher_requests.append(asked[1])
                    launcher.send(asked[0], LauncherReply(request_id=asked[1].request_id))
                if time.monotonic() >= next_s:
                    next_s += 0.02
                    seq += 1
                    if self.publishing:
                        states.send(msgspec.structs.replace(self.state, seq=seq, t_ns=time.monotonic_ns()))
                    if self.pictures:
                        for name, socket in (("front", front), ("wrist", wrist)):
                            socket.send(self._picture(name, seq))
                    if seq % 5 == 0:
                        if self.learner is not None:
                            learner.send(self.learner)
                        if self.actor is not None:
                            actor.send(self.actor)
                        states_now = dict(self.process_states)
                        processes.send(
                            ProcessStatus(states=states_now, restarts=dict.fromkeys(states_now, 0), pids=dict.fromkeys(states_now, 4711))
                        )
                        if seq > 25 and self._episodes:
                            for item in self._episodes:
                                committed.send(item)
                            self._episodes = []
                time.sleep(0.002)

    def _picture(self, name: str, seq: int) -> CameraFrame:
        return CameraFrame(
            session="session-1",
            rec_seq=-1,
            camera=name,
            counter=seq,
            t_source_ns=time.monotonic_ns() - 40_000_000,
            width=640,
            height=480,
            jpeg=self._frames[name],
        )

    def _answer(self, control: Router[ControlEnvelope, ReplyEnvelope], who: bytes, envelope: ControlEnvelope) -> None:
        request = envelope.request
        self.requests.append(request)
        error = self.refusals.get(type(request).__name__, "")
        reply = Reply(session="session-1", error=error)
        if isinstance(request, Hello):
            reply = Reply(session="session-1", spec=self.spec)
        elif isinstance(request, Lease) and not error:
            reply = Reply(session="session-1", lease="" if request.release else "lease-1")
            self.set(commander="" if request.release else request.sender)
        control.send(who, ReplyEnvelope(request_id=envelope.request_id, reply=reply))
