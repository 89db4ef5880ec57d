"""The book of episodes: numbers, start states, counters, and the records of what happens. Knows no robot, socket or mode."""

import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from ulid import ULID

from takeover.data.drivers import DRIVER, UNNAMED, Driver
from takeover.data.schema import (
    EpisodeEnd,
    EpisodeKind,
    EpisodeStart,
    Event,
    Outcome,
    OutcomeSource,
    PolicyImage,
    RobotSpec,
    RunConfig,
    Source,
    Step,
)
from takeover.data.seeding import HELDOUT_STARTS, heldout_start, start_seed
from takeover.robot_bridge.ended_episodes import EndedEpisode, EndedEpisodes
from takeover.robot_bridge.episode import Block, Episode, EpisodeError, PendingStep
from takeover.robot_bridge.probe_schedule import ProbeSchedule
from takeover.robot_bridge.record_log import RecordLog
from takeover.robot_bridge.robots.base import Reading


@dataclass
class EpisodeBook:
    """The bridge's book of episodes: everything it writes goes to the record log at once."""

    config: RunConfig
    spec: RobotSpec
    log: RecordLog
    software: str
    block: Block | None = None
    episode: Episode | None = None
    train_steps: int = 0
    block_size: int = 0
    block_number: int = 0
    driver: Driver = UNNAMED  # who commands when the next episode begins; nobody named: the station's own person
    _probes: int = 0  # of this session
    _numbers: dict[EpisodeKind, int] = field(default_factory=dict)
    _newest: Block | None = None  # also when it has ended

    def __post_init__(self) -> None:
        self._config_sha256 = hashlib.sha256(msgspec.json.encode(self.config)).hexdigest()
        self._schedule = ProbeSchedule.of(self.config)
        self.ended = EndedEpisodes(self.config, self.spec.control_hz, self.log)
        self._parameters = {p.name: p.nominal for p in self.spec.parameters} | self.config.task_parameters

    # --- blocks ---

    def start_block(self, kind: EpisodeKind, size: int, max_failures: int = 0) -> None:
        """Raises `EpisodeError`."""
        if kind is EpisodeKind.MANUAL_RESET:
            raise EpisodeError("a manual reset is not started as a block of episodes")
        if size < 0:
            raise EpisodeError(f"{size} episodes; ask for 0 (until told otherwise) or more")
        if self.block is not None:
            raise EpisodeError(f"a block of {self.block.kind} episodes is running; finish it first")
        self.block = self._newest = Block(kind, size, max_failures=max_failures)
        self.block_size = size
        self.block_number += 1

    @property
    def block_done(self) -> int:
        """Episodes of the newest block that count."""
        return self._newest.done if self._newest is not None else 0

    @property
    def probe_version(self) -> int:
        """The version that must drive in the running probe; 0: any, or no probe runs."""
        return self.episode.probe_version if self.episode is not None else 0

    def end_block(self) -> None:
        self.block = None

    # --- one episode ---

    def prepare(self) -> Episode:
        """The next episode of the block: its number, id and start are fixed, nothing is recorded yet."""
        if self.block is None:
            raise EpisodeError("no block of episodes is running")
        kind, probe = self.block.kind, -1
        works = kind is EpisodeKind.POLICY and not self.block.max_failures  # practice is slow: no measure of anything
        if works and self._schedule.is_probe(self._numbers.get(kind, 0) + self._probes):
            kind, probe = EpisodeKind.EVALUATION, self._probes
            self._probes += 1
        number = self._numbers.get(kind, 0)
        self._numbers[kind] = number + 1
        if probe >= 0:
            seed = self._schedule.start(probe)
        elif kind is EpisodeKind.EVALUATION:
            seed = heldout_start(number % HELDOUT_STARTS)
        else:
            seed = start_seed(self.config.seed, kind.value, number)
        version = self._schedule.version(probe) if probe >= 0 else 0
        self.episode = Episode(str(ULID()).lower(), number, kind, seed, probe=probe, probe_version=version)
        self.episode.newest_seqs = deque(maxlen=self.ended.dated_back() + 1)
        return self.episode

    def forget_prepared(self) -> None:
        """Drop an episode of which nothing is recorded; its number is given to the next one."""
        if self.episode is not None and not self.episode.recorded:
            self._numbers[self.episode.kind] = self.episode.number
            self._probes -= self.episode.probe >= 0
            self.episode = None

    def open(self, policy_version: int, policy_sha256: str) -> None:
        """Record the start."""
        episode = self._current()
        episode.recorded = True
        driver = self.driver if self.driver.name else Driver(self.config.person, self.config.consent_version)
        episode.driver = driver.name
        if episode.probe >= 0 and not episode.probe_version:
            episode.probe_version = policy_version  # nothing newer breaks into it
        unattended = self.block is not None and self.block.max_failures > 0
        self.log.append(
            lambda session, rec_seq: EpisodeStart(
                session=session,
                rec_seq=rec_seq,
                episode_id=episode.id,
                number=episode.number,
                kind=episode.kind,
                unattended=unattended,
                spec=self.spec,
                station_id=self.config.station_id,
                operator=driver.name,
                consent_version=driver.consent_version,
                start_seed=episode.start_seed,
                policy_version=policy_version,
                policy_sha256=policy_sha256,
                config_sha256=self._config_sha256,
                wall_ns=time.time_ns(),
                t_ns=time.monotonic_ns(),
                parameters=self._parameters,
                software=self.software,
                probe=episode.probe,
                probe_version=episode.probe_version,
            )
        )

    def take_over(self, *, continues: bool) -> None:
        """A person took over; ``continues``: out of a hold that interrupted an intervention. Demonstrations are no interventions."""
        episode = self._current()
        if episode.kind is EpisodeKind.DEMONSTRATION or (continues and episode.intervention_open):
            return
        episode.takeovers += 1
        episode.intervention_id += 1
        episode.intervention_open = True
        episode.intervention_driver = ""

    def driven_by(self, driver: Driver, seq: int) -> None:
        """``driver`` has authority at control step ``seq``. Somebody else than before is recorded, and begins another intervention."""
        episode = self._current()
        if driver.name != episode.driver:
            episode.driver = driver.name
            t_ns, wall_ns = time.monotonic_ns(), time.time_ns()
            self.log.append(
                lambda session, rec_seq: Event(
                    session=session,
                    rec_seq=rec_seq,
                    kind=DRIVER,
                    source="bridge",
                    text=driver.noted,
                    t_ns=t_ns,
                    wall_ns=wall_ns,
                    episode_id=episode.id,
                    seq=seq,
                )
            )
        if episode.intervention_open and episode.intervention_driver not in ("", driver.name):
            episode.takeovers += 1
            episode.intervention_id += 1
        episode.intervention_driver = driver.name

    def hand_back(self) -> None:
        if self.episode is not None:
            self.episode.intervention_open = False

    def train_step(self) -> int:
        """Index of the coming step among the training ones, -1 where the kind is not trained on in lockstep."""
        return self.train_steps if self.episode is not None and self.episode.kind is EpisodeKind.POLICY else -1

    def record(
        self,
        step: PendingStep,
        reading: Reading,
        reward: float,
        reward_source: str,
        *,
        terminated: bool,
        truncated: bool,
        next_images: Sequence[PolicyImage] = (),
    ) -> None:
        """Write the whole transition and count it. ``next_images``: what the policy would see next, at the end of an episode only."""
        episode = self._current()
        if step.held:
            episode.run_broken = True
        elif episode.run_broken:
            episode.run_id += 1
            episode.run_broken = False
        human = step.human.command if step.human is not None else None
        policy = step.policy
        intervention = episode.intervention_id if episode.intervention_open and not step.held else -1
        train_step = self.train_step() if not step.held else -1
        self.log.append(
            lambda session, rec_seq: Step(
                session=session,
                rec_seq=rec_seq,
                seq=step.seq,
                episode_id=episode.id,
                episode_step=episode.steps,
                train_step=train_step,
                run_id=episode.run_id,
                kind=episode.kind,
                t_observation_ns=step.reading.t_ns,
                t_decision_ns=step.t_decision_ns,
                t_applied_ns=step.t_applied_ns,
                wall_ns=step.wall_ns,
                mode=step.mode,
                control_mode=step.control_mode,
                hold_reason=step.hold_reason,
                observation=step.reading.observation.tolist(),
                next_observation=reading.observation.tolist(),
                images=step.images,
                next_images=list(next_images),
                source=[int(source) for source in step.source],
                policy_action=step.policy_action,
                policy_from_seq=policy.from_seq if policy is not None else -1,
                policy_version=policy.policy_version if policy is not None else 0,
                human_action=step.human_action,
                asked_action=step.asked.tolist(),
                action=step.action.tolist(),
                intervention_id=intervention,
                safety_bits=int(step.safety_bits),
                spread=policy.spread if policy is not None else 0.0,
                scores=policy.scores if policy is not None else {},
                device_id=human.device_id if human is not None else "",
                device_alive=human.device_alive if human is not None else False,
                command_age_ms=min(step.human.age_s, 1e6) * 1000 if step.human is not None else -1.0,
                picture_age_ms=step.picture_age_ms,
                reward=reward,
                reward_source=reward_source,
                reward_version=policy.reward_version if policy is not None and reward_source == "classifier" else 0,
                terminated=terminated,
                truncated=truncated,
                sim_state=step.sim_state,
            )
        )
        if step.held:
            return
        episode.steps += 1
        episode.newest_seqs.append(step.seq)
        if Source.HUMAN in step.source:
            episode.human_steps += 1
        if episode.kind is EpisodeKind.POLICY:
            self.train_steps += 1

    def end(self, outcome: Outcome, source: OutcomeSource, *, discarded: bool = False, held_steps: int = 0) -> None:
        """Record the end and count it in the block. ``held_steps``: for how many the robot has stood still since the last that counts."""
        episode = self._current()
        self.episode = None
        if not episode.recorded:
            return
        last = max(0, episode.steps - 1)
        by_operator = source is OutcomeSource.OPERATOR
        back = self._driven_since(episode, held_steps) if by_operator else 1 if source is OutcomeSource.CLASSIFIER else 0
        event_step = max(0, last - back)  # a classifier has seen the state before the last step
        now_ns, wall_ns = time.monotonic_ns(), time.time_ns()
        self.log.append(
            lambda session, rec_seq: EpisodeEnd(
                session=session,
                rec_seq=rec_seq,
                episode_id=episode.id,
                outcome=outcome,
                outcome_source=source,
                event_step=event_step,
                steps=episode.steps,
                human_steps=episode.human_steps,
                takeovers=episode.takeovers,
                autonomous=episode.human_steps == 0,
                discarded=discarded,
                t_ns=now_ns,
                wall_ns=wall_ns,
            )
        )
        block = None if discarded else self.block
        self.ended.add(EndedEpisode(episode.id, outcome, event_step, by_operator, block, now_ns, last, source, episode.ended_by))
        if self.block is not None and not discarded:
            self.block.done += 1
            self.block.failures += outcome is not Outcome.SUCCESS

    def _driven_since(self, episode: Episode, held_steps: int) -> int:
        """Steps that were driven since what a key is about, which is pressed after ``held_steps`` that were not."""
        seqs = episode.newest_seqs
        meant = seqs[-1] + held_steps - self.ended.dated_back() if seqs else 0
        return sum(seq > meant for seq in seqs)

    # --- outcomes after the end ---

    def discard_last(self, author: str) -> None:
        """Throw away the last finished episode of the running block so that it is made again. Raises `EpisodeError`."""
        last = self.ended.last
        if self.block is None or last is None or last.block is not self.block or last.outcome is Outcome.ABORTED:
            raise EpisodeError("no episode of this block is left to discard")
        self.ended.discard(last, author)

    def _current(self) -> Episode:
        if self.episode is None:
            raise EpisodeError("no episode is running")
        return self.episode
