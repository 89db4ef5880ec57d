"""Drawing for contact sheets with nothing but numpy: a PNG writer, boxes, and a small font."""

import struct
import zlib

import numpy as np

GLYPH_WIDTH, GLYPH_HEIGHT = 3, 5
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:/(),+"
_ROWS = (
    "75557 26227 71747 71717 55711 74717 74757 71111 75757 75717 25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 "
    "57755 65555 25552 65644 25563 65655 34216 72222 55557 55552 55775 55255 55222 "
    "71247 00002 00700 00007 02020 11244 12221 42224 00024 02720"
)
_GLYPHS = {letter: _ROWS[6 * index : 6 * index + 5] for index, letter in enumerate(_LETTERS)}
"""Five rows of three bits, as octal digits. What is not here is drawn as a space."""


def encode_png(picture: np.ndarray) -> bytes:
    """An (H, W, 3) uint8 RGB picture as PNG bytes. Raises `ValueError` for any other shape or type."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(f"a picture is (H, W, 3) uint8, not {picture.shape} {picture.dtype}")
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + width * 3), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = picture.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")


def text_width(text: str, scale: int = 2) -> int:
    """Pixels that `draw_text` needs."""
    return len(text) * (GLYPH_WIDTH + 1) * scale


def draw_text(picture: np.ndarray, x: int, y: int, text: str, colour: tuple[int, int, int], scale: int = 2) -> None:
    """Write ``text`` (in capitals) with its upper left corner at (x, y); what does not fit is cut off."""
    for index, letter in enumerate(text.upper()):
        left = x + index * (GLYPH_WIDTH + 1) * scale
        for row, bits in enumerate(_GLYPHS.get(letter, "00000")):
            for column in range(GLYPH_WIDTH):
                if int(bits) >> (GLYPH_WIDTH - 1 - column) & 1:
                    fill(picture, left + column * scale, y + row * scale, scale, scale, colour)


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
    """(height, width, 3): the picture in that box, its proportions kept, nearest pixels, black beside it."""
    scale = min(width / picture.shape[1], height / picture.shape[0])
    new_width, new_height = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    rows = np.minimum((np.arange(new_height) / scale).astype(int), picture.shape[0] - 1)
    columns = np.minimum((np.arange(new_width) / scale).astype(int), picture.shape[1] - 1)
    out = np.zeros((height, width, 3), np.uint8)
    y, x = (height - new_height) // 2, (width - new_width) // 2
    out[y : y + new_height, x : x + new_width] = picture[rows][:, columns]
    return out
