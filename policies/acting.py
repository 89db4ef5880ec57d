"""What an actor does with observations and new versions, without transport: load, check, swap, answer."""

import itertools
import time
from pathlib import Path

import numpy as np
import torch

from takeover.data.schema import Observation, PolicyAction, RobotSpec
from takeover.data.seeding import stream
from takeover.policies.base import PolicyRefused, SeesPictures, of_version
from takeover.policies.decision_watch import DecisionWatch
from takeover.policies.frames import RelativePolicy, begin_episode
from takeover.policies.manifest import has_weights, read_manifest, version_folder, version_numbers
from takeover.policies.publish import LoadedPolicy, load_for
from takeover.policies.quarantine import wrong_observation
from takeover.policies.reward_live import SCORE, RewardWatch
from takeover.policies.steps_to_go_file import HeadWatch
from takeover.policies.version_watch import VersionWatch

_CACHED = 4
LATEST_FIRST_STEP = 2  # an observation up to this step may stand for the first: at most 10 mm off
_TRIES = 10  # versions that are tried when the one in use may act no longer


class Acting:
    """The policy in use and the one that waits for the next episode.

    In training episodes an online learner's policy samples, with noise that is a function of (seed, training step); everywhere
    else it is deterministic. Where `follow_decisions` is asked, what was decided about versions holds: a pinned one acts alone, a
    refused one never.
    """

    def __init__(self, workspace: str | Path, spec: RobotSpec, seed: int) -> None:
        self.workspace = workspace
        self.spec = spec
        self.seed = seed
        self.current: LoadedPolicy | None = None
        self.refused = ""
        self.waiting = ""  # why there is no answer now
        self.since_ns = 0
        self.inference_ms = 0.0
        self.reward = RewardWatch(workspace, spec)
        self.reward.poll()
        self._decisions = DecisionWatch(workspace, spec.robot_id, spec.task_id)
        self._versions = VersionWatch(workspace)
        self.progress = HeadWatch(workspace, spec)
        self._next: LoadedPolicy | None = None
        self._refused_version = 0
        self._mute = False  # the policy in use could not answer the newest observation
        self._lent = False  # the policy in use was required by the bridge; the next episode without that goes back
        self._cache: dict[int, LoadedPolicy] = {}
        self._ours: dict[int, bool] = {}  # version -> whether it is for this robot and task
        self._fled: int = 0  # version that may act no longer and has not been left yet
        self._place: tuple[str, int] = ("", -1)
        self._first: list[float] | None = None  # the running episode's first observation
        self._answered: tuple[tuple[str, int, int], PolicyAction] | None = None
        self._generator = torch.Generator()

    def newest_on_disk(self) -> int:
        """The newest version of this robot and task that may act; 0: none. Costs no more where many were published before."""
        self._versions.poll()
        newest = self._versions.newest_first
        self._ours = {version: ours for version, ours in self._ours.items() if version in newest}
        return self._decisions.standing.may_act(version for version in newest if self._is_ours(version))

    def _is_ours(self, version: int) -> bool:
        """Read once from the manifest, which never changes. One that is damaged may be: loading it says what is wrong."""
        if version not in self._ours:
            try:
                manifest = read_manifest(version_folder(self.workspace, version))
            except PolicyRefused:
                return True
            self._ours[version] = (manifest.robot_id, manifest.task_id) == (self.spec.robot_id, self.spec.task_id)
        return self._ours[version]

    @property
    def pinned(self) -> int:
        """The only version that may act; 0: any that was not refused."""
        return self._decisions.standing.pinned

    def follow_decisions(self) -> bool:
        """Look whether something was decided; a policy that may act no longer is left at once. True when the policy in use changed."""
        decided = self._decisions.poll()
        if not decided and (not self._fled or self._fled != self.version):
            return False
        self._fled = 0
        if self._decisions.error:
            self.refused = self._decisions.error
            return False
        self.refused, self._refused_version = "", 0
        if self._next is not None and not self._may_act(self._next.manifest.version):
            self._next = None
        if self.current is None or self._may_act(self.version):
            return False
        pinned = self._decisions.standing.pinned
        published = (
            v for v in reversed(version_numbers(self.workspace)) if self._may_act(v) and self._is_ours(v) and has_weights(self.workspace, v)
        )
        problem = "it was refused, and there is no other version"
        for version in [pinned] if pinned else itertools.islice(published, _TRIES):
            try:
                self._use(self._load(version))
                return True
            except PolicyRefused as error:
                problem = f"version {version} cannot act instead: {error}"
        self.refused, self._fled = f"version {self.version} goes on acting: {problem}", self.version  # tried again at every look
        return False

    def _may_act(self, version: int) -> bool:
        standing = self._decisions.standing
        return version == standing.pinned if standing.pinned else version not in standing.refused

    def offer(self, version: int) -> bool:
        """Load a newer version and take it, at once or from the next episode on. True when the policy in use changed."""
        newest = max(self.version, self._next.manifest.version if self._next else 0)
        if self._lent or version <= newest or version == self._refused_version or not self._may_act(version) or self._decisions.error:
            return False
        try:
            loaded = self._load(version)
        except PolicyRefused as error:
            self.refused = of_version(version, error)
            self._refused_version = version
            return False
        self.refused = ""
        if self.current is not None and loaded.manifest.swap == "episode":
            self._next = loaded
            return False
        self._use(loaded)
        return True

    @property
    def version(self) -> int:
        return self.current.manifest.version if self.current else 0

    @property
    def sha256(self) -> str:
        return self.current.manifest.sha256 if self.current else ""

    def answer(self, message: Observation) -> PolicyAction | None:
        """The policy's action for one observation; None while there is no policy, or the required one was refused.

        An observation that is sent again gets the same answer: a history must not see it twice.
        """
        key = (message.session, message.seq, message.required_version)
        if self._answered is not None and key == self._answered[0] and message.seq >= 0:
            return self._answered[1]
        answer = self._answer(message)
        if answer is not None:
            self._answered = (key, answer)
        return answer

    def _answer(self, message: Observation) -> PolicyAction | None:
        new_episode = message.episode_id != self._place[0]
        if message.required_version and not self._may_act(message.required_version):
            self.refused = f"version {message.required_version} was asked for and may not act; version {self.version} goes on"
        elif message.required_version:
            self._lent = True
            if message.required_version != self.version and not self._take(message.required_version):
                return None
        elif self._lent and new_episode:
            self._lent, self.refused = False, ""
            if newest := self.newest_on_disk():
                self._take(newest)
        if new_episode and self._next is not None and not message.required_version:
            self._use(self._next)
        if self.current is None:
            return None
        if new_episode or (self._first is None and not message.episode_id):
            self.progress.look()
            self._first = self._first_of(message)
            begin_episode(self.current.policy, message.observation)
        elif self._first is None and (first := self._first_of(message)) is not None:
            self._first = first
            begin_episode(self.current.policy, first)
        self.waiting = ""
        if self._first is None and isinstance(self.current.policy, RelativePolicy) and self.current.policy.needs_first:
            self.waiting = f"version {self.version} waits for the next episode: it needs the first pose, and this one had begun"
            return None
        if (message.episode_id, message.run_id) != self._place:
            self.current.policy.reset()
            self._place = (message.episode_id, message.run_id)
        try:
            answer = self._act(message, self.current)
        except ValueError as error:  # pictures or numbers that are missing or have another shape
            self.refused, self._mute = f"version {self.version} does not act: {error}", True
            return None
        if self._mute:
            self.refused, self._mute = "", False
        return answer

    def _first_of(self, message: Observation) -> list[float] | None:
        """What may stand for the first observation of the running episode: an actor that joins late does not know it, but one or two may
        have been lost, or be no readings."""
        late = message.episode_step > LATEST_FIRST_STEP
        return None if late or wrong_observation(message.observation, self.spec) else message.observation

    def _take(self, version: int) -> bool:
        """Use a version; whether it could be loaded."""
        try:
            self._use(self._load(version))
        except PolicyRefused as error:
            self.refused = of_version(version, error)
            return False
        return True

    def _act(self, message: Observation, loaded: LoadedPolicy) -> PolicyAction:
        started = time.perf_counter()
        sample = message.train_step >= 0 and loaded.manifest.swap == "step"
        if sample:
            self._generator.manual_seed(int(stream(self.seed, "actor", message.train_step).integers(2**62)))
        observation = np.asarray(message.observation, np.float32)
        if isinstance(loaded.policy, SeesPictures):
            loaded.policy.look(message.images)
        decision = loaded.policy.act(observation, sample=sample, generator=self._generator if sample else None)
        scores = decision.scores
        if self.progress.current is not None:
            scores = scores | self.progress.current.scores(observation)
        probability = self.reward.score(message)
        if probability is not None:
            scores = scores | {SCORE: probability}
        self.inference_ms += 0.05 * ((time.perf_counter() - started) * 1e3 - self.inference_ms)
        return PolicyAction(
            session=message.session,
            from_seq=message.seq,
            actions=decision.actions.tolist(),
            valid_until_seq=message.seq + len(decision.actions) - 1,
            policy_version=loaded.manifest.version,
            policy_sha256=loaded.manifest.sha256,
            spread=decision.spread,
            scores=scores,
            success=self.reward.passes(probability),
            reward_version=self.reward.version,
        )

    def _load(self, version: int) -> LoadedPolicy:
        loaded = self._cache.pop(version, None) or load_for(self.workspace, version, self.spec)
        self._cache[version] = loaded  # the last: what was used longest ago goes first, however new it is
        while len(self._cache) > _CACHED:
            del self._cache[next(iter(self._cache))]
        standing = self._decisions.standing
        if version == standing.pinned and loaded.manifest.sha256 != standing.pinned_sha256:
            raise PolicyRefused(f"its weights are not those that were pinned ({standing.pinned_sha256[:12]}...)")
        return loaded

    def _use(self, loaded: LoadedPolicy) -> None:
        loaded.policy.reset()
        if self._first is not None:
            begin_episode(loaded.policy, self._first)
        self.current = loaded
        self.since_ns = time.monotonic_ns()
        if self._next is not None and self._next.manifest.version <= loaded.manifest.version:
            self._next = None
