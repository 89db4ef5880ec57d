"""A generated catalog of any size: sessions, episodes, segments and labels spread as years of work would spread them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sqlalchemy import insert

from takeover.data.catalog import Catalog
from takeover.data.catalog_current import fill_in
from takeover.data.catalog_tables import episodes, label_events, label_state, segments, sessions
from takeover.data.schema import Cause

T0_NS = 1_700_000_000_000_000_000
EPISODE_NS = 20_000_000_000
TASKS = ("pick-lift", "peg-insert", "pour", "fold", "sort")
OPERATORS = tuple(f"op-{i:02d}" for i in range(12))
CAUSES = tuple(cause.value for cause in Cause)
EPISODES_PER_SESSION = 200
BATCH = 5000


def fill(
    catalog: Catalog, episode_count: int, segment_count: int, seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> None:
    """Insert the rows in bulk, as one transaction per batch of episodes; then work out the columns that follow."""
    rng = np.random.default_rng(seed)
    per_episode = segment_count / episode_count
    made = 0
    with catalog.writing() as connection:
        connection.execute(insert(sessions), [_session(i) for i in range(-(-episode_count // EPISODES_PER_SESSION))])
    for first in range(0, episode_count, BATCH):
        numbers = range(first, min(first + BATCH, episode_count))
        flagged: list[dict[str, Any]] = []
        for number in numbers:
            wanted = int((number + 1) * per_episode) - made
            flagged += [_segment(number, k, rng) for k in range(wanted)]
            made += wanted
        states, events = _labels(flagged, rng)
        with catalog.writing() as connection:
            connection.execute(insert(episodes), [_episode(number, rng) for number in numbers])
            connection.execute(insert(segments), flagged)
            if states:
                connection.execute(insert(label_state), states)
                connection.execute(insert(label_events), events)
        if progress is not None:
            progress(numbers[-1] + 1, episode_count)
    with catalog.writing() as connection:
        fill_in(connection)


def session_of(number: int) -> str:
    return f"s{number // EPISODES_PER_SESSION:06d}"


def _session(i: int) -> dict[str, Any]:
    return {
        "id": f"s{i:06d}",
        "station_id": f"st-{i % 3}",
        "robot_id": "sim",
        "task_id": TASKS[i % 5],
        "operator": OPERATORS[i % 12],
        "started_ns": T0_NS + i * EPISODES_PER_SESSION * EPISODE_NS,
        "software": "takeover",
        "config_sha256": "0" * 64,
    }


def _episode(number: int, rng: np.random.Generator) -> dict[str, Any]:
    session = number // EPISODES_PER_SESSION
    outcome = ("success", "failure", "aborted", "unknown")[int(rng.choice(4, p=[0.7, 0.22, 0.05, 0.03]))]
    return {
        "id": f"01e{number:023d}",
        "session_id": session_of(number),
        "number": number % EPISODES_PER_SESSION,
        "kind": "demonstration" if number % EPISODES_PER_SESSION < 20 else "evaluation" if number % 50 == 49 else "policy",
        "robot_id": "sim",
        "task_id": TASKS[session % 5],
        "operator": OPERATORS[session % 12],
        "started_ns": T0_NS + number * EPISODE_NS,
        "ended_ns": T0_NS + number * EPISODE_NS + 15_000_000_000,
        "control_hz": 20.0,
        "steps": 300,
        "human_steps": int(rng.integers(0, 120)),
        "held_steps": 0,
        "takeovers": int(rng.integers(0, 6)),
        "autonomous": bool(rng.random() < 0.3),
        "outcome": outcome,
        "outcome_source": "task",
        "event_step": 299,
        "discarded": bool(rng.random() < 0.01),
        "recovered": False,
        "policy_version": number // 50,
        "policy_sha256": "a" * 64,
        "start_seed": number,
        "has_pictures": True,
        "first_rec_seq": (number % EPISODES_PER_SESSION) * 400,
        "rec_ranges": f"[[{number}, {number}]]",
        "path": f"episodes/2026-01-01/01e{number:023d}.hdf5",
        "sha256": "b" * 64,
        "size_bytes": 1_000_000,
    }


def _segment(number: int, k: int, rng: np.random.Generator) -> dict[str, Any]:
    kind = ("takeover", "failure", "safety")[int(rng.choice(3, p=[0.8, 0.1, 0.1]))]
    start = 5 + 25 * k
    return {
        "id": f"01e{number:023d}:{kind[0]}{k}",
        "episode_id": f"01e{number:023d}",
        "kind": kind,
        "number": k,
        "start_step": start,
        "end_step": start + 20,
        "start_s": start / 20,
        "end_s": (start + 20) / 20,
        "started_ns": T0_NS + number * EPISODE_NS + start * 50_000_000,
        "trigger": "human",
        "detail": "command_stale" if kind == "safety" else "",
        "operator": OPERATORS[(number // EPISODES_PER_SESSION) % 12],
        "policy_version": number // 50,
    }


def _labels(flagged: list[dict[str, Any]], rng: np.random.Generator) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Half of the segments were reviewed: a cause and "submitted"; some a note, an exclusion, a tag."""
    states: list[dict[str, Any]] = []
    for row in flagged:
        for field, value in _reviewed(rng):
            number = row["started_ns"] + len(states)
            states.append(
                {
                    "target": row["id"],
                    "field": field,
                    "episode_id": row["episode_id"],
                    "value": value,
                    "author": OPERATORS[number % 3],
                    "wall_ns": row["started_ns"] + 3_600_000_000_000,
                    "event_id": f"{row['id'][-20:]}-{field[:5]}".replace(":", "-"),
                }
            )
    events = [
        {**{k: v for k, v in row.items() if k != "event_id"}, "id": row["event_id"], "previous": "", "action": "set", "refers_to": ""}
        for row in states
    ]
    return states, events


def _reviewed(rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    if rng.random() < 0.5:
        yield "cause", CAUSES[int(rng.choice(len(CAUSES), p=[0.3, 0.3, 0.15, 0.15, 0.05, 0.04, 0.01]))]
        yield "review", "submitted"
        if rng.random() < 0.05:
            yield "note", f"slipped at the rim {int(rng.integers(1000))}"
        if rng.random() < 0.02:
            yield "exclude", "true"
        if rng.random() < 0.02:
            yield "tag:slippery", "true"
