"""``station.toml``: what a station is. Typed and validated; an error names file, line, field and what is allowed."""

import math
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from takeover.data.limits import LIMIT_RANGES, LimitError, check_limits
from takeover.data.schema import SafetyLimits

_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,63}")
ID_ALLOWED = "1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"

_SERVER = re.compile(r"(?!sqlite)[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://.+")

MAX_DEMONSTRATIONS = 10_000
MAX_KEY_DELAY_S = 5.0
MAX_VETOES = 1000


class StationError(ValueError):
    """The station file cannot be used: one line with file, line number, field and allowed range."""


class StationDevices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which input devices may drive. A device that is off is not opened; STOP on the keyboard works always."""

    keyboard: bool = True
    gamepad: bool = True
    spacemouse: bool = True

    def allowed(self) -> list[str]:
        """Kinds that are on, as `RunConfig.devices` has them."""
        return [name for name in self.__struct_fields__ if getattr(self, name)]


class Station(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One station. Every field has a default: an empty file is the built-in simulated robot."""

    station_id: str = "local"
    person: str = "op-01"  # pseudonym
    consent_version: str = ""  # what that person agreed to: noted in every episode; "": not noted
    robot: str = "sim"
    robot_address: str = ""  # where a robot that is reached over a link is found
    task: str = "peg-insert"
    learner: str = "hil-serl"
    demonstrations: int = 20
    hold_to_run: bool = False
    line_of_sight: Literal["auto", "yes", "no"] = "auto"  # "yes": the person may drive while a camera gives no new picture
    catalog: str = ""  # URL of a database server for the catalog; "": the workspace's own SQLite file
    reward: Literal["task", "keys", "classifier"] = "task"
    key_delay_s: float = 0.5  # an operator's outcome key is dated back by this
    retrain_reward_after: int = 3  # vetoes; with reward "classifier" the next classifier is then trained; 0: never
    policy_cameras: list[str] = msgspec.field(default_factory=list)  # the policy is held while one of these gives no new picture
    limits: SafetyLimits = msgspec.field(default_factory=SafetyLimits)
    devices: StationDevices = msgspec.field(default_factory=StationDevices)
    learner_parameters: dict[str, float | str | bool] = msgspec.field(default_factory=dict)


