"""Drawing for contact sheets into numpy pictures: text and scaling with Pillow, boxes, PNG bytes."""

import functools
import io
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_SIZE = 13
_ASCENT = 1.4  # of its size, what a line of the font takes in height, letters that hang below the line included


def encode_png(picture: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB picture as PNG bytes. Raises `ValueError` for any other shape or type."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {picture.shape} {picture.dtype}")
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


@functools.cache
def _font(size: int) -> Any:
    """Pillow's own font: the same letters on every machine."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int = FONT_SIZE) -> int:
    """Pixels that `draw_text` needs."""
    return math.ceil(_font(size).getlength(text))


def draw_text(picture: np.ndarray, x: int, y: int, text: str, colour: tuple[int, int, int], size: int = FONT_SIZE) -> None:
    """Write ``text`` with its upper left corner at (x, y); what does not fit is cut off."""
    region = picture[max(0, y) : max(0, y + math.ceil(_ASCENT * size)), max(0, x) : max(0, x + text_width(text, size) + 1)]
    if not region.size:
        return
    image = Image.fromarray(np.ascontiguousarray(region))
    ImageDraw.Draw(image).text((min(0, x), min(0, y)), text, fill=colour, font=_font(size))
    region[:] = np.asarray(image)


def fill(picture: np.ndarray, x: int, y: int, width: int, height: int, colour: tuple[int, int, int]) -> None:
    """A filled box, cut off at the edges."""
    picture[max(0, y) : max(0, y + height), max(0, x) : max(0, x + width)] = colour


def frame(picture: np.ndarray, x: int, y: int, width: int, height: int, colour: tuple[int, int, int], thickness: int = 3) -> None:
    """A border just inside a box."""
    for box in (
        (x, y, width, thickness),
        (x, y + height - thickness, width, thickness),
        (x, y, thickness, height),
        (x + width - thickness, y, thickness, height),
    ):
        fill(picture, *box, colour)


def fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3): the picture in that box, its proportions kept, black beside it; pixels averaged or repeated."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    new_width, new_height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    scaled = np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize((new_width, new_height), how))
    out = np.zeros((height, width, 3), np.uint8)
    y, x = (height - new_height) // 2, (width - new_width) // 2
    out[y : y + new_height, x : x + new_width] = scaled
    return out
