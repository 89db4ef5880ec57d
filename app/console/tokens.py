"""Design tokens and the application's look: colours, type, spacing, palette. The pictures they come from are the design mockups."""

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QFont, QFontDatabase, QPalette
from PySide6.QtWidgets import QApplication

from takeover.app.console.palette import (
    BAND,
    BG,
    CONTROL,
    FAULT_ROW,
    GRID,
    HOLD,
    INK,
    KEY_BORDER,
    LINE,
    OUTLINE,
    POLICY,
    RAISED,
    RAMP,
    READY,
    STOP,
    STOP_INK,
    SURFACE,
    T1,
    T2,
    T3,
    TAKEOVER,
)

__all__ = [
    "BAND",
    "BG",
    "BOLD",
    "CHIP_RADIUS",
    "CONTROL",
    "FAULT_ROW",
    "GRID",
    "GUTTER",
    "HOLD",
    "INK",
    "KEY_BORDER",
    "LINE",
    "MEDIUM",
    "OUTLINE",
    "PADDING",
    "PICTURE_RADIUS",
    "POLICY",
    "RADIUS",
    "RAISED",
    "RAMP",
    "READY",
    "REGULAR",
    "SEMIBOLD",
    "STOP",
    "STOP_INK",
    "STYLE",
    "SURFACE",
    "T1",
    "T2",
    "T3",
    "TAKEOVER",
    "apply_theme",
    "color",
    "font",
]

GUTTER = 8
PADDING = 12
RADIUS = 4
CHIP_RADIUS = 3
PICTURE_RADIUS = 2

REGULAR, MEDIUM, SEMIBOLD, BOLD = 400, 500, 600, 700
_FAMILIES = ["Inter", "Noto Sans", "DejaVu Sans"]
_FONT_FOLDER = Path(__file__).parent / "fonts"
_cache: dict[tuple[int, int, float], QFont] = {}


def font(size: int = 13, weight: int = REGULAR, spacing_px: float = 0.0) -> QFont:
    """Inter with tabular digits. ``size`` in pixels, never below 11. ``spacing_px``: extra letter spacing."""
    if size < 11:
        raise ValueError(f"font size {size} px; nothing in the console is smaller than 11 px")
    key = (size, weight, spacing_px)
    made = _cache.get(key)
    if made is None:
        made = QFont()
        made.setFamilies(_FAMILIES)
        made.setPixelSize(size)
        made.setWeight(QFont.Weight(weight))
        made.setHintingPreference(QFont.HintingPreference.PreferNoHinting)
        made.setFeature(QFont.Tag("tnum"), 1)
        if spacing_px:
            made.setLetterSpacing(QFont.SpacingType.AbsoluteSpacing, spacing_px)
        _cache[key] = made
    return made


def color(value: str, alpha: float = 1.0) -> QColor:
    made = QColor(value)
    made.setAlphaF(alpha)
    return made


def _palette() -> QPalette:
    palette = QPalette()
    role = QPalette.ColorRole
    pairs = {
        role.Window: BG,
        role.WindowText: T1,
        role.Base: BG,
        role.AlternateBase: SURFACE,
        role.Text: T1,
        role.Button: RAISED,
        role.ButtonText: T1,
        role.BrightText: STOP,
        role.ToolTipBase: RAISED,
        role.ToolTipText: T1,
        role.PlaceholderText: T3,
        role.Highlight: T1,
        role.HighlightedText: INK,
        role.Link: T1,
        role.Light: CONTROL,
        role.Midlight: LINE,
        role.Mid: LINE,
        role.Dark: BG,
        role.Shadow: BG,
    }
    for key, value in pairs.items():
        palette.setColor(key, QColor(value))
    for key in (role.WindowText, role.Text, role.ButtonText):
        palette.setColor(QPalette.ColorGroup.Disabled, key, QColor(T3))
    return palette


STYLE = f"""
QToolTip {{ background: {RAISED}; color: {T1}; border: 1px solid {CONTROL}; padding: 4px 6px; }}
QLineEdit, QPlainTextEdit, QComboBox {{ background: {BG}; color: {T1}; border: 1px solid {CONTROL}; border-radius: 4px; padding: 4px 8px; }}
QLineEdit:focus, QPlainTextEdit:focus, QComboBox:focus {{ border-color: {T2}; }}
QScrollBar:vertical {{ background: transparent; width: 8px; margin: 0; }}
QScrollBar::handle:vertical {{ background: {CONTROL}; border-radius: 3px; min-height: 24px; }}
QScrollBar:horizontal {{ background: transparent; height: 8px; margin: 0; }}
QScrollBar::handle:horizontal {{ background: {CONTROL}; border-radius: 3px; min-width: 24px; }}
QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
QListView {{ background: {SURFACE}; border: 0; outline: 0; }}
QListView::item {{ padding: 6px 8px; color: {T2}; }}
QListView::item:selected {{ background: {RAISED}; color: {T1}; }}
"""


def apply_theme(app: QApplication) -> None:
    """Fusion, our palette, the bundled font. Safe to call twice."""
    for path in sorted(_FONT_FOLDER.glob("*.otf")):
        if QFontDatabase.addApplicationFont(str(path)) < 0:
            raise RuntimeError(f"cannot load the bundled font {path}")
    app.setStyle("Fusion")
    app.setPalette(_palette())
    app.setFont(font(13))
    app.setStyleSheet(STYLE)
    app.setAttribute(Qt.ApplicationAttribute.AA_DontShowIconsInMenus, True)
