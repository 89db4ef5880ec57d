"""Blocks of episodes as the supervisor asks for them, with the real bridge, recorder and operator: exactly as many as were wanted."""

import threading
import time
from contextlib import closing

import msgspec
import pytest

from takeover.app.launcher import Launcher
from takeover.app.stream import FinishedEpisode, StationLink
from takeover.app.supervisor import TRIES_PER_DEMONSTRATION, BlockEnded, RunError, RunPlan, Supervisor
from takeover.data.catalog import Catalog
from takeover.data.schema import Committed, EpisodeKind, Finish, Outcome, Role, Start, State
from takeover.data.workspace import Workspace
from takeover.robot_bridge.protocol import ControlClient, Endpoints, RequestTimeout, Subscriber
from takeover.robot_bridge.robots.registry import make_robot

from .test_summary import end, start


class Late:
    """A busy machine: the state from before a `Start` is seen once more after it, and what was committed comes half a second late."""

    def __init__(self, link: StationLink, monkeypatch: pytest.MonkeyPatch) -> None:
        self.starts = 0
        self.stale_seen = 0
        self._old: State | None = None
        self._waiting: list[tuple[float, Committed]] = []
        self._link = link
        self._update, self._add, self._ask = link.update, link.log.add, link.ask
        monkeypatch.setattr(link, "update", self.update)
        monkeypatch.setattr(link, "ask", self.ask)
        monkeypatch.setattr(link.log, "add", lambda committed: self._waiting.append((time.monotonic() + 0.5, committed)))

    def ask(self, request: object) -> str:
        refusal = self._ask(request)  # type: ignore[arg-type]
        if isinstance(request, Start) and not refusal:
            self.starts += 1
            self._old = self._link.state
        return refusal

    def update(self, timeout_s: float) -> None:
        if self._old is not None:
            self._link.state, self._old = self._old, None
            self.stale_seen += 1
            return
        self._update(timeout_s)
        while self._waiting and self._waiting[0][0] < time.monotonic():
            self._add(self._waiting.pop(0)[1])


def demonstrations(config) -> int:
    with Catalog.open(Workspace(config.workspace)) as catalog:
        return len(catalog.episodes())


def test_as_many_episodes_as_were_wanted_when_everything_is_seen_late(station_config, monkeypatch):
    config = station_config()
    with Launcher(config, ["bridge", "recorder", "operator"]) as launcher:
        launcher.wait_ready(60)
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0), lambda progress: None)
        late = Late(supervisor._link, monkeypatch)
        monkeypatch.setattr("takeover.app.supervisor.COMMIT_PATIENCE_S", 1.0)
        supervisor.run_block(EpisodeKind.DEMONSTRATION, 2, "first")
        supervisor.run_block(EpisodeKind.DEMONSTRATION, 20, "second")
        supervisor.close()
        assert late.starts == late.stale_seen == 2
    assert demonstrations(config) == 22


def test_a_start_whose_answer_is_lost_is_not_made_up_for(station_config, monkeypatch):
    """Whether it acted is unknown: the state says so, and no second block is run for what the first one brings."""
    ask = ControlClient.ask

    def deaf(client: ControlClient, request, timeout_s: float = 1.0):
        reply = ask(client, request, timeout_s)
        if isinstance(request, Start):
            raise RequestTimeout("Start was not answered")
        return reply

    config = station_config()
    with Launcher(config, ["bridge", "recorder", "operator"]) as launcher:
        launcher.wait_ready(60)
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0), lambda progress: None)
        supervisor._shake_hands()
        monkeypatch.setattr(ControlClient, "ask", deaf)
        Late(supervisor._link, monkeypatch)
        supervisor.run_block(EpisodeKind.DEMONSTRATION, 4, "block")
        supervisor.close()
    assert demonstrations(config) == 4


def test_what_somebody_ended_is_not_begun_again(station_config):
    """Red before: the episodes that were missing were asked for again five seconds later."""
    config = station_config()
    with Launcher(config, ["bridge", "recorder", "operator"]) as launcher:
        launcher.wait_ready(60)
        endpoints = Endpoints.of(config)

        def somebody() -> None:
            with Subscriber(endpoints, "state", State) as states, closing(ControlClient(endpoints, "desk", Role.OPERATOR)) as desk:
                while (state := states.receive(1.0)) is None or state.block_done < 2:
                    pass
                desk.hello("test")
                desk.newest_state_seq = state.seq
                replies.append(desk.ask(Finish(sender="desk")).error)

        replies: list[str] = []
        supervisor = Supervisor(config, launcher, RunPlan(episodes=0), lambda progress: None)
        person = threading.Thread(target=somebody, daemon=True)
        person.start()
        with pytest.raises(BlockEnded, match=r"^desk asked for the end after (\d+) of 60 episodes of kind demonstration$") as ended:
            supervisor.run_block(EpisodeKind.DEMONSTRATION, 60, "block")
        person.join(10)
        supervisor.close()
    assert replies == [""]
    made = demonstrations(config)
    assert 2 <= made < 60
    assert f"after {made} of" in str(ended.value)


def test_a_script_that_fails_all_the_time_ends_the_run_and_a_person_may_go_on(station_config, monkeypatch):
    """Failed demonstrations do not count, so they would be asked for again for ever."""
    spec, reports = make_robot(station_config()).spec, []
    for operator in ("scripted", "console"):
        supervisor = Supervisor(station_config(operator=operator), None, RunPlan(episodes=0), reports.append)
        finished = supervisor._link.log.finished

        def one_more(finished=finished) -> None:
            number = len(finished)
            failed = number != 7 and number < 2 * TRIES_PER_DEMONSTRATION + 5
            ended = msgspec.structs.replace(end(number, 0), outcome=Outcome.FAILURE if failed else Outcome.SUCCESS)
            finished.append(FinishedEpisode(start(spec, number, 0, EpisodeKind.DEMONSTRATION), ended))

        monkeypatch.setattr(supervisor, "_tick", one_more)
        try:
            if operator == "scripted":
                with pytest.raises(RunError, match="demonstrated the task 1 times in 40 tries; 2 are needed"):
                    supervisor.run_block(EpisodeKind.DEMONSTRATION, 2, "demonstrations")
            else:
                supervisor.run_block(EpisodeKind.DEMONSTRATION, 2, "demonstrations")
                assert (len(finished), reports[-1].text) == (46, "failed, not counted: 44")
        finally:
            supervisor.close()
