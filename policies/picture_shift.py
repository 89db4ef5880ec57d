"""Pictures shifted by some pixels, their edges repeated: the augmentation of DrQ (Kostrikov et al. 2021), many frames at once.

A shifted frame is one copy of all its bytes at an offset, as fast as memory is; what then stands at its edges is mended for all frames
with the same shift together, columns by words of four bytes.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

PAD = 4  # pixels by which a picture is shifted at most
_CHANNELS = 3
_WORD = 4  # bytes


def shift_all(frames: Iterable[Pixels], shifts: npt.NDArray[np.int64], out: Pixels) -> None:
    """What a crop at ``shifts`` (n, 2) (down, right; at most `PAD` each way) of each frame (cameras, H, W, 3), padded with its own edges,
    shows, into ``out`` (n, cameras, H, W, 3), contiguous. The frames are taken one by one, so a buffer may hold one after the other."""
    count, cameras, height, width, channels = out.shape
    offsets = (channels * (shifts[:, 1] + width * shifts[:, 0])).tolist()
    for frame, offset, target in zip(frames, offsets, out.reshape(count, -1), strict=True):
        source = frame.reshape(-1)
        if offset >= 0:
            target[: len(target) - offset] = source[offset:]
        else:
            target[-offset:] = source[:offset]
    rows = out.reshape(count, cameras * height, width * channels)
    by_words = width * channels % _WORD == 0
    for right in (*range(-PAD, 0), *range(1, PAD + 1)):
        (moved,) = np.nonzero(shifts[:, 1] == right)
        if len(moved):
            (_mend_words if by_words else _mend_pixels)(rows, moved, right)
    by_row = out.reshape(count, cameras, height, width * channels)
    for down in range(1, PAD + 1):
        (moved,) = np.nonzero(shifts[:, 0] == -down)
        by_row[moved, :, :down] = by_row[moved, :, down : down + 1]
        (moved,) = np.nonzero(shifts[:, 0] == down)
        by_row[moved, :, -down:] = by_row[moved, :, -down - 1 : -down]


def _mend_pixels(rows: Pixels, moved: npt.NDArray[np.intp], right: int) -> None:
    """In frames ``moved`` of ``rows`` (n, rows, bytes): the columns that a shift by ``right`` uncovers become the one beside them."""
    pixels = rows.view(np.dtype(f"V{_CHANNELS}"))
    beside = pixels[moved, :, -right] if right < 0 else pixels[moved, :, -right - 1]
    for column in range(abs(right)):
        pixels[moved, :, column if right < 0 else -1 - column] = beside


def _mend_words(rows: Pixels, moved: npt.NDArray[np.intp], right: int) -> None:
    """As `_mend_pixels`, four bytes at a time. A word that reaches beyond those columns does so into the one beside them, whose own bytes
    it brings: at most `PAD` columns and the next are 15 bytes."""
    words = rows.view("<u4")
    width = rows.shape[2] // _CHANNELS
    beside = -right if right < 0 else width - right - 1
    word, bits = divmod(8 * _CHANNELS * beside, 8 * _WORD)
    pixel = words[moved, :, word].astype(np.uint64) >> np.uint64(bits)
    if bits > 8 * (_WORD - _CHANNELS):  # its last bytes are in the next word
        pixel |= words[moved, :, word + 1].astype(np.uint64) << np.uint64(8 * _WORD - bits)
    pixel &= np.uint64(0xFFFFFF)
    twice = pixel | pixel << np.uint64(8 * _CHANNELS)
    first, last = (0, _CHANNELS * -right) if right < 0 else (_CHANNELS * (width - right), rows.shape[2])  # bytes
    for word in range(first // _WORD, -(-last // _WORD)):
        phase = 8 * (_WORD * word % _CHANNELS)  # bits by which a word begins within a pixel
        words[moved, :, word] = (twice >> np.uint64(phase)).astype(np.uint32)