def load_station(path: Path | str) -> Station:
    """Read and check a station file. Raises `StationError`."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StationError(f"{file}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise StationError(f"{file}: cannot be read: {error.strerror}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StationError(f"{file}: {_with_line(str(error))}") from error
    for section, known in (("", Station), ("limits", SafetyLimits), ("devices", StationDevices)):
        _check_known(file, text, content if not section else content.get(section, {}), section, known)
    try:
        station = msgspec.convert(content, Station)
    except msgspec.ValidationError as error:
        field = _field_of(str(error))
        raise StationError(f"{file}, line {line_of(text, field)}: {field or 'station'}: {str(error).partition(' - at')[0]}") from error
    _check_values(file, text, station)
    return station


def is_id(name: str) -> bool:
    """Whether a station or a person may be called ``name``: see `ID_ALLOWED`."""
    return _ID.fullmatch(name) is not None


def _with_line(message: str) -> str:
    found = re.search(r"\(at line (\d+), column (\d+)\)", message)
    return f"line {found[1]}, column {found[2]}: {message[: found.start()].strip()}" if found else message


def _field_of(message: str) -> str:
    found = re.search(r"at `\$\.?(.*)`", message)
    return re.sub(r"\[(\d+|\.\.\.)\]", "", found[1]) if found else ""


def line_of(text: str, field: str) -> int:
    """Line of ``section.key`` (or a bare key) in a TOML text; of the section, or 1, when the key is not written on a line of its own."""
    section, _, key = field.rpartition(".")
    current, fallback = "", 1
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[{1,2}\s*([^\]]+?)\s*\]", line)
        if header:
            current = header[1].strip("\"'")
            if current in (field, section):
                fallback = number
            if current == field:
                return number
            continue
        dotted = section and not current and re.match(rf"\s*{re.escape(field)}\s*=", line)
        if dotted or (current == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line)):
            return number
    return fallback


def _check_known(file: Path, text: str, table: Any, section: str, known: type[msgspec.Struct]) -> None:
    for name in table if isinstance(table, dict) else ():
        if name not in known.__struct_fields__:
            field = f"{section}.{name}" if section else name
            raise StationError(f"{file}, line {line_of(text, field)}: unknown field {field!r}; known: {', '.join(known.__struct_fields__)}")


def _refuse(file: Path, text: str, field: str, value: object, allowed: str) -> StationError:
    return StationError(f"{file}, line {line_of(text, field)}: {field} is {value!r}; allowed: {allowed}")


def _check_values(file: Path, text: str, station: Station) -> None:
    for name in ("station_id", "person"):
        value = getattr(station, name)
        if not is_id(value):
            raise _refuse(file, text, name, value, ID_ALLOWED)
    if station.consent_version and not _ID.fullmatch(station.consent_version):
        raise _refuse(file, text, "consent_version", station.consent_version, "letters, digits, '-', '_' or '.', 64 at most, or nothing")
    if station.catalog and not _SERVER.match(station.catalog):
        allowed = 'the URL of a database server, such as "postgresql+psycopg://user@host/database", or nothing for a file of the workspace'
        raise _refuse(file, text, "catalog", re.sub(r":[^:@/]*@", ":***@", station.catalog), allowed)
    for name in ("robot", "task", "learner"):
        if not getattr(station, name):
            raise _refuse(file, text, name, "", "a name")
    if not 0.0 <= station.key_delay_s <= MAX_KEY_DELAY_S:
        raise _refuse(file, text, "key_delay_s", station.key_delay_s, f"0 to {MAX_KEY_DELAY_S:g} s")
    if not 0 <= station.retrain_reward_after <= MAX_VETOES:
        raise _refuse(file, text, "retrain_reward_after", station.retrain_reward_after, f"0 (never) to {MAX_VETOES} vetoes")
    if not 1 <= station.demonstrations <= MAX_DEMONSTRATIONS:
        raise _refuse(file, text, "demonstrations", station.demonstrations, f"1 to {MAX_DEMONSTRATIONS}")
    try:
        check_limits(station.limits)
    except LimitError as error:
        raise _refuse(file, text, f"limits.{error.field}", error.value, error.allowed) from error
    if not all(_ID.fullmatch(name) for name in station.policy_cameras):
        raise _refuse(file, text, "policy_cameras", station.policy_cameras, "names of cameras: letters, digits, '-', '_', '.'")
    if not station.devices.allowed():
        raise StationError(f"{file}, line {line_of(text, 'devices')}: devices: all are off; allowed: at least one that is on")
    for name, value in station.learner_parameters.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _refuse(file, text, f"learner_parameters.{name}", value, "a finite number")


def default_station_text() -> str:
    """A commented station file with every field at its default."""
    limits = SafetyLimits()
    rows = [
        f"# {name} = {getattr(limits, name)}  # {low:g} to {high:g} {unit}".rstrip() for name, (low, high, unit) in LIMIT_RANGES.items()
    ]
    box = f"# workspace_low = {limits.workspace_low}  # m, base frame\n# workspace_high = {limits.workspace_high}"
    station = Station()
    return f"""# What this station is. Every line may be left out; what is commented out shows the default.
station_id = "{station.station_id}"
person = "{station.person}"  # a pseudonym; no real names
consent_version = ""  # which consent that person has given, e.g. "2026-05"; noted in every episode

robot = "{station.robot}"
# robot_address = "127.0.0.1:5600"  # of robot "sim-server", the same arm in a process of its own
task = "{station.task}"
learner = "{station.learner}"
demonstrations = {station.demonstrations}  # cloned into policy version 1
hold_to_run = false  # true: letting go of the deadman holds the robot; false: it gives back to the policy, which drives
line_of_sight = "auto"  # "yes": whoever drives sees the robot itself, also without pictures; "auto": that is so in simulation alone
catalog = ""  # a database server instead of catalog.sqlite, e.g. "postgresql+psycopg://user@host/database", for this workspace alone
reward = "{station.reward}"  # who gives it and ends episodes: "task" (simulators), "keys" (operators alone), "classifier" (learned)
key_delay_s = {station.key_delay_s}  # operators' keys come late: what they say is dated back by this
retrain_reward_after = {station.retrain_reward_after}  # vetoes, then the next classifier is trained by itself; 0: never
policy_cameras = []  # the policy is held while one of these gives no new picture, e.g. ["front"]

[devices]  # which may drive; Esc stops the robot always
keyboard = true
gamepad = true
spacemouse = true

[learner_parameters]
# updates_per_step = 1.5  # of hil-serl; `takeover` lists the settings when one is unknown

[limits]  # of the safety filter; none can be switched off
{chr(10).join(rows)}
{box}
"""
