"""Icons on a 24 grid, drawn as strokes. Paths are SVG; `pixmap` renders and caches them at the screen's own resolution."""

from functools import lru_cache

from PySide6.QtCore import QByteArray, QPointF, QRectF, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

ICONS = {
    "hand": '<path d="M8 13V5.5a1.5 1.5 0 0 1 3 0V11M11 11V4a1.5 1.5 0 0 1 3 0v7M14 11V5.5a1.5 1.5 0 0 1 3 0V13M1'
    "7 10a1.5 1.5 0 0 1 3 0v4.5c0 4-2.5 7-6.5 7-3 0-4.7-1.2-6.2-3.6L4.3 13.6c-.9-1.5 1.2-2.9 2.4-1.6L8 13"
    '.5"/>',
    "pause": '<path d="M8.5 5v14M15.5 5v14" stroke-width="3.5"/>',
    "check": '<path d="M5 12.5l4.5 4.5L19 7.5"/>',
    "robot": '<rect x="5" y="8" width="14" height="11" rx="2"/><path d="M12 8V4.5M9.5 4.5h5M9 13v1.5M15 13v1.5M2.5 12.5v3M21.5 12.5v3"/>',
    "plug": '<path d="M9 3v5M15 3v5M6.5 8h11v3.5a5.5 5.5 0 0 1-11 0zM12 17v4"/>',
    "octagon": '<path d="M8.3 2.8h7.4l5.5 5.5v7.4l-5.5 5.5H8.3l-5.5-5.5V8.3z"/><path d="M8.5 12h7" stroke-width="2.6"/>',
    "operate": '<rect x="3" y="5" width="18" height="14" rx="1.5"/><circle cx="12" cy="12" r="3"/><path d="M12 7v2M1'
    '2 15v2M7 12h2M15 12h2"/>',
    "review": '<path d="M10.5 6H21M10.5 12H21M10.5 18H21M3 6l1.5 1.5L7.5 4.5M3 12l1.5 1.5 3-3M3 18l1.5 1.5 3-3"/>',
    "insights": '<path d="M3.5 3.5v17h17M7.5 15.5l4-5 3.5 3 5-7"/>',
    "setup": '<path d="M4 7h9M17 7h3M4 17h3M11 17h9"/><circle cx="15" cy="7" r="2"/><circle cx="9" cy="17" r="2"/>',
    "bell": '<path d="M6 16V10.5a6 6 0 0 1 12 0V16l1.5 2h-15zM10 20.5h4"/>',
    "shield": '<path d="M12 3l7.5 3v5.5c0 4.5-3 7.8-7.5 9.5-4.5-1.7-7.5-5-7.5-9.5V6zM12 8.5v4M12 15.5v.5"/>',
    "xcirc": '<circle cx="12" cy="12" r="8.5"/><path d="M9 9l6 6M15 9l-6 6"/>',
    "split": '<path d="M12 20v-7M12 13L5.5 6.5M12 13l6.5-6.5M5.5 11V6.5H10M14 6.5h4.5V11"/>',
    "dice": '<rect x="4" y="4" width="16" height="16" rx="2.5"/><path d="M8.5 8.5v.01M15.5 8.5v.01M12 12v.01M8.5 '
    '15.5v.01M15.5 15.5v.01" stroke-width="2.6"/>',
    "dots": '<path d="M5.5 12h.01M12 12h.01M18.5 12h.01" stroke-width="3.2"/>',
    "search": '<circle cx="10.5" cy="10.5" r="6"/><path d="M15 15l5.5 5.5"/>',
    "lock": '<rect x="5" y="11" width="14" height="9" rx="1.5"/><path d="M8.5 11V8a3.5 3.5 0 0 1 7 0v3"/>',
    "flag": '<path d="M5.5 21V4M5.5 4.5h12l-2.5 4 2.5 4h-12"/>',
    "teacher": '<path d="M2.5 9L12 4.5 21.5 9 12 13.5zM6.5 11v5c0 1.5 2.5 3 5.5 3s5.5-1.5 5.5-3v-5M21.5 9v6"/>',
    "up": '<path d="M12 19.5V5M5.5 11.5L12 5l6.5 6.5"/>',
    "back": '<path d="M9 6L4 11l5 5M4.5 11H15a5 5 0 0 1 0 10h-3"/>',
    "down": '<path d="M6 9.5l6 6 6-6"/>',
    "keyboard": '<rect x="2.5" y="6" width="19" height="12" rx="2"/><path d="M6 10h.01M10 10h.01M14 10h.01M18 10h.01M8 14h8"/>',
    "play": '<path d="M7 4.5l12 7.5-12 7.5z"/>',
    "star": '<path d="M12 3.5l2.6 5.4 5.9.8-4.3 4.1 1.05 5.9L12 16.9l-5.25 2.8 1.05-5.9L3.5 9.7l5.9-.8z"/>',
    "warning": '<path d="M12 4L21.5 20h-19zM12 10v4.5M12 17v.5"/>',
    "camera": '<rect x="3" y="6.5" width="12.5" height="11" rx="1.5"/><path d="M15.5 10.5l5.5-3v9l-5.5-3"/>',
}


@lru_cache(maxsize=512)
def pixmap(name: str, size: int, color: str, stroke: float = 1.75, ratio: float = 1.0) -> QPixmap:
    """``size`` in logical pixels. Raises `KeyError` naming the icon when there is no such one."""
    if name not in ICONS:
        raise KeyError(f"no icon {name!r}; known: {', '.join(sorted(ICONS))}")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="{color}" stroke-width="{stroke}" '
        f'stroke-linecap="round" stroke-linejoin="round">{ICONS[name]}</svg>'
    )
    renderer = QSvgRenderer(QByteArray(svg.encode()))
    made = QPixmap(round(size * ratio), round(size * ratio))
    made.fill(Qt.GlobalColor.transparent)
    painter = QPainter(made)
    renderer.render(painter, QRectF(0, 0, made.width(), made.height()))
    painter.end()
    made.setDevicePixelRatio(ratio)
    return made


def draw_icon(painter: QPainter, name: str, x: float, y: float, size: int, color: str, stroke: float = 1.75) -> None:
    """With its top left corner at (x, y)."""
    painter.drawPixmap(QPointF(x, y), pixmap(name, size, color, stroke, painter.device().devicePixelRatioF()))


def icon(name: str, color: str, size: int = 20) -> QIcon:
    return QIcon(pixmap(name, size, color, 1.75, 2.0))
