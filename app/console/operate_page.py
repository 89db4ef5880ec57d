"""The Operate page: pictures, episode, gate, device, learner, the last 60 s, intervention rate, keys.

Geometry is set by hand from the design: pictures and plots take the room, side columns keep their width; below 1440x900 the
learner card shrinks first.
"""

import numpy as np
from PySide6.QtCore import QRect, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QWidget

from takeover.app.console import tokens
from takeover.app.console.card_view import CardView
from takeover.app.console.controller import Controller
from takeover.app.console.device_view import DeviceFigures, DevicePanel
from takeover.app.console.models import strip as strip_model
from takeover.app.console.models.cards import card
from takeover.app.console.models.episode import EpisodeTrack, episode_view
from takeover.app.console.models.gate import gate
from takeover.app.console.models.hints import hints
from takeover.app.console.models.learner_card import learner_card
from takeover.app.console.models.notices import notices
from takeover.app.console.models.rate import intervention_rate
from takeover.app.console.models.snapshot import Snapshot
from takeover.app.console.models.strip import Strip
from takeover.app.console.notice_bar import NoticeBar
from takeover.app.console.panels import EpisodePanel, GatePanel, LearnerPanel, RatePanel
from takeover.app.console.picture import Overlay, PictureView
from takeover.app.console.strip_view import StripView
from takeover.app.console.widgets import KeyHints, Segmented
from takeover.app.inputs.base import DeviceReading
from takeover.data.schema import Mode, State
from takeover.robot_bridge.robots import sim_camera_geometry

GUTTER = tokens.GUTTER
MIDDLE_WIDTH, RIGHT_WIDTH = 296, 304
STRIP_HEIGHT, HINTS_HEIGHT = 184, 32
ARROW_M = 0.06  # length of the command arrow at full deflection
GRIPPER_OPEN_M = 0.08
NOTICE_SPARES = 144  # px at the right of the picture: the plan of the command is there while somebody drives


