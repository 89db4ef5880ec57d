"""How fast the catalog's pages are at scale: every query of the console and of `takeover data ls`, over random filters and pages.

    python -m benchmarks.catalog_scale --episodes 100000 --segments 1000000

Prints JSON: per query n, p50, p95 in ms and the plan's steps; ``met`` says whether every p95 is within the target.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.catalog_plans import plans_of
from benchmarks.catalog_rows import CAUSES, EPISODE_NS, OPERATORS, T0_NS, TASKS, fill, session_of
from takeover.app.console.insights_store import InsightsStore, insights_of
from takeover.app.console.review_store import ReviewStore
from takeover.data.catalog import Catalog, SegmentFilter
from takeover.data.catalog_queries import episode_row
from takeover.data.episode_pages import EpisodeFilter, episode_page
from takeover.data.labels import Labels
from takeover.data.workspace import Workspace

TARGET_MS = 50.0
OPENINGS = 40  # of a whole page


class Queries:
    """One call each: a page as the console or the command line asks for it, with random filters."""

    def __init__(self, catalog: Catalog, labels: Labels, episode_count: int, seed: int) -> None:
        self.catalog, self.labels, self.n = catalog, labels, episode_count
        self.rng = np.random.default_rng(seed)

    def _any(self, values: tuple[str, ...]) -> str:
        return str(self.rng.choice(values))

    def _place(self) -> tuple[int, str]:
        """Somewhere in the list, however deep."""
        return T0_NS + int(self.rng.integers(self.n)) * EPISODE_NS, "~"

    def _session(self) -> str:
        return session_of(int(self.rng.integers(self.n)))

    def filters(self, most: int = 3) -> SegmentFilter:
        """One to ``most`` random filters together."""
        rng = self.rng
        kinds = tuple(str(kind) for kind in rng.choice(("takeover", "failure", "safety"), int(rng.integers(1, 4)), replace=False))
        start = T0_NS + int(rng.integers(self.n)) * EPISODE_NS
        choices: dict[str, Any] = {
            "kinds": kinds,
            "state": self._any(("open", "labeled", "done")),
            "cause": self._any(CAUSES),
            "session_id": self._session(),
            "task_id": self._any(TASKS),
            "policy_version": int(rng.integers(max(1, self.n // 50))),
            "operator": self._any(OPERATORS),
            "started_from_ns": start,
            "started_to_ns": start + 86_400_000_000_000,
        }
        names = rng.choice(sorted(choices), int(rng.integers(1, most + 1)), replace=False)
        return SegmentFilter(**{str(name): choices[str(name)] for name in names})

    def segments_page(self) -> None:
        self.catalog.segments(limit=200, place=self._place())

    def segments_filtered_page(self) -> None:
        self.catalog.segments(self.filters(), limit=200, place=self._place() if self.rng.random() < 0.5 else None)

    def segments_offset_page(self) -> None:
        self.catalog.segments(self.filters(1), limit=200, offset=200 * int(self.rng.integers(10)))

    def segments_tagged_page(self) -> None:
        self.catalog.segments(SegmentFilter(tag="slippery"), limit=50, place=self._place())

    def segments_with_a_word(self) -> None:
        number = int(self.rng.integers(self.n))
        words = (f"rim {number % 1000}", "rim", "force", "command", "nowhere", f"{number:023d}"[-6:])
        self.catalog.segments(SegmentFilter(text=self._any(words)), limit=50)

    def segments_with_a_rare_tag(self) -> None:
        self.catalog.segments(SegmentFilter(tag="nobody-gave-it"), limit=50)

    def count_capped(self) -> None:
        self.catalog.count_segments(self.filters(), at_most=10_000)

    def episodes_page(self) -> None:
        self.catalog.episodes(newest_first=True, limit=200, place=self._place())

    def data_ls_filtered(self) -> None:
        rng = self.rng
        start = T0_NS + int(rng.integers(self.n)) * EPISODE_NS
        choices: dict[str, Any] = {
            "task": self._any(TASKS),
            "operator": self._any(OPERATORS),
            "policy_version": int(rng.integers(max(1, self.n // 50))),
            "outcome": self._any(("success", "failure", "aborted", "unknown")),
            "cause": self._any(CAUSES),
            "kind": self._any(("policy", "demonstration", "evaluation")),
            "has_intervention": True,
            "session": self._session(),
            "from_ns": start,
            "to_ns": start + 86_400_000_000_000,
        }
        names = rng.choice(sorted(choices), int(rng.integers(1, 4)), replace=False)
        page = episode_page(EpisodeFilter(**{str(name): choices[str(name)] for name in names}), limit=50)
        with self.catalog.engine.connect() as connection:
            for row in connection.execute(page):
                episode_row(row._asdict())

    def one_segment(self) -> None:
        number = int(self.rng.integers(self.n))
        rows = self.catalog.segments(SegmentFilter(episode_ids=(f"01e{number:023d}",)), limit=None)
        if rows:
            self.catalog.segment(rows[0].id)

    def sessions(self) -> None:
        self.catalog.sessions()

    def episodes_of_a_session(self) -> None:
        self.catalog.episodes(session_id=self._session())

    def segments_of_a_session(self) -> None:
        self.catalog.segments(SegmentFilter(session_id=self._session()), limit=50_000)

    def insights_of_a_session(self) -> None:
        insights_of(self.catalog, self._session())

    def change_counter(self) -> None:
        self.catalog.change_counter()

    def labels_of_today(self) -> None:
        last = T0_NS + self.n * EPISODE_NS
        self.labels.events_since(last - 8 * 3_600_000_000_000, OPERATORS[0])

    def add_label(self) -> None:
        number = int(self.rng.integers(self.n))
        rows = self.catalog.segments(SegmentFilter(episode_ids=(f"01e{number:023d}",)), limit=1)
        if rows:
            self.labels.add_label(rows[0].id, "cause", self._any(CAUSES), "op-99")

    def undo(self) -> None:
        self.labels.add_label(f"01e{int(self.rng.integers(self.n)):023d}", "note", str(self.rng.random()), "op-98")
        self.labels.undo("op-98")


PAGES = (
    "segments_page",
    "segments_filtered_page",
    "segments_offset_page",
    "segments_tagged_page",
    "segments_with_a_word",
    "segments_with_a_rare_tag",
    "count_capped",
    "episodes_page",
    "data_ls_filtered",
    "one_segment",
    "sessions",
    "episodes_of_a_session",
    "segments_of_a_session",
    "change_counter",
    "labels_of_today",
    "add_label",
    "undo",
)


def timed(work: Callable[[], Any], n: int) -> dict[str, float]:
    """p50, p95 and the worst of ``n`` calls, in ms; ``p95_cpu_ms`` is this process' own time, whatever else the machine does."""
    wall, cpu = [], []
    for _ in range(n):
        started, worked = time.perf_counter(), time.process_time()
        work()
        wall.append(1000 * (time.perf_counter() - started))
        cpu.append(1000 * (time.process_time() - worked))
    p50, p95 = np.quantile(wall, [0.5, 0.95])
    figures = {"n": n, "p50_ms": p50, "p95_ms": p95, "max_ms": max(wall), "p95_cpu_ms": np.quantile(cpu, 0.95)}
    return {name: value if name == "n" else round(float(value), 2) for name, value in figures.items()}


