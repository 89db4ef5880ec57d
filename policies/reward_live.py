"""The newest reward classifier beside an acting policy: the probability of success of what is seen now."""

import logging
import time
from pathlib import Path

import numpy as np

from takeover.data.schema import Observation, RobotSpec
from takeover.policies.reward_model import RewardModel
from takeover.policies.reward_settings import RewardError
from takeover.policies.reward_store import load_reward, newest_for, rewards_folder

log = logging.getLogger("actor")

SCORE = "success"
POLL_S = 2.0


class RewardWatch:
    """Follows ``<workspace>/rewards``. One that cannot be used is said once, and the one in use goes on."""

    def __init__(self, workspace: str | Path, spec: RobotSpec) -> None:
        self.version = 0  # 0: none
        self.error = ""
        self._workspace = Path(workspace)
        self._spec = spec
        self._model: RewardModel | None = None
        self._polled_s = float("-inf")
        self._seen_ns = -1
        self._without_pictures = False

    def poll(self, now_s: float | None = None) -> bool:
        """Look for a newer one, at most every two seconds; True when there is another one in use."""
        now_s = time.monotonic() if now_s is None else now_s
        if now_s - self._polled_s < POLL_S:
            return False
        self._polled_s = now_s
        try:
            changed_ns = rewards_folder(self._workspace).stat().st_mtime_ns
        except OSError:
            return False
        if changed_ns == self._seen_ns:
            return False
        self._seen_ns = changed_ns
        try:
            manifest = newest_for(self._workspace, self._spec.robot_id, self._spec.task_id)
            if manifest is None or manifest.version == self.version:
                return False
            self._model, _ = load_reward(self._workspace, manifest.version, self._spec)
        except RewardError as error:
            self.error = str(error)
            log.warning("reward classifier: %s", error)
            return False
        self.version, self.error, self._without_pictures = manifest.version, "", False
        log.info("reward classifier %d, threshold %.2f", manifest.version, manifest.threshold)
        return True

    def score(self, message: Observation) -> float | None:
        """Probability of success of an observation; None without a classifier, or while its cameras give no picture."""
        model = self._model
        if model is None:
            return None
        pictures = {i.camera: np.frombuffer(i.data, np.uint8).reshape(i.height, i.width, 3) for i in message.images}
        missing = [camera for camera in model.config.cameras if camera not in pictures]
        if missing:
            if not self._without_pictures:
                log.warning("reward classifier %d: no picture of %s", self.version, ", ".join(missing))
            self._without_pictures = True
            return None
        return model.probability(np.asarray(message.observation, np.float32), pictures)

    def passes(self, probability: float | None) -> bool:
        """Whether it calls that success."""
        return probability is not None and self._model is not None and probability >= self._model.config.threshold
