"""Drives a station through a whole run: demonstrations, cloning, evaluation, the loop, evaluation. Asks; the bridge decides."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from takeover.app.launcher import Launcher
from takeover.app.operators.scripted import operator_parameters
from takeover.app.stream import FinishedEpisode, StationLink
from takeover.app.summary import intervention_rate, summarise, weights_sha256
from takeover.data.schema import (
    EpisodeKind,
    Evaluate,
    EvaluateReply,
    HoldReason,
    Mode,
    Outcome,
    Reply,
    Resume,
    RobotSpec,
    RunConfig,
    Start,
    State,
)
from takeover.robot_bridge.protocol import Dealer, Endpoints

READY_TIMEOUT_S = 120.0
REFUSED_TIMEOUT_S = 60.0  # a block that is refused for so long will not start
STUCK_TIMEOUT_S = 120.0  # without a single step
EVALUATION_TIMEOUT_S = 3600.0
CLONING_STUCK_S = 600.0  # an encoder of pictures takes minutes in all
TRIES_PER_DEMONSTRATION = 20  # of a script; people may try as long as they like
HOLD_PATIENCE_S = 2.0
COMMIT_PATIENCE_S = 5.0
ASK_AGAIN_S = 0.3


class RunError(RuntimeError):
    """The run cannot go on; says why."""


class BlockEnded(RunError):
    """Somebody asked for the end of the block that runs: what is missing of it is not asked for again."""


@dataclass(frozen=True)
class Progress:
    """What is going on, for a progress bar: ``done`` of ``total`` in ``phase`` and a short text."""

    phase: str
    done: float
    total: float
    text: str = ""


@dataclass
class _Block:
    """Episodes that are wanted, and the bridge's block (session, number) that was asked for to get them."""

    kind: EpisodeKind
    session: str = ""
    number: int = 0
    asked_s: float = 0.0
    refused_since_s: float = 0.0
    over_since_s: float = 0.0
    failures: int = 0


@dataclass
class RunPlan:
    episodes: int
    evaluation_starts: int = 200
    max_failures: int = 0  # with nobody there the robot practises until it has failed so often; 0: in every episode
    wall_s: dict[str, float] = field(default_factory=lambda: {"demonstrations": 0.0, "loop": 0.0, "evaluation": 0.0})