def measure(workspace: Workspace, episode_count: int, n: int, seed: int) -> dict[str, Any]:
    """Every page, then what the console does when it opens (whole queue, newest session), which is more than one page."""
    with Catalog.open(workspace) as catalog:
        queries = Queries(catalog, Labels(workspace, catalog), episode_count, seed)
        pages = {name: timed(getattr(queries, name), n) for name in PAGES}
        figures = timed(queries.insights_of_a_session, OPENINGS)
        plans = plans_of(catalog)

    def opened_review() -> None:
        store = ReviewStore(workspace.path, "op-00")
        store.queue()
        store.close()

    def opened_insights() -> None:
        store = InsightsStore(workspace.path)
        store.snapshot()
        store.close()

    whole = {
        "review_opens_2000_rows": timed(opened_review, OPENINGS),
        "insights_of_a_session": figures,
        "insights_opens": timed(opened_insights, OPENINGS),
    }
    met = all(view["p95_ms"] <= TARGET_MS for view in (*pages.values(), *whole.values()))
    return {"pages": pages, "whole_views": whole, "plans": plans, "met": met}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--segments", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100, help="calls per query")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", default="", metavar="DIR", help="a folder to keep the catalog in; used again when it is there")
    options = parser.parse_args()

    def say(done: int, total: int) -> None:
        print(f"{done} of {total} episodes", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="catalog-") as folder:
        workspace = Workspace(options.keep or folder)
        workspace.path.mkdir(parents=True, exist_ok=True)
        made_s = 0.0
        if not workspace.catalog_path.exists():
            started = time.perf_counter()
            with Catalog.open(workspace) as catalog:
                fill(catalog, options.episodes, options.segments, options.seed, say)
            made_s = time.perf_counter() - started
        size = Path(workspace.catalog_path).stat().st_size
        result = measure(workspace, options.episodes, options.queries, options.seed)
    head = {"episodes": options.episodes, "segments": options.segments, "target_p95_ms": TARGET_MS}
    print(json.dumps(head | {"made_s": round(made_s, 1), "size_mb": round(size / 1e6, 1)} | result, indent=2))
    return 0 if result["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
