"""What the command line says to wrong input, before anything starts, and what it prints."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from takeover.app.cli import main
from takeover.app.commands.options import StationOptions, make_config
from takeover.app.processes.common import StartupError
from takeover.data.station import Station, load_station
from takeover.data.workspace import Workspace
from takeover.policies.registry import check_parameters
from takeover.robot_bridge.robots.registry import make_robot, make_simulator


@pytest.fixture
def runtime():
    """A runtime folder with a short name: socket paths are limited."""
    with tempfile.TemporaryDirectory(prefix="tk") as folder:
        yield Path(folder)


@pytest.fixture
def no_display(monkeypatch, runtime):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))


def refused(capsys, *argv: str) -> str:
    """The one line on stderr of a command that ends with status 2."""
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("takeover: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--robot", "ur5"], ("unknown robot 'ur5'", "known: sim")),
        (["--robot", "sim:juggle"], ("unknown task 'juggle'", "peg-insert, pick-lift")),
        (["--task", "juggle"], ("unknown task 'juggle'", "peg-insert, pick-lift")),
        (["--learner", "magic"], ("unknown learner 'magic'", "hil-serl, sirius, iwr, hg-dagger, bc, none")),
        (["--set", "speed=1"], ("--set speed=1", "task, learner, operator")),
        (["--set", "task.clearance_m=wide"], ("a number is expected",)),
        (["--set", "operator.mood=1"], ("unknown operator parameter 'mood'", "stall_steps")),
        (["--set", "operator.speed=9"], ("speed = 9", "0.1 to 1.5")),
        (["--control-hz", "30"], ("--control-hz 30", "robot 'sim' runs at 20, 50, 100 Hz")),
        (["--control-hz", "nan"], ("--control-hz nan", "robot 'sim' runs at 20, 50, 100 Hz")),
        (["--control-hz", "-20"], ("--control-hz -20", "robot 'sim' runs at 20, 50, 100 Hz")),
        (
            ["--control-hz", "50", "--robot", "sim-server"],
            ("--control-hz 50", "'sim-server' has a rate of its own; leave out --control-hz"),
        ),
        (["--episodes", "0"], ("--episodes 0", "at least 1")),
        (["--evaluation-starts", "201"], ("1 to 200",)),
        (["--summary", "/nonexistent/out.json"], ("/nonexistent",)),
    ],
)
def test_run_refuses_wrong_input_and_starts_nothing(tmp_path, capsys, no_display, runtime, arguments, said):
    line = refused(capsys, "run", "--headless", "--workspace", str(tmp_path / "ws"), *arguments)
    for words in said:
        assert words in line
    assert not list(runtime.glob("takeover/*"))
    assert not list(tmp_path.glob("**/station.lock"))


def test_a_locked_workspace_names_who_has_it(tmp_path, capsys, no_display, runtime):
    workspace = Workspace(tmp_path / "ws").prepare()
    with workspace.lock():
        line = refused(capsys, "run", "--workspace", str(workspace.path))
    assert str(os.getpid()) in line
    assert not list(runtime.glob("takeover/*")), "the socket folder is gone again"


def test_an_unwritable_workspace(capsys, no_display):
    line = refused(capsys, "run", "--workspace", "/proc/takeover")
    assert "/proc/takeover is not writable" in line


def test_an_almost_full_disk(tmp_path, capsys, no_display, runtime, monkeypatch):
    monkeypatch.setattr(Workspace, "free_bytes", lambda self: 10_000_000)
    assert "almost full" in refused(capsys, "run", "--workspace", str(tmp_path))
    assert not list(runtime.glob("takeover/*"))
    assert not (tmp_path / "station.lock").exists()


def test_a_broken_station_file_is_named_with_its_line(tmp_path, capsys, no_display):
    Workspace(tmp_path).station_path.write_text('person = "op-07"\ndemonstrations = "many"\n')
    line = refused(capsys, "run", "--workspace", str(tmp_path))
    assert "station.toml" in line
    assert "2" in line
    assert "demonstrations" in line


def test_a_new_workspace_gets_a_station_file_and_no_other_is_touched(tmp_path, no_display):
    config = make_config(StationOptions(workspace=str(tmp_path)), operator="none")
    assert load_station(tmp_path / "station.toml") == Station()
    assert config.devices == ["keyboard", "gamepad", "spacemouse"]
    commented = (tmp_path / "station.toml").read_text().replace("# updates_per_step", "updates_per_step")
    (tmp_path / "station.toml").write_text(commented)
    check_parameters("hil-serl", load_station(tmp_path / "station.toml").learner_parameters)
    (tmp_path / "station.toml").write_text('policy_cameras = ["front"]\n[devices]\nkeyboard = false\n')
    config = make_config(StationOptions(workspace=str(tmp_path)), operator="none")
    assert (config.policy_cameras, config.devices) == (["front"], ["gamepad", "spacemouse"])


def test_the_control_rate_is_the_robots(tmp_path, no_display):
    for given, hz in ((0.0, 20.0), (50.0, 50.0)):
        config = make_config(StationOptions(workspace=str(tmp_path), control_hz=given), operator="none")
        assert make_robot(config).spec.control_hz == hz
        assert make_simulator(config).spec.control_hz == hz, "the evaluator's too"


def test_a_policy_that_is_to_see_pictures_is_not_run_without_cameras(tmp_path, capsys, no_display, runtime):
    """It used to be run as if none had been named: neither shown their pictures nor held without them."""
    given = ["--policy-cameras", "front", "wrist", "--workspace", str(tmp_path)]
    line = refused(capsys, "run", "--no-cameras", *given)
    assert "--policy-cameras front wrist: the policy is to see these, but this run has no cameras; leave out --no-cameras" in line
    assert "but this run has no cameras; give --cameras, without --no-cameras" in refused(capsys, "run", "--clock", "lockstep", *given)
    Workspace(tmp_path).station_path.write_text('person = "op-07"\npolicy_cameras = ["front"]\n')
    for command in (["run"], ["collect", "--device", "scripted"]):
        line = refused(capsys, *command, "--no-cameras", "--workspace", str(tmp_path))
        assert "station.toml, line 2: policy_cameras: front: the policy is to see these, but this run has no cameras" in line
    assert not list(runtime.glob("takeover/*"))
    assert make_config(StationOptions(workspace=str(tmp_path)), operator="none").policy_cameras == ["front"]


@pytest.mark.usefixtures("no_display")
def test_settings_that_are_right_only_together_are_taken_together(tmp_path):
    def made(*given):
        return make_config(StationOptions(workspace=str(tmp_path), set=given), operator="none").learner_parameters

    rlif = ("learner.task_reward=false", "learner.takeover_reward=-1")
    assert made(*rlif) == {"task_reward": False, "takeover_reward": -1}
    with pytest.raises(StartupError, match=r"--set learner\.task_reward=false: task_reward = False leaves no reward at all"):
        made(rlif[0])
    with pytest.raises(StartupError, match=r"^learner settings: .*relative_pose and ee_frame need observations"):
        made("learner.relative_pose=true", "learner.observations=pictures")
    Workspace(tmp_path).station_path.write_text("[learner_parameters]\ntask_reward = false\ntakeover_reward = -0.5\n")
    assert made() == {"task_reward": False, "takeover_reward": -0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('learner = "magic"', ("line 2", "learner", "unknown learner 'magic'", "hil-serl")),
        ('task = "juggle"', ("line 2", "task", "unknown task 'juggle'", "pick-lift")),
        ('robot = "ur5"', ("line 2", "robot", "unknown robot 'ur5'", "known: sim")),
        ("[learner_parameters]\nutd = 3", ("line 3", "learner_parameters", "no setting 'utd'", "updates_per_step")),
        ("[learner_parameters]\nupdates_per_step = 99", ("line 3", "updates_per_step", "99")),
    ],
)
def test_names_that_a_station_file_gets_wrong_are_found_in_it(tmp_path, capsys, no_display, runtime, text, said):
    Workspace(tmp_path).station_path.write_text(f'person = "op-07"\n{text}\n')
    line = refused(capsys, "run", "--workspace", str(tmp_path))
    assert "station.toml" in line
    for words in said:
        assert words in line
    assert not list(runtime.glob("takeover/*"))


@pytest.mark.parametrize("argv", [["console"], ["demo"], ["--robot", "sim"]])
def test_a_window_without_a_display(capsys, no_display, argv):
    assert "no display" in refused(capsys, *argv)


def test_a_display_that_does_not_answer(capsys, no_display, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4711")
    assert "no display" in refused(capsys, "console")


def test_a_consent_belongs_to_its_person(tmp_path, no_display):
    Workspace(tmp_path).prepare().station_path.write_text('person = "op-07"\nconsent_version = "2026-05"\n')
    for person, consent in (("", "2026-05"), ("op-07", "2026-05"), ("op-08", "")):
        config = make_config(StationOptions(workspace=str(tmp_path), person=person), operator="none")
        assert config.consent_version == consent


def test_a_person_has_a_name_that_a_console_may_have(tmp_path, no_display):
    longest = "P.1_" + "x" * 60
    assert make_config(StationOptions(workspace=str(tmp_path), person=longest), operator="none").person == longest
    for name in ("ann b", "desk/console", "-x", "x" * 65):
        with pytest.raises(StartupError, match=r"--person .*: allowed: 1 to 64 letters, digits, '-', '_' or '.'"):
            make_config(StationOptions(workspace=str(tmp_path), person=name), operator="none")


def test_collect_without_a_device(tmp_path, capsys, no_display):
    line = refused(capsys, "collect", "--headless", "--workspace", str(tmp_path))
    assert "no gamepad or SpaceMouse is plugged in" in line
    assert "known devices: gamepad, SpaceMouse, keyboard" in line


def test_store_commands_need_a_workspace_with_recordings(tmp_path, capsys, no_display):
    for argv in (["data", "ls"], ["policy", "ls"]):
        assert "not a workspace with recordings" in refused(capsys, *argv, "--workspace", str(tmp_path))


def test_evaluate_without_a_policy(tmp_path, capsys, no_display):
    assert "published: none" in refused(capsys, "evaluate", "--workspace", str(tmp_path))


def test_help_lists_every_command():
    result = subprocess.run([sys.executable, "-m", "takeover.app.cli", "--help"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    for command in (
        "demo",
        "collect",
        "run",
        "bridge",
        "actor",
        "recorder",
        "learner",
        "evaluator",
        "operator",
        "devices",
        "data",
        "policy",
    ):
        assert f"• {command}" in result.stdout


def test_one_process_alone_refuses_a_broken_configuration(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"session_id": 3}))
    command = [sys.executable, "-m", "takeover.app.cli", "bridge", "--config", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert str(path) in result.stderr
    assert result.stderr.count("\n") == 1


def test_one_process_alone_leaves_a_folder_that_is_not_its_own_as_it_is(tmp_path, capsys, no_display):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    line = refused(capsys, "bridge", "--workspace", str(tmp_path / "ws"), "--sockets", str(shared))
    assert f"socket folder {shared} is open to others (mode 1777): name one that does not exist yet" in line
    assert (shared.stat().st_mode & 0o7777, [*shared.iterdir()]) == (0o1777, [])


def test_devices_lists_none(capsys, no_display):
    assert main(["devices"]) == 0
    assert "plug in a gamepad" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("takeover ")


def test_nothing_of_ours_is_needed_from_the_current_folder(tmp_path: Path):
    result = subprocess.run([Path(sys.executable).with_name("takeover"), "--version"], cwd=tmp_path, capture_output=True, timeout=60)
    assert result.returncode == 0


def test_benchmarks_are_listed_and_unknown_ones_named(capsys):
    assert main(["bench"]) == 0
    assert "control" in capsys.readouterr().out
    assert main(["bench", "speed"]) == 2
    assert "known: control, chunks" in capsys.readouterr().err


def test_output_that_nobody_reads_to_its_end_is_no_fault():
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as gone:
            done = subprocess.run([sys.executable, "-m", "takeover.app.cli", *arguments], stdout=gone, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (141, b"")
