"""Which episodes of normal work are no-help probes, and of which version: drawn before the episode, a function of nothing that happens.

In a block of policy episodes each one becomes a probe with probability ``share``. With two versions probes come in blocks of two, one
of each in random order (`takeover.policies.probes` reads them so). Whoever operates cannot choose: an episode that is dropped before
its first step draws the same again.
"""

from dataclasses import dataclass

from takeover.data.schema import RunConfig
from takeover.data.seeding import start_seed, stream

MAX_VERSIONS = 2


@dataclass(frozen=True)
class ProbeSchedule:
    """Raises `ValueError` for what cannot be."""

    seed: int = 0
    session: str = ""  # a session draws its own; lockstep, which must be the same in every run, has ""
    share: float = 0.0  # of policy episodes, in [0, 1]
    versions: tuple[int, ...] = ()  # none: whichever acts; two: in random order within each block

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"probe share {self.share:g}: 0 (no probes) to 1 (nothing else)")
        if len(self.versions) > MAX_VERSIONS or len(set(self.versions)) != len(self.versions) or min(self.versions, default=1) < 1:
            raise ValueError(f"probe versions {list(self.versions)}: none, one, or two different ones, from 1 on")

    @classmethod
    def of(cls, config: RunConfig) -> "ProbeSchedule":
        session = "" if config.clock == "lockstep" else config.session_id
        return cls(config.seed, session, config.probe_share, tuple(config.probe_versions))

    def is_probe(self, episode: int) -> bool:
        """Whether policy episode ``episode`` of the session (0, 1, ..., probes counted) is one."""
        return self.share > 0.0 and float(stream(self.seed, f"probe-{self.session}", episode).random()) < self.share

    def start(self, probe: int) -> int:
        """Simulated start of probe ``probe``: another one in every session, as normal work has it, and never a held-out one."""
        return start_seed(self.seed, f"probe-{self.session}", probe)

    def version(self, probe: int) -> int:
        """The version that drives in probe ``probe`` (0, 1, ...) of the session; 0: whichever acts."""
        if len(self.versions) < MAX_VERSIONS:
            return self.versions[0] if self.versions else 0
        turned = float(stream(self.seed, f"probe-order-{self.session}", probe // 2).random()) < 0.5
        return self.versions[(probe + turned) % 2]
