"""The evaluator as the learned reward's keeper: the next classifier after some vetoes, in the background, and replay scored anew by it."""

import logging
from collections.abc import Callable

from takeover.data.catalog_errors import CATALOG_FAILURES, reason_of
from takeover.data.label_log import LabelError
from takeover.data.schema import RobotSpec, RunConfig
from takeover.policies.reward_settings import RewardError
from takeover.policies.reward_upkeep import RewardUpkeep

log = logging.getLogger("evaluator")


class RewardKeeper:
    """Does nothing unless the station's reward is a classifier's and the clock is real.

    A lockstep run keeps the classifier that was there at its start: it is a function of its seed.
    """

    def __init__(self, config: RunConfig, spec: RobotSpec) -> None:
        wanted = config.reward == "classifier" and config.clock == "realtime"
        self._upkeep = RewardUpkeep(config.workspace, spec.robot_id, spec.task_id, config.retrain_reward_after) if wanted else None
        self._problem = ""

    @property
    def notices(self) -> list[str]:
        """What everyone should know; empty when there is nothing."""
        if self._upkeep is None:
            return []
        return [text for text in (self._problem, self._upkeep.notice) if text]

    @property
    def figures(self) -> dict[str, float]:
        """`RewardUpkeep.figures`; empty where nothing is kept up."""
        return self._upkeep.figures if self._upkeep is not None else {}

    def close(self) -> None:
        """Let the catalog go."""
        if self._upkeep is not None:
            self._upkeep.close()

    def look(self, goes_on: Callable[[], bool]) -> None:
        """Train and score anew if it is due; ``goes_on()`` False stops it, and the next look begins again. Never raises for bad data."""
        if self._upkeep is None:
            return
        before = self.notices
        try:
            self._upkeep.look(goes_on)
            self._problem = ""
        except CATALOG_FAILURES as error:
            self.close()
            self._problem = f"learned reward: {reason_of(error)}; the present one stays, and it is tried again"
        except (RewardError, LabelError, OSError) as error:
            self._problem = f"learned reward: {error}; the present one stays, and it is tried again"
        for text in self.notices:
            if text not in before:
                log.warning("%s", text)
