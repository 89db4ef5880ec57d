"""How often somebody may ask for what is kept for ever: marks and outcomes. A person's finger never meets the limit, a flood does."""

MARKS_PER_S = 20.0
MARKS_AT_ONCE = 20
MAX_REMEMBERED = 256  # peers; who asked longest ago is forgotten first


class MarkRate:
    """The rate of each peer: `MARKS_AT_ONCE` of them, and after that one whenever a twentieth of a second is over. I/O thread only."""

    def __init__(self) -> None:
        self._peers: dict[bytes, tuple[float, int]] = {}  # how many are left, when that was (ns); by last use

    def permits(self, peer: bytes, now_ns: int) -> bool:
        """Whether ``peer`` may ask for one now; then it counts."""
        left, then_ns = self._peers.pop(peer, (float(MARKS_AT_ONCE), now_ns))
        left = min(float(MARKS_AT_ONCE), left + (now_ns - then_ns) / 1e9 * MARKS_PER_S)
        permitted = left >= 1.0
        self._peers[peer] = (left - 1.0 if permitted else left, now_ns)
        while len(self._peers) > MAX_REMEMBERED:
            self._peers.pop(next(iter(self._peers)))
        return permitted
