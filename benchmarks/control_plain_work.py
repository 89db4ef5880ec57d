"""What a plain process does beside its control loop: recording, cameras, learning, evaluation and a window, each as work done in turns."""

import copy
import queue
import time
from pathlib import Path
from typing import Any

import msgspec
import simplejpeg

from takeover.data.recorder import Recorder
from takeover.data.schema import AnyRecord, CameraFrame, EpisodeStart, RunConfig, State, Step
from takeover.data.seeding import heldout_start
from takeover.data.workspace import Workspace
from takeover.policies.evaluation import evaluate
from takeover.policies.training import Training
from takeover.robot_bridge.robots.sim import SimRobot
from takeover.robot_bridge.robots.sim_cameras import SimCameras

CAMERA_HZ = 20.0
SYNC_EVERY_S = 0.1  # as the recorder's process
EVALUATE_EVERY_S, EVALUATION_STARTS = 30.0, 50  # as the evaluator's process
WINDOW_HZ, STRIP_EVERY = 60.0, 5


class Recording:
    """The recorder itself, in this process: journal, fsync, sealed HDF5 files, catalog."""

    period_s = SYNC_EVERY_S

    def __init__(self, folder: Path) -> None:
        self._recorder = Recorder(Workspace(folder / "workspace"))
        self._arrived: queue.SimpleQueue[AnyRecord] = queue.SimpleQueue()
        self._numbered = 0

    def put(self, record: AnyRecord) -> None:
        self._arrived.put(record)

    def turn(self) -> None:
        while not self._arrived.empty():
            record = msgspec.structs.replace(self._arrived.get(), rec_seq=self._numbered)
            self._recorder.accept(record)
            self._numbered += 1
        self._recorder.sync()
        self._recorder.take_closed()


class Pictures:
    """Two cameras, rendered and encoded."""

    period_s = 1.0 / CAMERA_HZ

    def __init__(self, robot: SimRobot, recording: Recording) -> None:
        self._cameras = SimCameras(robot)
        self._recording = recording
        self.captured: Any = None  # the robot's pose, set by the control loop
        self.episode_id, self.seq = "", -1
        self.frames: dict[str, CameraFrame] = {}

    def capture(self, episode_id: str, seq: int) -> None:
        self.episode_id, self.seq = episode_id, seq
        self.captured = self._cameras.capture()

    def turn(self) -> None:
        if self.captured is None:
            return
        for picture in self._cameras.pictures(self.captured):
            height, width, _ = picture.rgb.shape
            jpeg = bytes(simplejpeg.encode_jpeg(picture.rgb, quality=85, colorspace="RGB", colorsubsampling="420", fastdct=True))
            frame = CameraFrame(
                session="bench",
                rec_seq=0,
                camera=picture.camera,
                counter=picture.counter,
                t_source_ns=picture.t_source_ns,
                width=width,
                height=height,
                jpeg=jpeg,
                episode_id=self.episode_id,
                seq=self.seq,
            )
            self.frames[picture.camera] = frame
            self._recording.put(frame)


class Learning:
    """The learner's updates, as many per step as its process makes."""

    period_s = 0.0

    def __init__(self, training: Training) -> None:
        self._training = training
        self._arrived: queue.SimpleQueue[AnyRecord] = queue.SimpleQueue()

    def put(self, record: AnyRecord) -> None:
        self._arrived.put(record)

    def turn(self) -> None:
        """Everything that has come; waits a moment for more where there is nothing."""
        while True:
            try:
                record = self._arrived.get_nowait()
            except queue.Empty:
                return
            self._training.handle(record)


class Evaluating:
    """The newest policy on held-out starts."""

    period_s = EVALUATE_EVERY_S

    def __init__(self, config: RunConfig, policies: dict[int, Any]) -> None:
        self._robot = SimRobot(config.task, config.task_parameters)
        self._policies = policies
        self._evaluated = 0

    def turn(self) -> None:
        newest = max(list(self._policies), default=0)
        if newest > self._evaluated:
            evaluate(copy.deepcopy(self._policies[newest]), self._robot, [heldout_start(i) for i in range(EVALUATION_STARTS)])
            self._evaluated = newest


class Window:
    """The console's own pictures and strip in a window of its size. The thread that made it turns it."""

    period_s = 1.0 / WINDOW_HZ

    def __init__(self, pictures: Pictures | None) -> None:
        from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

        from takeover.app.console.application import make_application
        from takeover.app.console.models.strip import Strip
        from takeover.app.console.picture import PictureView
        from takeover.app.console.strip_view import StripView

        self._app = make_application()
        self._pictures = pictures
        self._views = [PictureView("front"), PictureView("wrist", compact=True)]
        self._strip = Strip()
        self._strip_view = StripView(self._strip)
        self._arrived: queue.SimpleQueue[State] = queue.SimpleQueue()
        self._turns = 0
        self._window = QWidget()
        column, row = QVBoxLayout(self._window), QHBoxLayout()
        for view in self._views:
            row.addWidget(view)
        column.addLayout(row, 4)
        column.addWidget(self._strip_view, 1)
        self._window.resize(1680, 1050)
        self._window.show()

    def put(self, state: State) -> None:
        self._arrived.put(state)

    def turn(self) -> None:
        while not self._arrived.empty():
            self._strip.add(self._arrived.get())
        for view in self._views:
            view.show_frame(self._pictures.frames.get(view.camera) if self._pictures is not None else None)
        self._turns += 1
        if self._turns % STRIP_EVERY == 0:
            self._strip_view.update()
        self._app.processEvents()


def state_of(step: Step, start: EpisodeStart, seq: int) -> State:
    """What the strip shows of ``step``."""
    return State(
        session="bench",
        seq=seq,
        t_ns=time.monotonic_ns(),
        mode=step.mode,
        mode_since_ns=0,
        hold_reason="",  # type: ignore[arg-type]
        hold_detail="",
        step_seq=step.seq,
        source=step.source,
        observation=step.observation,
        tool_position=step.observation[:3],
        tool_velocity=[0.0] * 3,
        tool_yaw=0.0,
        gripper_width_m=0.0,
        force_n=[0.0] * 3,
        action=step.action,
        human_action=step.human_action,
        policy_action=step.policy_action,
        commander="script",
        device_id="",
        command_age_ms=0.0,
        policy_age_ms=0.0,
        picture_age_ms={},
        speed_scale=1.0,
        episode_id=step.episode_id,
        episode_kind=step.kind,
        episode_number=start.number,
        episode_step=step.episode_step,
        episode_max_steps=start.spec.max_steps,
        episode_time_s=0.0,
        intervention_id=step.intervention_id,
        takeovers=0,
        human_steps=0,
        block_done=0,
        block_size=0,
        last_outcome=None,
        last_outcome_episode="",
        policy_version=step.policy_version,
        train_steps=step.train_step,
        steps_total=seq,
        steps_dropped=0,
        steps_late=0,
        lateness_p99_ms=0.0,
        safety_counts={},
        record_backlog=0,
        recorder_age_ms=0.0,
        disk_free_bytes=0,
        resumes=0,
        scores=step.scores,
    )
