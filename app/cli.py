"""The command line. `main` is the ``takeover`` program."""

import os
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from takeover import __version__
from takeover.app.commands import bench as bench_command
from takeover.app.commands import check as check_command
from takeover.app.commands import collect as collect_command
from takeover.app.commands import console as console_command
from takeover.app.commands import data_cli as data_command
from takeover.app.commands import devices as devices_command
from takeover.app.commands import exchange as exchange_command
from takeover.app.commands import keys as keys_command
from takeover.app.commands import labels as labels_command
from takeover.app.commands import policy_cli as policy_command
from takeover.app.commands import practice as practice_command
from takeover.app.commands import process as process_command
from takeover.app.commands import reward_cli as reward_command
from takeover.app.commands import run as run_command
from takeover.app.commands import sim_server as sim_server_command
from takeover.app.commands import store as store_command
from takeover.app.commands.display import has_display
from takeover.app.launcher import Interrupted, StationFailed
from takeover.app.processes.common import EXIT_BAD_INPUT, StartupError
from takeover.app.supervisor import RunError

DESCRIPTION = """Supervise a learning robot, take over when it falters, and turn every correction into a better policy.

Without a command the app opens on the built-in simulated robot; without a display the same loop runs headless with a scripted
operator, and ends with a summary and a picture of the learning curves.

  takeover                                        the app
  takeover --robot sim:pick-lift                  the app on another task
  takeover demo                                   the app with a scripted operator at work
  takeover collect --episodes 20                  record demonstrations, then clone them
  takeover run --headless --clock lockstep --episodes 380 --seed 1 --summary out.json
                                                  the whole loop, reproducible
  takeover devices                                what is plugged in
  takeover data ls                                what has been recorded
  takeover export lerobot DIR                     for other tools; also robomimic, mcap, parquet, csv
  takeover policy ls                              what has been learned; also show, promote, rollback
  takeover reward train                           a reward from keys, marks and labels; also ls, show, score, veto

Everything is kept in a workspace (--workspace DIR). Ctrl+C and SIGTERM stop a station cleanly. Exit status: 0 done, 1 failed,
2 something you must change (one line on stderr says what), 130 stopped by Ctrl+C or SIGTERM.
"""

EXIT_NOBODY_READS = 141  # as of a program that SIGPIPE ends

HANDLERS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "console": (console_command.Console, console_command.console),
    "demo": (console_command.Demo, console_command.demo),
    "collect": (collect_command.Collect, collect_command.collect),
    "run": (run_command.Run, run_command.run),
    "practice": (practice_command.Practice, practice_command.practice),
    "evaluate": (store_command.Evaluate, store_command.evaluate),
    "data": (data_command.Data, lambda command: data_command.data(command.arguments)),
    "data-labels": (labels_command.DataLabels, labels_command.data_labels),
    "export": (exchange_command.Export, exchange_command.export),
    "import": (exchange_command.Import, exchange_command.import_),
    "policy": (policy_command.Policy, lambda command: policy_command.policy(command.arguments)),
    "reward": (reward_command.Reward, lambda command: reward_command.reward(command.arguments)),
    "devices": (devices_command.Devices, devices_command.devices),
    "keys": (keys_command.Keys, keys_command.keys),
    "audit": (keys_command.Audit, keys_command.print_audit),
    "bench": (bench_command.Bench, lambda command: bench_command.bench([command.name] if command.name else [])),
    "sim-server": (sim_server_command.SimServer, sim_server_command.sim_server),
    "bridge": (process_command.Bridge, process_command.run_one),
    "actor": (process_command.Actor, process_command.run_one),
    "bridge-check": (check_command.BridgeCheck, check_command.bridge_check),
    "actor-check": (check_command.ActorCheck, check_command.actor_check),
    "recorder": (process_command.Recorder, process_command.run_one),
    "learner": (process_command.Learner, process_command.run_one),
    "evaluator": (process_command.Evaluator, process_command.run_one),
    "operator": (process_command.Operator, process_command.run_one),
}


@dataclass(frozen=True)
class _Version:
    """Print the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    try:
        try:
            return _command(list(sys.argv[1:] if argv is None else argv))
        finally:
            sys.stdout.flush()  # not at the interpreter's end, where nobody catches what it raises
    except BrokenPipeError:
        if not _nobody_reads():
            raise  # of another pipe: a fault of ours
        return EXIT_NOBODY_READS


def _nobody_reads() -> bool:
    """Whether who read our output has gone, as `head` does: no fault. What is still buffered is thrown away then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)  # POLLERR is told unasked
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _command(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"takeover {__version__}")
        return 0
    if arguments[:1] == ["bench"]:
        return _guarded(lambda: bench_command.bench(arguments[1:]))
    if arguments[:1] == ["data"] and arguments[1:2] not in (["export"], ["import"], ["labels"]):
        return _guarded(lambda: data_command.data(arguments[1:]))
    if arguments[:1] == ["policy"]:
        return _guarded(lambda: policy_command.policy(arguments[1:]))
    if arguments[:1] == ["reward"]:
        return _guarded(lambda: reward_command.reward(arguments[1:]))
    if arguments[:2] in (["bridge", "check"], ["actor", "check"], ["data", "labels"]):
        arguments[:2] = ["-".join(arguments[:2])]
    if arguments[:2] in (["data", "export"], ["data", "import"]):
        del arguments[0]
    if not arguments and not has_display():
        return _guarded(lambda: run_command.first_look())
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "console")
    command = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in HANDLERS.items()},
        prog="takeover",
        description=DESCRIPTION,
        args=arguments,
        config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    handler = next(handler for kind, handler in HANDLERS.values() if type(command) is kind)
    return _guarded(lambda: handler(command))


def _guarded(work: Callable[[], int]) -> int:
    """One clear line for what a user can change or must know; anything else is a fault of ours and keeps its traceback."""
    try:
        return work()
    except StartupError as error:
        print(f"takeover: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (Interrupted, KeyboardInterrupt):
        print("takeover: stopped", file=sys.stderr)
        return 130
    except (RunError, StationFailed) as error:
        print(f"takeover: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
