"""station.toml: the default text loads; every error names file, line, field and what is allowed."""

import msgspec
import pytest

from takeover.data.limits import LIMIT_RANGES
from takeover.data.schema import SafetyLimits
from takeover.data.station import Station, StationError, default_station_text, load_station


def load(tmp_path, text):
    path = tmp_path / "station.toml"
    path.write_text(text)
    return load_station(path)


def test_the_default_text_is_the_default_station(tmp_path):
    assert load(tmp_path, default_station_text()) == Station()
    assert load(tmp_path, "") == Station()


def test_uncommented_defaults_are_within_their_ranges(tmp_path):
    lines = [line.removeprefix("# ") if "=" in line and line.startswith("# ") else line for line in default_station_text().splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("updates_per_step"))
    assert load(tmp_path, text).limits == SafetyLimits()
    assert {*LIMIT_RANGES, "workspace_low", "workspace_high"} == set(SafetyLimits.__struct_fields__)


def test_every_field_arrives(tmp_path):
    text = """
station_id = "cell-3"
person = "op-07"
consent_version = "2026-05"
task = "pick-lift"
hold_to_run = true
line_of_sight = "no"
policy_cameras = ["front"]
[limits]
max_force_n = 25
workspace_low = [-0.1, -0.1, 0.01]
[learner_parameters]
utd = 4.0
[devices]
keyboard = false
"""
    station = load(tmp_path, text)
    assert (station.station_id, station.person, station.task, station.hold_to_run) == ("cell-3", "op-07", "pick-lift", True)
    assert (station.consent_version, station.line_of_sight) == ("2026-05", "no")
    assert station.limits == msgspec.structs.replace(SafetyLimits(), max_force_n=25.0, workspace_low=[-0.1, -0.1, 0.01])
    assert station.learner_parameters == {"utd": 4.0}
    assert station.policy_cameras == ["front"]
    assert station.devices.allowed() == ["gamepad", "spacemouse"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("person = \n", 1, ["Invalid value"]),
        ('\n\nlearnr = "x"\n', 3, ["learnr", "known:", "learner"]),
        ('demonstrations = "many"\n', 1, ["demonstrations", "int"]),
        ("robot = 'sim'\ndemonstrations = 0\n", 2, ["demonstrations", "1 to 10000"]),
        ("retrain_reward_after = -1\n", 1, ["retrain_reward_after", "0 (never) to 1000 vetoes"]),
        ("[limits]\nslow_scale = 0.2\nmax_force_n = 500.0\n", 3, ["limits.max_force_n", "500.0", "1 to 150 N"]),
        ("[limits]\nslow_scale = 1.0\n", 2, ["limits.slow_scale", "0.05 to 0.25"]),
        ("[limits]\nmax_speed_m_s = nan\n", 2, ["limits.max_speed_m_s", "0.01 to 1 m/s"]),
        ("[limits]\nmax_sped = 1.0\n", 2, ["limits.max_sped", "max_speed_m_s"]),
        ("[limits]\nmax_force_n = 'big'\n", 2, ["limits.max_force_n", "float"]),
        ("[limits]\nworkspace_low = [0.5, 0.0, 0.0]\n", 2, ["limits.workspace_low", "less than workspace_high"]),
        ("[limits]\nworkspace_high = [0.5, 0.0]\n", 2, ["limits.workspace_high", "three numbers"]),
        ('person = "Jane Doe"\n', 1, ["person", "letters, digits"]),
        ("robot = 'sim'\npolicy_cameras = ['front', 'a b']\n", 2, ["policy_cameras", "letters, digits"]),
        ('consent_version = "May 2026"\n', 1, ["consent_version", "letters, digits"]),
        ("policy_cameras = 'front'\n", 1, ["policy_cameras", "array"]),
        ("\n[devices]\nkeyboard = false\ngamepad = false\nspacemouse = false\n", 2, ["devices", "at least one"]),
        ("[devices]\ngamepad = 3\n", 2, ["devices.gamepad", "bool"]),
    ],
)
def test_errors_name_file_line_field_and_range(tmp_path, text, line, words):
    with pytest.raises(StationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "station.toml" in message
    assert f"line {line}" in message
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(StationError, match="cannot be read"):
        load_station(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StationError, match="UTF-8"):
        load_station(tmp_path / "b.toml")
