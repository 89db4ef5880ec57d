"""The device panel: a live picture of what is in the person's hands, the command it makes, control frame, gripper and speed."""

from collections.abc import Mapping
from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent, QPen, QResizeEvent
from PySide6.QtWidgets import QWidget

from takeover.app.console import tokens
from takeover.app.console.models.snapshot import signed
from takeover.app.console.tokens import MEDIUM, REGULAR, SEMIBOLD, T1, T2, T3
from takeover.app.console.widgets import CENTER, RIGHT, Panel, Segmented, draw_key_cap, draw_text, text_width
from takeover.app.inputs.base import DeviceReading

FRAMES = ("view", "base", "tool")
SPEEDS = (0.25, 0.5, 0.75, 1.0)
_PICTURE = 152.0


@dataclass(frozen=True)
class DeviceFigures:
    """``axes``: (name, value in [-1, 1]) of the canonical command. ``gripper_share``: open share, negative when there is none."""

    reading: DeviceReading | None
    note: str
    axes: tuple[tuple[str, float], ...]
    gripper_text: str
    gripper_share: float
    speed: float
    driving: bool


class DevicePicture(QWidget):
    """Gamepad, keyboard caps or SpaceMouse, as it is now."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._reading: DeviceReading | None = None
        self._driving = False

    def show_reading(self, reading: DeviceReading | None, driving: bool) -> None:
        old = self._reading
        same = (
            old is not None
            and reading is not None
            and (old.raw, old.deadman, old.alive, old.twist, old.kind)
            == (
                reading.raw,
                reading.deadman,
                reading.alive,
                reading.twist,
                reading.kind,
            )
        )
        self._reading = reading
        if not same or driving != self._driving:
            self._driving = driving
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.translate((self.width() - 288) / 2, 0)
        reading = self._reading
        if reading is None or not reading.alive:
            text = "no device" if reading is None else f"{reading.name} is gone: plug it in again"
            draw_text(painter, QRectF(0, 0, 288, self.height()), text, T3 if reading is None else tokens.STOP, 12, REGULAR, CENTER)
            return
        if reading.kind == "gamepad":
            draw_gamepad(painter, reading.raw, reading.deadman)
        elif reading.kind == "spacemouse":
            draw_spacemouse(painter, reading)
        elif reading.kind == "keyboard":
            draw_keyboard(painter, reading.raw)
        else:
            draw_text(painter, QRectF(0, 0, 288, self.height()), reading.name, T2, 12, REGULAR, CENTER)


def _cap(painter: QPainter, box: QRectF, text: str, on: bool, color: str = T1) -> None:
    painter.setPen(QPen(QColor(color if on else tokens.OUTLINE), 1))
    painter.setBrush(QColor(color if on else tokens.BG))
    painter.drawRoundedRect(box, 3, 3)
    draw_text(painter, box, text, tokens.INK if on else T2, 11, SEMIBOLD if on else REGULAR, CENTER)


def draw_keyboard(painter: QPainter, raw: Mapping[str, float]) -> None:
    """Key caps where the fingers are, lit while held."""

    def on(*names: str) -> bool:
        return any(raw.get(name, 0.0) > 0 for name in names)

    latched = on("latched")
    rows = (
        ((4, "Q", ("q",)), (34, "W", ("w",)), (64, "E", ("e",)), (94, "R", ("r",))),
        ((10, "A", ("a",)), (40, "S", ("s",)), (70, "D", ("d",)), (100, "F", ("f",)), (130, "G", ("g",))),
    )
    for i, row in enumerate(rows):
        for x, text, names in row:
            _cap(painter, QRectF(x + 0.5, 14.5 + 30 * i, 26, 26), text, on(*names))
    for x, y, text, name in ((227, 14, "↑", "up"), (197, 44, "←", "left"), (227, 44, "↓", "down"), (257, 44, "→", "right")):
        _cap(painter, QRectF(x + 0.5, y + 0.5, 26, 26), text, on(name))
    label = "Space latched" if latched else "Space held" if on("space") else "Space"
    _cap(painter, QRectF(4.5, 80.5, 279, 24), label, on("space") or latched, tokens.TAKEOVER)
    notes = (("W A S D", "move"), ("R F", "up, down"), ("Q E", "turn"), ("G", "gripper"))
    left = 4.0
    for key, text in notes:
        draw_text(painter, QRectF(left, 114, 100, 16), key, T1, 11, MEDIUM)
        width = text_width(key, 11, MEDIUM)
        draw_text(painter, QRectF(left + width + 5, 114, 80, 16), text, T3, 11)
        left += width + text_width(text, 11) + 16
    draw_text(painter, QRectF(4, 131, 280, 16), "hold Space to drive, Shift+Space latches", T3, 11)


def draw_gamepad(painter: QPainter, raw: Mapping[str, float], deadman: bool) -> None:
    """Sticks with dead zone and neutral, triggers, shoulder buttons, faces."""
    outline = QPen(QColor(tokens.OUTLINE), 1)
    body = QPainterPath(QPointF(66, 40))
    body.lineTo(222, 40)
    body.cubicTo(250, 40, 262, 72, 270, 112)
    body.cubicTo(276, 142, 256, 150, 242, 136)
    body.lineTo(222, 114)
    body.lineTo(66, 114)
    body.lineTo(46, 136)
    body.cubicTo(32, 150, 12, 142, 18, 112)
    body.cubicTo(26, 72, 38, 40, 66, 40)
    painter.setPen(outline)
    painter.setBrush(QColor(tokens.BG))
    painter.drawPath(body)
    for x, name, left in ((44, "lt", True), (184, "rt", False)):
        painter.setPen(outline)
        painter.setBrush(QColor(tokens.BG))
        painter.drawRoundedRect(QRectF(x + 0.5, 4.5, 59, 7), 2, 2)
        value = max(0.0, min(1.0, raw.get(name, 0.0)))
        if value:
            painter.fillRect(QRectF(x + 1, 5, 58 * value, 6), QColor(T1))
        box = QRectF(x - 46, 0, 40, 16) if left else QRectF(x + 66, 0, 40, 16)
        draw_text(painter, box, name.upper(), T2, 11, REGULAR, RIGHT if left else Qt.AlignmentFlag.AlignVCenter)
    _cap(painter, QRectF(44.5, 18.5, 59, 15), "LB fine" if raw.get("lb") else "LB", raw.get("lb", 0.0) > 0)
    _cap(painter, QRectF(184.5, 18.5, 59, 15), "RB held" if deadman else "RB", deadman, tokens.TAKEOVER)
    for cx, cy, side in ((88, 76, "left"), (176, 96, "right")):
        dx, dy = raw.get(f"{side}_x", 0.0), raw.get(f"{side}_y", 0.0)
        active = abs(dx) + abs(dy) > 0.08
        painter.setPen(outline)
        painter.setBrush(QColor(tokens.BG))
        painter.drawEllipse(QPointF(cx, cy), 20, 20)
        dashed = QPen(QColor(tokens.OUTLINE), 1)
        dashed.setDashPattern([2, 2])
        painter.setPen(dashed)
        painter.drawEllipse(QPointF(cx, cy), 4, 4)
        knob = QPointF(cx + 20 * dx, cy + 20 * dy)
        if active:
            painter.setPen(QPen(QColor(T1), 1))
            painter.drawLine(QPointF(cx, cy), knob)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(T1 if active else T3))
        painter.drawEllipse(knob, 5, 5)
    for right, down, name in ((0, 13, "a"), (13, 0, "b"), (-13, 0, "x"), (0, -13, "y")):
        on = raw.get(name, 0.0) > 0
        box = QRectF(212 + right, 64 + down, 16, 16)
        painter.setPen(outline)
        painter.setBrush(QColor(T1) if on else Qt.BrushStyle.NoBrush)
        painter.drawEllipse(box)
        draw_text(painter, box, name.upper(), tokens.INK if on else T2, 11, MEDIUM, CENTER)
    _dpad(painter, raw, outline)
    for x, name in ((128, "back"), (152, "start")):
        painter.setPen(outline)
        painter.setBrush(QColor(T1) if raw.get(name, 0.0) > 0 else Qt.BrushStyle.NoBrush)
        painter.drawRoundedRect(QRectF(x + 0.5, 58.5, 9, 4), 2, 2)


def _dpad(painter: QPainter, raw: Mapping[str, float], outline: QPen) -> None:
    center = QPointF(119, 100)
    arms = {"up": QRectF(-4, -11, 8, 7), "down": QRectF(-4, 4, 8, 7), "left": QRectF(-11, -4, 7, 8), "right": QRectF(4, -4, 7, 8)}
    painter.setPen(outline)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    cross = QPainterPath()
    cross.addRect(QRectF(-4, -11, 8, 22).translated(center))
    side = QPainterPath()
    side.addRect(QRectF(-11, -4, 22, 8).translated(center))
    painter.drawPath(cross.united(side).simplified())
    for name, box in arms.items():
        if raw.get(name, 0.0) > 0:
            painter.fillRect(box.translated(center), QColor(T1))


def draw_spacemouse(painter: QPainter, reading: DeviceReading) -> None:
    """The cap from above, shifted and turned with the twist; height at the right."""
    x, y, z, _, _, yaw = reading.twist
    outline = QPen(QColor(tokens.OUTLINE), 1)
    painter.setPen(outline)
    painter.setBrush(QColor(tokens.BG))
    painter.drawEllipse(QPointF(120, 76), 62, 62)
    cap = QPointF(120 + 22 * x, 76 - 22 * y)
    painter.setPen(QPen(QColor(tokens.TAKEOVER if reading.deadman else T2), 2))
    painter.setBrush(QColor(tokens.RAISED))
    painter.drawEllipse(cap, 38, 38)
    painter.save()
    painter.translate(cap)
    painter.rotate(-yaw * 60)
    painter.setPen(QPen(QColor(T1), 2))
    painter.drawLine(QPointF(0, -34), QPointF(0, -20))
    painter.restore()
    painter.fillRect(QRectF(222, 20, 6, 112), QColor(tokens.LINE))
    painter.fillRect(QRectF(222, min(76.0, 76 - 56 * z), 6, abs(56 * z)), QColor(T1))
    painter.fillRect(QRectF(218, 76, 14, 1), QColor(tokens.OUTLINE))
    draw_text(painter, QRectF(236, 68, 30, 16), "z", T3, 11)
    if reading.deadman:
        draw_text(painter, QRectF(0, 136, 288, 16), "driving", tokens.TAKEOVER, 11, SEMIBOLD, CENTER)


class DevicePanel(Panel):
    """360 px high; below 320 the picture of the device is left out."""

    frame_chosen = Signal(str)
    speed_chosen = Signal(float)

    def __init__(self) -> None:
        super().__init__("Device", padding=0)
        self.picture = DevicePicture(self)
        self.segmented = Segmented(("View", "Base", "Tool"), height=24, parent=self)
        self.segmented.setToolTip("Directions as seen in the front picture, along the robot's base, or turning with the tool")
        self.segmented.changed.connect(lambda index: self.frame_chosen.emit(FRAMES[index]))
        self._figures: DeviceFigures | None = None

    def show_figures(self, figures: DeviceFigures, frame: str) -> None:
        self.segmented.set_index(FRAMES.index(frame))
        self.picture.show_reading(figures.reading, figures.driving)
        if figures != self._figures:
            self._figures = figures
            self.set_title(figures.reading.name if figures.reading else "No device", figures.note)
            self.update(0, self._top() - 8, self.width(), self.height())

    def _top(self) -> int:
        return 32 + (int(_PICTURE) if self.height() >= 320 else 0)

    def resizeEvent(self, event: QResizeEvent) -> None:
        self.picture.setVisible(self.height() >= 320)
        self.picture.setGeometry(0, 32, self.width(), int(_PICTURE))
        self.segmented.setGeometry(self.width() - 12 - 192, self._top() + 4, 192, 24)

    def mousePressEvent(self, event: object) -> None:
        """A click on the speed bar sets it."""
        position = event.position()  # type: ignore[attr-defined]
        y = self._speed_y()
        if y <= position.y() <= y + 26 and 72 <= position.x() < 72 + 28 * len(SPEEDS):
            self.speed_chosen.emit(SPEEDS[int((position.x() - 72) // 28)])

    def _speed_y(self) -> int:
        count = len(self._figures.axes) if self._figures else 4
        return self._top() + 34 + 20 * count + 28

    def paint_body(self, painter: QPainter) -> None:
        figures = self._figures
        if figures is None:
            return
        width, top = self.width(), self._top()
        draw_text(painter, QRectF(12, top + 4, 60, 24), "Frame", T2)
        middle = 72 + (width - 72 - 72) / 2
        half = (width - 144) / 2
        for i, (name, value) in enumerate(figures.axes):
            y = top + 34 + 20 * i
            draw_text(painter, QRectF(12, y, 60, 20), name, T2)
            painter.fillRect(QRectF(72, y + 8, 2 * half, 4), QColor(tokens.LINE))
            painter.fillRect(QRectF(min(middle, middle + value * half), y + 8, abs(value) * half, 4), QColor(T1))
            painter.fillRect(QRectF(round(middle), y + 5, 1, 10), QColor(tokens.OUTLINE))
            draw_text(painter, QRectF(0, y, width - 12, 20), signed(value), T1 if abs(value) > 0.04 else T3, 12, REGULAR, RIGHT)
        y = top + 34 + 20 * len(figures.axes) + 2
        draw_text(painter, QRectF(12, y, 60, 26), "Gripper", T2)
        if figures.gripper_share >= 0:
            share = min(1.0, figures.gripper_share)
            painter.fillRect(QRectF(72, y + 11, 112, 4), QColor(tokens.LINE))
            painter.fillRect(QRectF(72, y + 11, 112 * share, 4), QColor(T1))
            painter.fillRect(QRectF(72 + 112 * share, y + 7, 2, 12), QColor(T1))
        draw_text(painter, QRectF(190, y, width - 202, 26), figures.gripper_text, T1, 12, REGULAR, RIGHT)
        y = self._speed_y()
        draw_text(painter, QRectF(12, y, 60, 26), "Speed", T2)
        for i, speed in enumerate(SPEEDS):
            on = figures.speed >= speed - 1e-6
            painter.fillRect(QRectF(72 + 28 * i, y + 9, 24, 8), QColor(T1 if on else tokens.LINE))
        x = width - 12 - 44
        draw_text(painter, QRectF(180, y, x - 188, 26), f"{100 * figures.speed:.0f} %", T1, 12, REGULAR, RIGHT)
        draw_key_cap(painter, x, y + 13, "[")
        draw_key_cap(painter, x + 24, y + 13, "]")
