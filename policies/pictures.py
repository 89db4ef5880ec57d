"""Pictures for replay: each stored once, as uint8, and copied out with the random shift of training.

`RawFrames` keeps them as they are (98 KB for two cameras of 128x128), `JpegFrames` as JPEG: a fraction of the memory, many times the time.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import simplejpeg

from takeover.policies.picture_shift import Pixels, shift_all

JPEG_QUALITY = 95
_BLOCK = 256  # frames that are allocated at a time
MAX_FRAMES = 1 << 24  # above that a float32 does not hold every number


class FramesFull(RuntimeError):
    """There is no room for another frame."""


class Frames(Protocol):
    """A store of frames (cameras, H, W, 3), by number."""

    shape: tuple[int, int, int, int]
    capacity: int
    most_bytes: int  # that the stored frames may take

    def put(self, frame: Pixels, *, beyond: bool = False) -> int:
        """Store a copy. Raises `FramesFull`; ``beyond``: not for ``most_bytes``."""
        ...

    def free(self, kept: npt.NDArray[np.bool_]) -> int:
        """Give up every frame whose number is not marked in ``kept`` (capacity,); returns how many."""
        ...

    def copy(self, numbers: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64], out: Pixels) -> None:
        """Frames ``numbers`` (n,) shifted by ``shifts`` (n, 2) (down, right; see `shift_all`) into ``out`` (n, cameras, H, W, 3)."""
        ...

    @property
    def used(self) -> int:
        """How many frames are stored."""
        ...

    @property
    def used_bytes(self) -> int:
        """Of all stored frames."""
        ...


UNBOUNDED = 1 << 62  # bytes


class _Numbers:
    """Which numbers are free, lowest first."""

    def __init__(self, capacity: int) -> None:
        if not 1 <= capacity <= MAX_FRAMES:
            raise ValueError(f"capacity of {capacity} frames; allowed 1..{MAX_FRAMES}")
        self.used = np.zeros(capacity, np.bool_)
        self.count = 0  # of those in use
        self._free: list[int] = []
        self._next = 0

    def take(self) -> int:
        if self._free:
            number = self._free.pop()
        elif self._next < len(self.used):
            number, self._next = self._next, self._next + 1
        else:
            raise FramesFull(f"all {len(self.used)} frames are in use")
        self.used[number] = True
        self.count += 1
        return number

    def release(self, kept: npt.NDArray[np.bool_]) -> list[int]:
        gone = np.flatnonzero(self.used & ~kept)
        self.used[gone] = False
        self.count -= len(gone)
        self._free = sorted([*self._free, *gone.tolist()], reverse=True)
        return gone.tolist()


class RawFrames:
    """Frames as they are, in blocks that are allocated when they are needed."""

    def __init__(self, shape: tuple[int, int, int, int], capacity: int, most_bytes: int = UNBOUNDED) -> None:
        self.shape, self.capacity, self.most_bytes = shape, capacity, most_bytes
        self._numbers = _Numbers(capacity)
        self._blocks: list[Pixels] = []

    def put(self, frame: Pixels, *, beyond: bool = False) -> int:
        if not beyond:
            _check_room(self.used_bytes, frame.nbytes, self.most_bytes)
        number = self._numbers.take()
        while number // _BLOCK >= len(self._blocks):
            self._blocks.append(np.empty((min(_BLOCK, self.capacity - len(self._blocks) * _BLOCK), *self.shape), np.uint8))
        self._blocks[number // _BLOCK][number % _BLOCK] = frame
        return number

    def free(self, kept: npt.NDArray[np.bool_]) -> int:
        return len(self._numbers.release(kept))

    def copy(self, numbers: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64], out: Pixels) -> None:
        shift_all((self._blocks[number // _BLOCK][number % _BLOCK] for number in numbers.tolist()), shifts, out)

    @property
    def used(self) -> int:
        return self._numbers.count

    @property
    def used_bytes(self) -> int:
        return self.used * int(np.prod(self.shape))


class JpegFrames:
    """Frames as one JPEG per camera. Copying decodes them: leave that to a thread that is ahead of the learner (`PictureReplay`)."""

    def __init__(self, shape: tuple[int, int, int, int], capacity: int, most_bytes: int = UNBOUNDED) -> None:
        self.shape, self.capacity, self.most_bytes = shape, capacity, most_bytes
        self._numbers = _Numbers(capacity)
        self._jpegs: dict[int, tuple[bytes, ...]] = {}
        self._bytes = 0

    def put(self, frame: Pixels, *, beyond: bool = False) -> int:
        jpegs = tuple(
            bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"))
            for picture in frame
        )
        if not beyond:
            _check_room(self._bytes, sum(map(len, jpegs)), self.most_bytes)
        number = self._numbers.take()
        self._jpegs[number] = jpegs
        self._bytes += sum(map(len, jpegs))
        return number

    def free(self, kept: npt.NDArray[np.bool_]) -> int:
        gone = self._numbers.release(kept)
        for number in gone:
            self._bytes -= sum(map(len, self._jpegs.pop(number)))
        return len(gone)

    def copy(self, numbers: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64], out: Pixels) -> None:
        shift_all(self._decoded(numbers.tolist()), shifts, out)

    def _decoded(self, numbers: list[int]) -> Iterator[Pixels]:
        """One after another, in the same buffer."""
        frame = np.empty(self.shape, np.uint8)
        for number in numbers:
            for camera, jpeg in enumerate(self._jpegs[number]):
                simplejpeg.decode_jpeg(jpeg, colorspace="RGB", buffer=frame[camera])
            yield frame

    @property
    def used(self) -> int:
        return self._numbers.count

    @property
    def used_bytes(self) -> int:
        return self._bytes


def _check_room(used: int, more: int, most: int) -> None:
    if used + more > most:
        raise FramesFull(f"{used} bytes of frames are in use; {more} more would be above {most}")
