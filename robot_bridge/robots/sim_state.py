"""Exact simulator states as bytes: named float64 arrays and a random generator behind a small header, constant in length."""

import struct

import numpy as np
import numpy.typing as npt

from takeover.robot_bridge.robots.base import RobotError

FloatArray = npt.NDArray[np.float64]

_HEADER = struct.Struct("<8sII")  # magic, version, float64 count
_MAGIC = b"TKOSIM\x00\x00"
_VERSION = 1
_RANDOM_WORDS = 6
_WORD = (1 << 64) - 1


def pack(arrays: list[FloatArray], generator: np.random.Generator) -> bytes:
    """Bytes of ``arrays`` (any shapes, float64) and of the PCG64 ``generator``; a multiple of 8."""
    flat = np.concatenate([array.reshape(-1) for array in arrays])
    return _HEADER.pack(_MAGIC, _VERSION, flat.size) + flat.tobytes() + _random_words(generator).tobytes()


def unpack(state: bytes, sizes: list[int]) -> tuple[list[FloatArray], np.random.Generator]:
    """Inverse of `pack`: arrays of ``sizes``, and a generator. Raises `RobotError` when ``state`` is not of this kind."""
    expected = _HEADER.size + 8 * (sum(sizes) + _RANDOM_WORDS)
    if len(state) != expected:
        raise RobotError(
            f"simulator state of {len(state)} bytes; this task's states have {expected}: was it saved by another task or version?"
        )
    magic, version, count = _HEADER.unpack_from(state)
    if magic != _MAGIC or version != _VERSION or count != sum(sizes):
        raise RobotError(f"not a simulator state of version {_VERSION} (header {magic!r}, version {version}, {count} numbers)")
    flat = np.frombuffer(state, np.float64, count, _HEADER.size).copy()
    if not np.isfinite(flat).all():
        raise RobotError("simulator state holds non-finite numbers; it is damaged")
    arrays = list(np.split(flat, np.cumsum(sizes)[:-1]))
    return arrays, _generator(np.frombuffer(state, np.uint64, _RANDOM_WORDS, _HEADER.size + 8 * count))


def reseeded(state: bytes, generator: np.random.Generator) -> bytes:
    """``state`` with another PCG64 ``generator``: all the same but what is drawn at random from now on. Raises `RobotError`."""
    size = len(state) - _HEADER.size - 8 * _RANDOM_WORDS
    if size < 0 or _HEADER.unpack_from(state) != (_MAGIC, _VERSION, size // 8):
        raise RobotError(f"not a simulator state of version {_VERSION} ({len(state)} bytes); its noise cannot be varied")
    return state[: _HEADER.size + size] + _random_words(generator).tobytes()


def _random_words(generator: np.random.Generator) -> npt.NDArray[np.uint64]:
    state = generator.bit_generator.state
    inner = state["state"]
    words = [inner["state"] & _WORD, inner["state"] >> 64, inner["inc"] & _WORD, inner["inc"] >> 64, state["has_uint32"], state["uinteger"]]
    return np.array(words, np.uint64)


def _generator(words: npt.NDArray[np.uint64]) -> np.random.Generator:
    state, state_high, inc, inc_high, has_uint32, uinteger = (int(word) for word in words)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": state | state_high << 64, "inc": inc | inc_high << 64},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }
    return np.random.Generator(bits)
