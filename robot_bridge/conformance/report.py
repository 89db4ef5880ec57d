"""Checks, their results, and how both are shown."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

R = TypeVar("R")

STALL_S = 0.04  # a third of the shortest T_cmd: from then on our own commands and answers may be too late


class Status(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


class Failed(Exception):
    """The peer did not do what it must; says what was observed."""


class Skipped(Exception):
    """The check could not be made; says why."""


@dataclass(frozen=True)
class Check(Generic[R]):
    """One check. ``run(rig)`` returns what was observed, or raises `Failed` or `Skipped`."""

    name: str
    did: str
    expected: str
    run: Callable[[R], str]


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    name: str
    did: str
    expected: str
    observed: str
    status: Status


class Suite(Generic[R]):
    """Checks in the order in which they are made."""

    def __init__(self) -> None:
        self.checks: list[Check[R]] = []

    def check(self, did: str, expected: str) -> Callable[[Callable[[R], str]], Callable[[R], str]]:
        """Decorator: the function's name is that of the check."""

        def add(run: Callable[[R], str]) -> Callable[[R], str]:
            self.checks.append(Check(run.__name__, did, expected, run))
            return run

        return add

    @property
    def names(self) -> list[str]:
        return [item.name for item in self.checks]

    def skipped(self, why: str) -> list[Result]:
        """Every check, not made."""
        return [Result(item.name, item.did, item.expected, why, Status.SKIP) for item in self.checks]

    def run(
        self, rig: R, told: Callable[[Result], None], only: Collection[str] = (), stall_s: Callable[[], float] = lambda: 0.0
    ) -> list[Result]:
        """Make every check, or ``only`` those; ``told`` hears of each result at once. A check that times out has failed.

        ``stall_s``: for how long at most our own side did nothing since it was last asked, s. What failed while that was `STALL_S` or
        more says so: our own commands may have left too late. It is not made again: a mistake that shows once only would be hidden.
        """
        results = []
        for item in self.checks:
            if only and item.name not in only:
                continue
            stall_s()
            try:
                observed, status = item.run(rig), Status.PASS
            except (Failed, TimeoutError) as error:
                observed, status = str(error), Status.FAIL
                if (stalled_s := stall_s()) >= STALL_S:
                    observed += f" (this computer stood still for {1000 * stalled_s:.0f} ms meanwhile: try again when it is less busy)"
            except Skipped as error:
                observed, status = str(error), Status.SKIP
            results.append(Result(item.name, item.did, item.expected, observed, status))
            told(results[-1])
        return results


def unknown(only: Collection[str], *suites: "Suite[Any]") -> list[str]:
    """Names in ``only`` that no check has."""
    return sorted(set(only) - {name for suite in suites for name in suite.names})


def need(condition: object, observed: str) -> None:
    """Raise `Failed` with what was observed unless ``condition`` holds."""
    if not condition:
        raise Failed(observed)


def line(result: Result) -> str:
    """A result as people read it: one line when good, all of it when not."""
    first = f"{result.status.upper():4}  {result.name:34} "
    if result.status is not Status.FAIL:
        return first + result.observed
    return f"{first}\n        did:      {result.did}\n        expected: {result.expected}\n        observed: {result.observed}"


def not_looked_at(beyond: Sequence[str]) -> str:
    """What a report says nothing about, a line each."""
    return "\n".join(f"not looked at: {item}" for item in beyond)


def summary(results: Sequence[Result]) -> str:
    """The last line of a report."""
    count = {status: sum(result.status is status for result in results) for status in Status}
    return f"{count[Status.PASS]} passed, {count[Status.FAIL]} failed, {count[Status.SKIP]} skipped"


def as_json(peer: str, results: Sequence[Result], beyond: Sequence[str] = ()) -> str:
    """``{peer, passed, failed, skipped, checks: [{name, did, expected, observed, status}], not_looked_at: [...]}``."""
    document: dict[str, Any] = {"peer": peer}
    for key, status in (("passed", Status.PASS), ("failed", Status.FAIL), ("skipped", Status.SKIP)):
        document[key] = sum(result.status is status for result in results)
    document["checks"] = [asdict(result) for result in results]
    document["not_looked_at"] = list(beyond)
    return json.dumps(document, indent=1) + "\n"
