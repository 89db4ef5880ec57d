"""A test that watches the clock, or gave up waiting, gets a second try, and the run shows why: on a shared machine time can stand still."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run import PATIENT, POLICIES

ROOT = Path(__file__).resolve().parents[1]
SECOND_TRIES = 4  # in one run; more failures than that are no accident, and are red at once
WAITED_IN_VAIN = ["TimeoutError", "TimeoutExpired", "did not happen in time", "function monotonic", r"eventually\("]
"""What says that a test of the run at low priority gave up waiting; nothing else of it gets a second try."""
REAL_TIME = ("tests/app", "tests/faults", "tests/robot_bridge")


def _below(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


@pytest.fixture(autouse=True)
def _whole_floating_point() -> Iterator[None]:
    """Commands set their process up to flush denormals; run inside a test, that would stay for every test after it."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("rerunfailures") and config.option.max_suite_reruns is None:
        config.option.max_suite_reruns = SECOND_TRIES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.pluginmanager.hasplugin("rerunfailures"):
        return
    for item in items:
        if _below(item.path, PATIENT + POLICIES):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=WAITED_IN_VAIN))
        elif _below(item.path, REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What failed at the first try, in full: a test that often needs two is a finding."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"first try of {report.nodeid}", yellow=True)
        terminalreporter.line(report.longreprtext)
