"""Random streams that derive from (seed, role, index), so that every process draws the same numbers in every run."""

import zlib

import numpy as np

HELDOUT_BASE = 1_000_000_000  # starts from here on are the held-out ones; no training run draws them
HELDOUT_STARTS = 200
DEMONSTRATION_BASE = 500_000_000


def stream(seed: int, role: str, index: int = 0) -> np.random.Generator:
    """A generator that is a function of its three arguments alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed & 0xFFFFFFFF, zlib.crc32(role.encode()), index])))


def start_seed(seed: int, kind: str, index: int) -> int:
    """Start of training episode ``index``: below `HELDOUT_BASE`, so never a held-out one."""
    return int(stream(seed, f"start-{kind}", index).integers(0, DEMONSTRATION_BASE))


def heldout_start(index: int) -> int:
    """Held-out start ``index`` in [0, 200): fixed, the same for every run and policy."""
    if not 0 <= index < HELDOUT_STARTS:
        raise ValueError(f"held-out start {index}; there are {HELDOUT_STARTS}")
    return HELDOUT_BASE + index