class OperatePage(QWidget):
    """`refresh_pictures` at up to 60 Hz, `refresh_panels` at 10-15 Hz; `feed` gets every State."""

    act = Signal(str)

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.strip = Strip()
        self.track = EpisodeTrack()
        self.main = PictureView("front")
        self.sides: list[PictureView] = []
        self.mode_switch = Segmented(("Practice", "Collect"), height=24)
        self.mode_switch.setToolTip("Practice: the policy drives and you correct. Collect: you record demonstrations.")
        self.card = CardView()
        self.notices = NoticeBar()
        self.episode = EpisodePanel()
        self.gate = GatePanel()
        self.device = DevicePanel()
        self.learner = LearnerPanel()
        self.strip_view = StripView(self.strip)
        self.rate = RatePanel()
        self.hints = KeyHints(right=(("F1", "all keys"), ("Ctrl+K", "commands")))
        parts = (
            self.main,
            self.episode,
            self.gate,
            self.device,
            self.learner,
            self.strip_view,
            self.rate,
            self.hints,
            self.mode_switch,
            self.notices,
            self.card,
        )
        for widget in parts:
            widget.setParent(self)
        self._set_side_cameras(["wrist"])
        self.episode.act.connect(self.act)
        self.learner.act.connect(self.act)
        self.card.act.connect(self.act)
        self.device.frame_chosen.connect(controller.set_frame)
        self.device.speed_chosen.connect(self._set_speed)
        self.mode_switch.changed.connect(self._mode_switched)

    def activated(self) -> None:
        """Shown again: it is refreshed at the next tick."""

    def deactivated(self) -> None:
        """Nothing to give up; the window released the keyboard."""

    def handle_key(self, event: QKeyEvent) -> bool:
        """Keys that drive go through the window."""
        return False

    def _set_speed(self, speed: float) -> None:
        self.controller.speed = speed

    def _mode_switched(self, index: int) -> None:
        self.controller.collect = index == 1

    def _set_side_cameras(self, names: list[str]) -> None:
        for view in self.sides:
            view.deleteLater()
        self.sides = []
        for name in names:
            view = PictureView(name, compact=True, parent=self)
            view.double_clicked.connect(lambda view=view: self._swap(view))
            view.show()
            self.sides.append(view)
        self._arrange()

    def _swap(self, side: PictureView) -> None:
        """Double-click: this camera becomes the large one."""
        self.main.camera, side.camera = side.camera, self.main.camera
        for view in (self.main, side):
            view.show_frame(self.controller.client.frames.get(view.camera))

    # --- geometry ---

    def resizeEvent(self, event: QResizeEvent) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Content box 8 px inside the page."""
        left, top = GUTTER, GUTTER
        width, height = self.width() - 2 * GUTTER, self.height() - 2 * GUTTER
        hints_y = top + height - HINTS_HEIGHT
        strip_height = STRIP_HEIGHT if height >= 700 else 160
        strip_y = hints_y - GUTTER - strip_height
        upper = strip_y - GUTTER - top
        right_x = left + width - RIGHT_WIDTH
        middle_x = right_x - GUTTER - MIDDLE_WIDTH
        self.main.setGeometry(left, top, middle_x - GUTTER - left, upper)
        episode_height = 208
        wrist_height = 222 if upper >= 640 else max(120, min(222, upper - episode_height - 2 * GUTTER - 92))  # 4:3
        for view, box in zip(self.sides, _stack(QRect(middle_x, top, MIDDLE_WIDTH, wrist_height), len(self.sides)), strict=True):
            view.setGeometry(box)
        y = top + wrist_height + GUTTER
        self.episode.setGeometry(middle_x, y, MIDDLE_WIDTH, episode_height)
        y += episode_height + GUTTER
        self.gate.setGeometry(middle_x, y, MIDDLE_WIDTH, max(32, top + upper - y))
        device_height = 360 if upper >= 360 + GUTTER + 88 else max(216, upper - GUTTER - 88)
        if upper >= 640 and self._axes() > 4:
            device_height += 20 * (self._axes() - 4)
        self.device.setGeometry(right_x, top, RIGHT_WIDTH, device_height)
        self.learner.setGeometry(right_x, top + device_height + GUTTER, RIGHT_WIDTH, max(84, upper - device_height - GUTTER))
        self.strip_view.setGeometry(left, strip_y, right_x - GUTTER - left, strip_height)
        self.rate.setGeometry(right_x, strip_y, RIGHT_WIDTH, strip_height)
        self.hints.setGeometry(left, hints_y, width, HINTS_HEIGHT)
        self._place_overlays()

    def _axes(self) -> int:
        spec = self.controller.client.spec
        return sum(name != "gripper" for name in spec.action.names) if spec is not None else 4

    def _place_overlays(self) -> None:
        rect = self.main.picture_rect().translated(self.main.pos().toPointF()).toRect()
        self.mode_switch.setGeometry(rect.center().x() - 88, rect.y() + 16, 176, 24)
        self.card.setGeometry(rect.x() + 16, rect.y() + 56, rect.width() - 32, self.card.height())
        self.card.resize(rect.width() - 32, min(rect.height() - 64, self.card.needed_height()))
        self.card.raise_()
        room = rect.width() - 2 * 16 - NOTICE_SPARES
        height = self.notices.height()
        self.notices.setGeometry(rect.x() + 16, rect.bottom() - 48 - height, min(room, self.notices.wanted_width), height)

    # --- data ---

    def feed(self, states: list[State]) -> None:
        for state in states:
            self.strip.add(state)
            self.track.add(state, strip_model.driver(state))

    def refresh_pictures(self, view: Snapshot) -> None:
        spec = view.spec
        if spec is not None:
            names = [camera.name for camera in spec.cameras]
            shown = [self.main.camera, *(side.camera for side in self.sides)]
            if names and sorted(names[:4]) != sorted(shown):
                self.main.camera = names[0]
                self._set_side_cameras(names[1:4])
        frames = self.controller.client.frames
        for picture in (self.main, *self.sides):
            picture.show_frame(frames.get(picture.camera))
            picture.setToolTip(f"{picture.camera}: {self.controller.client.frames_missed.get(picture.camera, 0)} pictures missed so far")
            picture.show_overlay(self._overlay(view, picture))

    def _overlay(self, view: Snapshot, picture: PictureView) -> Overlay:
        age = view.picture_age_ms.get(picture.camera, -1.0)
        large = picture is self.main
        state, spec = view.state, view.spec
        camera = next((c for c in spec.cameras if c.name == picture.camera), None) if spec is not None else None
        taking_over = view.live and view.mode is Mode.TAKEOVER
        chips: tuple[tuple[str, str], ...] = ()
        if large and state is not None and view.in_episode:
            limit = f" of {state.episode_max_steps}" if state.episode_max_steps else ""
            chips = (
                ("episode", f"{state.episode_time_s:.1f} s"),
                ("step", f"{state.episode_step}{limit}"),
                ("takeovers", str(state.takeovers)),
            )
        reading = view.reading
        twist = reading.twist[:3] if large and taking_over and reading is not None and view.holds_lease else None
        return Overlay(
            age_ms=age if age < 0 else round(age, -1 if age < 1000 else -2),
            note=f"{camera.width}×{camera.height}, {camera.rate_hz:.0f} Hz" if camera is not None else "",
            frame_color=tokens.TAKEOVER if large and taking_over else "",
            chips=chips,
            arrow=self._arrow(view) if picture.camera == "front" and taking_over else None,
            twist=(twist[0], twist[1], twist[2]) if twist is not None else None,
            twist_title=f"command, {view.frame} frame",
            stopped=view.mode is Mode.STOPPED,
            lost=view.link_lost,
        )

    @staticmethod
    def _arrow(view: Snapshot) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """From the tool along the person's command, projected into the front picture (simulated robots: its camera is known)."""
        state, spec = view.state, view.spec
        if state is None or spec is None or not spec.simulated or state.human_action is None or len(state.tool_position) != 3:
            return None
        direction = np.zeros(3)
        for i, axis in enumerate("xyz"):
            if axis in spec.action.names:
                direction[i] = state.human_action[spec.action.names.index(axis)]
        tool = np.asarray(state.tool_position)
        return sim_camera_geometry.project("front", tool), sim_camera_geometry.project("front", tool + ARROW_M * direction)

    def refresh_panels(self, view: Snapshot) -> None:
        self.mode_switch.set_index(1 if view.collect else 0)
        self.mode_switch.setVisible(not view.in_block and not view.demonstration_waits and view.mode is not Mode.STOPPED and view.live)
        self.card.show_card(card(view))
        self.notices.show_notices(notices(view))
        self._place_overlays()
        self.episode.show_episode(episode_view(view), self.track.segments, view.collecting)
        self.gate.show_gate(gate(view))
        self.device.show_figures(self._figures(view), view.frame)
        self.learner.show_card(learner_card(view))
        found = self.controller.last_correction()
        self.learner.show_last(found[0] if found else "", found is not None and found[1] in self.controller.discarded)
        self.rate.show_rate(intervention_rate(list(self.controller.client.episodes)), view.operator == "scripted")
        self.strip_view.set_note(self.strip.summary())
        self.strip_view.update()
        self.hints.set_hints(hints(view))

    def _figures(self, view: Snapshot) -> DeviceFigures:
        spec, state, reading = view.spec, view.state, view.reading
        names = [name for name in spec.action.names if name != "gripper"] if spec is not None else ["x", "y", "z", "yaw"]
        axes: list[tuple[str, float]] = []
        if reading is not None:
            index = {"x": 0, "y": 1, "z": 2, "roll": 3, "pitch": 4, "yaw": 5}
            axes = [(name, round(reading.twist[index[name]] * view.speed, 2) if name in index else 0.0) for name in names]
        driving = view.live and view.mode is Mode.TAKEOVER and view.holds_lease
        width = state.gripper_width_m if state is not None else -1.0
        share = width / GRIPPER_OPEN_M if state is not None else -1.0
        return DeviceFigures(
            reading, _device_note(reading, driving, view.focused), tuple(axes), self._gripper_text(view), share, view.speed, driving
        )

    def _gripper_text(self, view: Snapshot) -> str:
        if view.state is None:
            return "–"
        width = f"{view.state.gripper_width_m * 1e3:.1f} mm"
        if view.spec is not None and view.spec.action.gripper == "none":
            return f"{width}, holds"
        return f"{width}, {'open' if self.controller.gripper_is_open(view.state) else 'closed'}"


def _device_note(reading: DeviceReading | None, driving: bool, focused: bool) -> str:
    """``driving, 125 Hz``; the keyboard drives only in a window that has the focus."""
    if reading is None:
        return ""
    rate = f", {reading.rate_hz:.0f} Hz" if reading.rate_hz else ""
    if driving:
        return f"driving{rate}"
    if not reading.alive:
        return "gone"
    if reading.kind == "keyboard" and not focused:
        return "click into the window"
    return f"{'neutral' if reading.neutral else 'not neutral'}{rate}"


def _stack(box: QRect, count: int) -> list[QRect]:
    """``count`` boxes one above the other with gutters."""
    if not count:
        return []
    height = (box.height() - GUTTER * (count - 1)) // count
    return [QRect(box.x(), box.y() + i * (height + GUTTER), box.width(), height) for i in range(count)]
