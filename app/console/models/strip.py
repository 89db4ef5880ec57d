"""The last 60 seconds as a ring buffer: who drove, signals, outcomes. Fed with every State, drawn at 10-15 Hz."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from takeover.app.console.models.snapshot import SCRIPT
from takeover.data.schema import EpisodeKind, Mode, State

SECONDS = 60.0
RATE_HZ = 25.0
RAMP_S = 0.15
NOBODY, POLICY, PERSON, RAMP, HELD, STOPPED = range(6)
SCORES = (("steps_to_go", "Steps to go", "steps"), ("confidence", "Confidence", ""), ("success", "Success", ""))
SIGNALS = (("force", "Force", "N"), ("height", "Height", "mm"), ("gripper", "Gripper", "mm"))


@dataclass(frozen=True)
class Outcome:
    t_s: float
    outcome: str


def driver(state: State) -> int:
    """Who drives in ``state``; the first 150 ms of a takeover are its ramp."""
    if state.mode is Mode.TAKEOVER:
        return RAMP if (state.t_ns - state.mode_since_ns) / 1e9 < RAMP_S else PERSON
    return {Mode.POLICY: POLICY, Mode.HOLD: HELD, Mode.STOPPED: STOPPED}.get(state.mode, NOBODY)


class Strip:
    """Times are seconds on the bridge's clock; `window` gives them relative to the newest (0)."""

    def __init__(self) -> None:
        self._size = int(SECONDS * RATE_HZ * 1.2)
        self._t: npt.NDArray[np.float64] = np.full(self._size, -np.inf)
        self._who: npt.NDArray[np.uint8] = np.zeros(self._size, np.uint8)
        self._episode: npt.NDArray[np.int32] = np.full(self._size, -1, np.int32)
        names = [name for name, _, _ in (*SCORES, *SIGNALS)]
        self._signals: dict[str, npt.NDArray[np.float32]] = {name: np.full(self._size, np.nan, np.float32) for name in names}
        self._next = 0
        self._last_t = -np.inf
        self._session = ""
        self._episode_id = ""
        self._episode_index = -1
        self._outcome_of = ""
        self._takeovers: list[float] = []
        self._intervention: tuple[str, int] | None = None
        self._drove_s = {True: -np.inf, False: -np.inf}  # when the script (True) or a person (False) last did
        self.outcomes: list[Outcome] = []
        self.starts: list[float] = []

    def add(self, state: State) -> None:
        """A State; those less than 1 / RATE_HZ after the last kept one are skipped. A new session starts empty."""
        if state.session != self._session:
            self.__init__()  # type: ignore[misc]
            self._session = state.session
            self._outcome_of = state.last_outcome_episode
        t_s = state.t_ns / 1e9
        self._note_events(state, t_s)
        if state.mode is Mode.TAKEOVER:
            self._drove_s[state.commander == SCRIPT] = t_s
        if t_s - self._last_t < 1.0 / RATE_HZ - 0.004:
            return
        self._last_t = t_s
        i = self._next
        self._next = (i + 1) % self._size
        self._t[i] = t_s
        self._who[i] = driver(state)
        self._episode[i] = self._episode_index if state.episode_id and state.mode in (Mode.POLICY, Mode.TAKEOVER) else -1
        values = dict(state.scores)
        values["force"] = float(np.linalg.norm(state.force_n)) if state.force_n else float("nan")
        values["height"] = state.tool_position[2] * 1e3 if len(state.tool_position) == 3 else float("nan")
        values["gripper"] = state.gripper_width_m * 1e3
        for name, column in self._signals.items():
            column[i] = values.get(name, float("nan"))

    def _note_events(self, state: State, t_s: float) -> None:
        if state.episode_id and state.episode_id != self._episode_id:
            self._episode_id = state.episode_id
            self._episode_index += 1
            self.starts.append(t_s)
        if state.last_outcome is not None and state.last_outcome_episode != self._outcome_of:
            self._outcome_of = state.last_outcome_episode
            self.outcomes.append(Outcome(t_s, state.last_outcome.value))
        if state.mode is Mode.TAKEOVER and state.episode_kind != EpisodeKind.DEMONSTRATION:
            mark = (state.episode_id, state.intervention_id)
            if mark != self._intervention:
                self._intervention = mark
                self._takeovers.append(t_s)
        for items in (self.starts, self._takeovers):
            while items and items[0] < t_s - SECONDS:
                items.pop(0)
        while self.outcomes and self.outcomes[0].t_s < t_s - SECONDS:
            self.outcomes.pop(0)

    @property
    def newest_s(self) -> float:
        return self._last_t

    def _order(self) -> npt.NDArray[np.intp]:
        order = np.roll(np.arange(self._size), -self._next)
        return order[self._t[order] > self._last_t - SECONDS]

    def window(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
        """(time relative to the newest, who drove), oldest first."""
        order = self._order()
        return self._t[order] - self._last_t, self._who[order]

    def spans(self) -> list[tuple[float, float, int]]:
        """(start, end, who), relative times, adjoining samples merged."""
        t, who = self.window()
        if not len(t):
            return []
        gap = 3.0 / RATE_HZ
        cuts = np.flatnonzero((np.diff(who) != 0) | (np.diff(t) > gap)) + 1
        edges = [0, *cuts.tolist(), len(t)]
        spans = []
        for start, end in itertools.pairwise(edges):
            last = t[end] if end < len(t) and t[end] - t[end - 1] <= gap else t[end - 1]
            spans.append((float(t[start]), float(last), int(who[start])))
        return spans

    def rows(self) -> list[tuple[str, str, str]]:
        """The two signals to draw, (name, title, unit): scores where there are any, else measured ones."""
        order = self._order()
        present = [entry for entry in (*SCORES, *SIGNALS) if np.isfinite(self._signals[entry[0]][order]).any()]
        varied = [entry for entry in present if entry[0] != "gripper" or np.ptp(self._signals["gripper"][order]) > 1.0]
        return varied[:2]

    def curves(self, name: str) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]]:
        """Pieces of one signal, broken at resets, holds and gaps, never joined."""
        order = self._order()
        t, values, episode = self._t[order] - self._last_t, self._signals[name][order], self._episode[order]
        good = np.isfinite(values) & (episode >= 0)
        pieces = []
        start = None
        for i in range(len(t)):
            joined = good[i] and start is not None and episode[i] == episode[i - 1] and t[i] - t[i - 1] < 0.3
            if not joined:
                if start is not None and i - start > 1:
                    pieces.append((t[start:i], values[start:i]))
                start = i if good[i] else None
        if start is not None and len(t) - start > 1:
            pieces.append((t[start:], values[start:]))
        return pieces

    def latest(self, name: str) -> float:
        return float(self._signals[name][(self._next - 1) % self._size])

    @property
    def human(self) -> str:
        """Who drove in the amber stretches: a scripted operator is no person."""
        script, person = (self._last_t - self._drove_s[who] < SECONDS for who in (True, False))
        return "person, script" if script and person else "script" if script else "person"

    @property
    def human_now(self) -> str:
        return "script" if self._drove_s[True] > self._drove_s[False] else "person"

    def summary(self) -> str:
        failures = sum(item.outcome == "failure" for item in self.outcomes)

        def count(n: int, word: str) -> str:
            return f"{n} {word}" + ("" if n == 1 else "s")

        return f"{count(len(self.starts), 'episode')}, {count(len(self._takeovers), 'takeover')}, {count(failures, 'failure')}"
