"""`takeover policy evaluate`: one version alone, or against another on the same starts, in a simulator of its own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from takeover.app.commands.data_options import Where, existing, print_json
from takeover.app.commands.policy_options import Json, author_of, config_of, decisions_of, other_of, runnable, trusted_of, with_cameras
from takeover.app.commands.policy_parameters import Judged, Parameters, judged_at
from takeover.app.commands.progress import progress_display
from takeover.app.processes.common import StartupError
from takeover.app.supervisor import Progress
from takeover.data.catalog import Catalog
from takeover.data.seeding import HELDOUT_STARTS, heldout_start
from takeover.data.statistics import wilson

if TYPE_CHECKING:
    from takeover.policies.manifest import Manifest
    from takeover.policies.outcomes import Outcomes
    from takeover.robot_bridge.robots.base import Robot


@dataclass(frozen=True)
class Evaluate:
    """A version alone, deterministic, on the held-out starts; with --against also the other one, in pairs. Stopped, it goes on later."""

    version: Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="VERSION")]
    """Its number in `takeover policy ls`."""
    against: Annotated[str, tyro.conf.arg(metavar="VERSION", help_behavior_hint="")] = ""
    """Compare with this version, or with `trusted`: better, not worse, worse, or insufficient evidence."""
    decide: bool = False
    """With `--against trusted`: let what follows count, as the gate does: promote, or refuse and roll back."""
    starts: int = HELDOUT_STARTS
    """How many of the held-out starts, at most."""
    margin: float = 0.10
    """Not worse means: loses less than this in success rate."""
    alpha: float = 0.05
    """Error rate of each answer, over all looks at the pairs."""
    set: Parameters = ()
    by: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="Who decides (default: the station's person).")] = ""
    robot: Annotated[str, tyro.conf.arg(metavar="NAME", help_behavior_hint="", help="As in `takeover run` (default: the station's).")] = ""
    json: Json = False
    workspace: Where = ""


def evaluate(command: Evaluate) -> int:
    """Returns 0 whatever the answer is."""
    if not 1 <= command.starts <= HELDOUT_STARTS:
        raise StartupError(f"--starts {command.starts}: there are 1 to {HELDOUT_STARTS} held-out starts")
    if command.decide and command.against != "trusted":
        raise StartupError("--decide needs --against trusted: decisions follow from that comparison alone")
    if command.against not in ("", "trusted") and not command.against.isdigit():
        raise StartupError(f"--against {command.against}: a version's number, or trusted")
    workspace = existing(command.workspace)
    manifest = runnable(workspace, command.version)
    against = other_of(workspace, manifest, command.against)
    judged = judged_at(with_cameras(config_of(workspace, command.robot), manifest), manifest, command.set, against)
    with prepared(str(workspace.path), judged.config) as (robot, outcomes), progress_display() as display:

        def show(done: int, total: int) -> bool:
            display.show(Progress(f"version {command.version}", done, total, f"start {done}"))
            return True

        if command.against:
            return _compare(command, manifest, robot, outcomes, show, judged)
        return _alone(command, manifest, robot, outcomes, show, judged)


@contextmanager
def prepared(workspace: str, config: Any) -> "Iterator[tuple[Robot, Outcomes]]":
    """A simulator and what is known of starts in it. Refused policies and other faults leave as `StartupError`."""
    from takeover.policies.base import PolicyRefused
    from takeover.policies.decisions import DecisionError
    from takeover.policies.outcomes import Outcomes, conditions_of
    from takeover.policies.torch_setup import configure
    from takeover.robot_bridge.robots.base import RobotError
    from takeover.robot_bridge.robots.registry import make_simulator

    configure(1)
    try:
        robot = make_simulator(config)
        robot.connect()
    except RobotError as error:
        raise StartupError(str(error)) from error
    try:
        spec = robot.spec
        yield robot, Outcomes(workspace, conditions_of(spec.robot_id, spec.task_id, spec.control_hz, config.task_parameters))
    except (PolicyRefused, DecisionError, ValueError) as error:
        raise StartupError(str(error)) from error
    except OSError as error:
        raise StartupError(f"{error.filename or workspace}: {error.strerror or error}") from error
    finally:
        robot.close()


def _alone(
    command: Evaluate, manifest: "Manifest", robot: "Robot", outcomes: "Outcomes", show: Callable[[int, int], bool], judged: Judged
) -> int:
    from takeover.policies.gating import run_start
    from takeover.policies.publish import load_for

    loaded = load_for(existing(command.workspace).path, command.version, robot.spec)
    started_s = time.monotonic()
    successes = 0
    for index in range(command.starts):
        successes += run_start(loaded, robot, heldout_start(index), outcomes)
        show(index + 1, command.starts)
    _note(command, manifest, judged.protocol("heldout"), successes, command.starts, time.monotonic() - started_s)
    low, high = wilson(successes, command.starts)
    if command.json:
        found = {"version": command.version, "successes": successes, "n": command.starts, "interval": [low, high]}
        print_json(found | judged.as_json)
    else:
        judged.say()
        print(f"version {command.version}: {successes} of {command.starts} ({100 * low:.0f} to {100 * high:.0f} %)")
    return 0


def _compare(
    command: Evaluate, manifest: "Manifest", robot: "Robot", outcomes: "Outcomes", show: Callable[[int, int], bool], judged: Judged
) -> int:
    from takeover.policies.decisions import standing
    from takeover.policies.gate import GateSettings
    from takeover.policies.gating import GateResult, as_json, compare, gate
    from takeover.policies.publish import load_for
    from takeover.robot_bridge.robots.registry import make_variant

    workspace = existing(command.workspace)
    settings = GateSettings(alpha_worse=command.alpha, alpha_pass=command.alpha, margin=command.margin, seek_better=True)
    starts = [heldout_start(index) for index in range(command.starts)]
    started_s = time.monotonic()
    if command.decide:
        author = author_of(command.by, judged.config.person)
        variant = partial(make_variant, judged.config)
        result = gate(workspace.path, command.version, robot, starts, outcomes, settings, show, author, variant)
    else:
        now = standing(decisions_of(workspace), robot.spec.robot_id, robot.spec.task_id)
        other = trusted_of(now) if command.against == "trusted" else int(command.against)
        if other == command.version:
            raise StartupError(f"version {other} against itself says nothing; name another")
        runnable(workspace, other)
        loaded = [load_for(workspace.path, version, robot.spec) for version in (command.version, other)]
        test = compare(loaded[0], loaded[1], robot, starts, outcomes, settings, show)
        result = GateResult(command.version, other, test.verdict, test.numbers, [])
    numbers = result.numbers
    if numbers:
        _note(command, manifest, judged.protocol("paired"), numbers["candidate_successes"], numbers["pairs"], time.monotonic() - started_s)
    if command.json:
        print_json(as_json(result) | judged.as_json)
        return 0
    judged.say()
    print(result.text)
    for decision in result.decisions:
        print(f"decision {decision.number}: version {decision.version} {decision.kind.replace('_', ' ')}, by {decision.author}")
    return 0


def _note(command: Evaluate, manifest: "Manifest", protocol: str, successes: int, n: int, wall_s: float) -> None:
    with Catalog.open(existing(command.workspace)) as catalog:
        catalog.add_evaluation(
            session_id=manifest.data_session,
            policy_version=manifest.version,
            policy_sha256=manifest.sha256,
            task_id=manifest.task_id,
            protocol=protocol,
            successes=successes,
            n=n,
            wall_s=wall_s,
        )
