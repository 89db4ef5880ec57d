"""What a headless run shows: a progress bar in a terminal, a line now and then elsewhere, a table at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from takeover.app.supervisor import Progress
from takeover.data.statistics import wilson

LINE_PERIOD_S = 15.0


class ProgressDisplay:
    """Shows `Progress`. Thread-safe as far as rich is; `note` prints a line beside the bars."""

    def __init__(self, console: Console, bars: Bars) -> None:
        self._console = console
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._line_s = 0.0
        self._phase = ""
        self._done = -1.0
        self._text = ""

    def show(self, progress: Progress) -> None:
        if self._console.is_terminal:
            if progress.phase not in self._tasks:
                self._tasks[progress.phase] = self._bars.add_task(progress.phase, total=progress.total, text="")
            self._bars.update(self._tasks[progress.phase], completed=progress.done, total=progress.total, text=progress.text)
            return
        now_s = time.monotonic()
        finished = progress.done >= progress.total and progress.text != self._text
        if progress.phase != self._phase or finished or (now_s - self._line_s > LINE_PERIOD_S and progress.done != self._done):
            share = 100 * progress.done / progress.total if progress.total else 100
            self._console.print(f"{progress.phase}: {share:3.0f} % {progress.text}", highlight=False)
            self._line_s, self._phase, self._done, self._text = now_s, progress.phase, progress.done, progress.text

    def note(self, line: str) -> None:
        self._console.print(line, highlight=False)


@contextmanager
def progress_display() -> Iterator[ProgressDisplay]:
    """On stderr: stdout is for results."""
    console = Console(stderr=True)
    bars = Bars(
        TextColumn("{task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        yield ProgressDisplay(console, bars)


def listing(title: str) -> Table:
    """A table without lines, for `ls` commands."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False)


def print_table(table: Table) -> None:
    """To stdout; wide enough for every column where stdout is no terminal."""
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def summary_table(summary: dict[str, Any]) -> None:
    """Print the summary's figures to stdout."""
    table = Table(title=f"{summary['robot']} {summary['task']}, {summary['learner_name']}, seed {summary['seed']}, {summary['clock']}")
    table.add_column("")
    table.add_column("", justify="right")
    episodes = summary["episodes"]
    human, steps = (sum(episode[key] for episode in episodes) for key in ("human_steps", "steps"))
    table.add_row("episodes", str(len(episodes)))
    table.add_row("steps, of them human", f"{steps:,}, {human:,}")
    rate = summary["intervention_rate"]
    table.add_row("intervention rate, first 20 and last 20 episodes", f"{rate['first_20']:.3f}, {rate['last_20']:.3f}")
    for name in ("before", "after"):
        table.add_row(f"held-out success {name}", _proportion(summary["heldout_success"][name]))
    table.add_row("updates, versions", f"{summary['learner']['updates']:,}, {summary['learner']['versions_published']}")
    for key, name in (("correction_to_batch_s", "correction to batch"), ("correction_to_acting_s", "correction to acting weights")):
        if summary[key]:
            table.add_row(f"{name}, p50 and p95", f"{summary[key]['p50']:.2f} s, {summary[key]['p95']:.2f} s")
    dropped = summary["steps"]
    table.add_row("control steps, dropped, late", f"{dropped['total']:,}, {dropped['dropped']}, {dropped['late']}")
    wall_s = sum(summary["wall_s"].values())
    table.add_row("simulated, wall", f"{summary['simulated_s'] / 60:.1f} min, {wall_s / 60:.1f} min")
    table.add_row("weights sha256", summary["weights_sha256"][:16] or "none")
    print_table(table)


def _proportion(success: dict[str, int] | None) -> str:
    if success is None:
        return "not evaluated"
    low, high = wilson(success["successes"], success["n"])
    return f"{success['successes']} of {success['n']} ({100 * low:.0f} to {100 * high:.0f} %)"
