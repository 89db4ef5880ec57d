"""A new reward classifier against the one before it: the same held-out episodes, none of which either was trained on. Loads no torch."""

import math
from collections.abc import Sequence

import msgspec

from takeover.policies.reward_settings import RewardError

WORSE_P = 0.05
RIGHT = ("found", "clean")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``episodes`` held out: how many each version judges rightly, and in how many they differ."""

    version: int  # the one before
    episodes: int
    right_before: int
    right: int
    mended: int  # right now, wrong before
    broken: int  # wrong now, right before

    @property
    def worse(self) -> bool:
        """Whether chance does not explain what is broken: one-sided sign test over the episodes in which they differ, 5 %."""
        return sign_test(self.broken, self.mended) < WORSE_P

    def said(self) -> str:
        return (
            f"of {self.episodes} held-out episodes it judges {self.right} rightly, version {self.version} {self.right_before}: "
            f"{self.mended} mended, {self.broken} broken"
        )


class WorseReward(RewardError):
    """The new classifier is worse than the one before; it was not written."""


def sign_test(more: int, fewer: int) -> float:
    """P(at least ``more`` of ``more + fewer`` fair coins); 1 where there is none."""
    n = more + fewer
    return sum(math.comb(n, k) for k in range(more, n + 1)) / 2**n


def compare(version: int, before: Sequence[str], now: Sequence[str]) -> Comparison:
    """Verdicts (`reward_fit.verdicts`) of both on the same episodes; "" where nothing is known of one."""
    pairs = [(old in RIGHT, new in RIGHT) for old, new in zip(before, now, strict=True) if old]
    return Comparison(
        version=version,
        episodes=len(pairs),
        right_before=sum(old for old, _ in pairs),
        right=sum(new for _, new in pairs),
        mended=sum(new and not old for old, new in pairs),
        broken=sum(old and not new for old, new in pairs),
    )