class Supervisor:
    """One headless run on a launcher that has been started. One thread."""

    def __init__(self, config: RunConfig, launcher: Launcher, plan: RunPlan, report: Callable[[Progress], None]) -> None:
        self._config = config
        self._launcher = launcher
        self._plan = plan
        self._report = report
        self._endpoints = Endpoints.of(config)
        self._link = StationLink(self._endpoints, "supervisor", config.workspace)
        self._request_id = 0
        self.ended = ""  # who asked for the end of practice, and when; empty: nobody

    def close(self) -> None:
        self._link.close()

    def run(self) -> dict[str, Any]:
        """The summary. Raises `RunError` and what `Launcher.check` does; the launcher is left running."""
        spec = self.prepare()
        learns = self._config.learner != "none"
        before = self.evaluate("before", self._newest_version()) if learns else None
        self.work()
        if learns:
            self._catch_up()
        after = self.evaluate("after", self._newest_version()) if learns else None
        return summarise(
            config=self._config,
            episodes=self._link.log.of_kind(EpisodeKind.POLICY),
            before=before,
            after=after,
            learner=self._link.learner,
            steps=self._link.steps(),
            weights_sha256=weights_sha256(self._config.workspace, after.version) if after is not None else "",
            wall_s=self._plan.wall_s,
            control_hz=spec.control_hz,
            operator=operator_description(self._config),
        )

    def prepare(self) -> RobotSpec:
        """Everything up, demonstrations there and cloned."""
        self._launcher.wait_ready(READY_TIMEOUT_S)
        spec = self._shake_hands()
        if self._config.learner != "none":
            self.demonstrate()
            self._clone()
        return spec

    def _shake_hands(self) -> RobotSpec:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            self._tick(0.0)
            reply: Reply | None = self._link.hello()
            if reply is not None and reply.error:
                raise RunError(f"the bridge refused the handshake: {reply.error}")
            if reply is not None and reply.spec is not None:
                return reply.spec
        raise RunError("the bridge does not answer")

    def _tick(self, timeout_s: float = 0.1) -> None:
        self._link.update(timeout_s)
        self._launcher.check()

    # --- phases ---

    def demonstrate(self) -> None:
        """Until the learner has the demonstrations it wants (those of earlier runs in this workspace count)."""
        started_s = time.monotonic()
        self._await(lambda: self._link.learner is not None, READY_TIMEOUT_S, "the learner does not report")
        learner = self._link.learner
        missing = self._config.demonstrations - (learner.demonstrations if learner is not None else 0)
        if missing > 0 and (learner is None or learner.newest_version == 0):
            self.run_block(EpisodeKind.DEMONSTRATION, missing, "demonstrations")
        self._plan.wall_s["demonstrations"] = time.monotonic() - started_s

    def _clone(self) -> None:
        def cloned() -> bool:
            learner = self._link.learner
            if learner is None:
                return False
            if learner.error:
                raise RunError(f"learner: {learner.error}")
            self._report(Progress("cloning", learner.progress if learner.phase == "cloning" else 0.0, 1.0, learner.text))
            return learner.newest_version >= 1

        seen, moved_s = -1.0, time.monotonic()
        while not cloned():
            progress = self._link.learner.progress if self._link.learner is not None else -1.0
            if progress != seen:
                seen, moved_s = progress, time.monotonic()
            elif time.monotonic() - moved_s > CLONING_STUCK_S:
                raise RunError(f"cloning did not publish a policy: no progress for {CLONING_STUCK_S:.0f} s")
            self._tick()
        self._report(Progress("cloning", 1.0, 1.0, "version 1"))

    def practise(self) -> list[FinishedEpisode]:
        """With nobody there, on a policy of an earlier run; ends early after `RunPlan.max_failures`, or when somebody asks for its end
        (``ended``). The episodes."""
        self._launcher.wait_ready(READY_TIMEOUT_S)
        self._shake_hands()
        log, before = self._link.log, len(self._link.log.of_kind(EpisodeKind.POLICY))
        try:
            self.work()
        except BlockEnded as ended:
            self.ended = str(ended)
        return log.of_kind(EpisodeKind.POLICY)[before:]

    def work(self) -> None:
        """The loop: the policy drives, the operator corrects, the learner learns."""
        started_s = time.monotonic()
        self.run_block(EpisodeKind.POLICY, self._plan.episodes, "loop")
        self._plan.wall_s["loop"] = time.monotonic() - started_s

    def _catch_up(self) -> None:
        """Until the learner has done all updates for the steps of the loop."""
        started_s = time.monotonic()

        def caught_up() -> bool:
            learner, state = self._link.learner, self._link.state
            if learner is None or state is None:
                return False
            if self._config.clock == "lockstep":
                return learner.finished_train_step >= state.train_steps - 1
            return learner.backlog_steps == 0

        self._await(caught_up, 600.0, "the learner does not finish its updates")
        self._plan.wall_s["loop"] += time.monotonic() - started_s

    def _newest_version(self) -> int:
        return self._link.learner.newest_version if self._link.learner is not None else 0

    def evaluate(self, name: str, version: int) -> EvaluateReply:
        """A version alone, deterministic, on the held-out starts."""
        started_s = time.monotonic()
        self._request_id += 1
        request = Evaluate(request_id=self._request_id, version=version, starts=self._plan.evaluation_starts)
        dealer: Dealer[Evaluate, EvaluateReply] = Dealer(self._endpoints, "evaluate", Evaluate, EvaluateReply)
        with dealer:
            sent_to = 0
            deadline = started_s + EVALUATION_TIMEOUT_S
            while time.monotonic() < deadline:
                if (pid := self._launcher.pids().get("evaluator", 0)) and pid != sent_to:
                    dealer.send(request)  # also to one that was started anew: the old one took the request with it
                    sent_to = pid
                self._tick(0.05)
                status = self._link.evaluator
                if status is not None and status.busy and status.version == version:
                    self._report(Progress(f"evaluation {name}".strip(), status.done, status.total, f"version {version}"))
                reply = dealer.receive()
                if reply is None or reply.request_id != request.request_id:
                    continue
                if reply.error:
                    raise RunError(f"evaluation of version {version}: {reply.error}")
                self._plan.wall_s["evaluation"] += time.monotonic() - started_s
                self._report(Progress(f"evaluation {name}".strip(), reply.n, reply.n, f"{reply.successes} of {reply.n}"))
                return reply
        raise RunError(f"the evaluation of version {version} takes longer than {EVALUATION_TIMEOUT_S:.0f} s")

    # --- blocks of episodes ---

    def run_block(self, kind: EpisodeKind, episodes: int, phase: str) -> None:
        """Until exactly ``episodes`` more of ``kind`` are committed. Asks again for those that are missing when the bridge was started
        anew, when it refused, and when a block ended early; but where somebody asked for its end, raises `BlockEnded`."""
        log = self._link.log
        block = _Block(kind)
        done_before, tried_before, ends_before = log.counted(kind), len(log.of_kind(kind)), len(log.ends_asked)
        moved_s, moved_seq, held_s = time.monotonic(), -1, 0.0
        while (done := log.counted(kind) - done_before) < episodes:
            block.failures = sum(episode.end.outcome is not Outcome.SUCCESS for episode in log.of_kind(kind)[done_before:])
            if self._plan.max_failures and block.failures >= self._plan.max_failures:
                break
            self._refuse_in_vain(kind, done, len(log.of_kind(kind)) - tried_before, episodes)
            self._tick()
            state = self._link.state
            if state is None:
                continue
            now_s = time.monotonic()
            if len(log.ends_asked) > ends_before and not state.block_running and not state.record_backlog:
                done = log.counted(kind) - done_before
                raise BlockEnded(f"{log.ends_asked[-1]} asked for the end after {done} of {episodes} episodes of kind {kind}")
            if self._lacks(block, state, now_s):
                # what was committed meanwhile is counted again: nothing is asked for twice
                self._start(block, episodes - (log.counted(kind) - done_before), state, now_s)
                moved_s = now_s
            if state.mode == Mode.STOPPED:
                raise RunError(f"stopped: {state.hold_detail or 'somebody pressed STOP'}")
            if state.mode == Mode.HOLD and state.hold_reason is not HoldReason.OPERATOR and self._config.operator == "none":
                held_s = held_s or now_s
                if now_s - held_s > HOLD_PATIENCE_S:
                    self._link.ask(Resume(sender=self._link.sender))
                    held_s = 0.0
            else:
                held_s = 0.0
            if state.step_seq != moved_seq:
                moved_s, moved_seq = now_s, state.step_seq
            elif now_s - moved_s > STUCK_TIMEOUT_S:
                raise RunError(f"no control step for {STUCK_TIMEOUT_S:.0f} s: mode {state.mode}, {state.hold_reason} {state.hold_detail}")
            self._report(Progress(phase, done, episodes, self._text(kind)))
        self._report(Progress(phase, episodes, episodes, self._text(kind)))

    def _refuse_in_vain(self, kind: EpisodeKind, done: int, tried: int, wanted: int) -> None:
        """Raises `RunError` where a script hardly ever succeeds at what it demonstrates: failed demonstrations do not count."""
        if kind == EpisodeKind.DEMONSTRATION and self._config.operator == "scripted" and tried >= TRIES_PER_DEMONSTRATION * wanted:
            raise RunError(
                f"the scripted operator demonstrated the task {done} times in {tried} tries; {wanted} are needed:"
                " choose another operator.style, or ask for fewer demonstrations"
            )

    def _lacks(self, block: _Block, state: State, now_s: float) -> bool:
        """Whether no block of ours runs any more and its episodes are all committed (or will not be).

        ``state`` may be older than our last `Start`, or know of a `Start` whose answer came too late: its block number tells.
        """
        if block.session != state.session or state.block_number < block.number:
            return now_s - block.asked_s > ASK_AGAIN_S
        block.refused_since_s = 0.0
        if state.block_running or state.record_backlog:
            block.over_since_s = 0.0
            return False
        block.over_since_s = block.over_since_s or now_s
        return now_s - block.over_since_s > COMMIT_PATIENCE_S

    def _start(self, block: _Block, episodes: int, state: State, now_s: float) -> None:
        if episodes <= 0:
            return
        block.session, block.number, block.asked_s, block.over_since_s = state.session, state.block_number + 1, now_s, 0.0
        alone = self._config.operator == "none" and self._config.clock == "realtime"
        budget = min(1000, self._plan.max_failures - block.failures if self._plan.max_failures else episodes)
        start = Start(sender=self._link.sender, kind=block.kind, episodes=episodes, unattended=alone, max_failures=budget if alone else 0)
        refusal = self._link.ask(start)
        if not refusal:
            return
        block.refused_since_s = block.refused_since_s or now_s
        if now_s - block.refused_since_s > REFUSED_TIMEOUT_S:
            raise RunError(f"the bridge refuses to start: {refusal}")

    def _await(self, condition: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise RunError(otherwise)
            self._tick()

    def _text(self, kind: EpisodeKind) -> str:
        if kind == EpisodeKind.DEMONSTRATION:
            failed = len(self._link.log.of_kind(kind)) - self._link.log.counted(kind)
            return f"failed, not counted: {failed}" if failed else ""
        episodes = self._link.log.of_kind(kind)[-20:]
        if kind != EpisodeKind.POLICY or not episodes:
            return ""
        version = self._link.learner.newest_version if self._link.learner is not None else 0
        return f"human {100 * intervention_rate(episodes):.0f} % of the last {len(episodes)}, version {version}"


def operator_description(config: RunConfig) -> dict[str, Any]:
    """Who operated: all parameters, defaults included."""
    if config.operator != "scripted":
        return {"kind": config.operator}
    style = str(config.operator_parameters.get("style", "expert"))
    return {"kind": "scripted", "style": style, **operator_parameters(config.operator_parameters).as_dict()}
