"""What the episodes of a LeRobot export have in common, checked before anything is written."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from takeover.data.episode_build import DEMO
from takeover.data.episode_read import open_episode, read_bounds
from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.selection import Source
from takeover.data.exchange.stretches import PictureChoice
from takeover.data.hdf5_image import DamagedFile
from takeover.data.schema import RobotSpec


@dataclass
class Survey:
    """``specs``: {hash: spec}; they share robot, action, observation and rate. ``tasks``: prompts in order. ``cameras``: {name: (H, W)}."""

    spec: RobotSpec
    specs: dict[str, RobotSpec] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)

    def task_index(self, spec: RobotSpec) -> int:
        return self.tasks.index(task_text(spec))


def task_text(spec: RobotSpec) -> str:
    """The prompt; the task's id where there is none."""
    return spec.prompt or spec.task_id


def spec_sha256(spec: RobotSpec) -> str:
    """Under which `Survey.specs` and meta/takeover.json keep a spec."""
    return hashlib.sha256(msgspec.json.encode(spec)).hexdigest()


def survey(sources: Sequence[Source], pictures: PictureChoice) -> Survey:
    """Read every episode's head. Raises `ExchangeError` naming two episodes that do not fit into one dataset, `DamagedFile`."""
    found: Survey | None = None
    first = sources[0].row.id
    for source in sources:
        spec, cameras = _head(source, pictures)
        if found is None:
            found = Survey(spec, cameras=cameras)
        _fits(found, spec, cameras, first, source.row.id)
        found.specs.setdefault(spec_sha256(spec), spec)
        if task_text(spec) not in found.tasks:
            found.tasks.append(task_text(spec))
    if found is None:
        raise ExchangeError("nothing to export")
    return found


def _head(source: Source, pictures: PictureChoice) -> tuple[RobotSpec, dict[str, tuple[int, int]]]:
    with open_episode(source.path) as file:
        try:
            demo = file[DEMO]
            start, _ = read_bounds(demo)
            cameras: dict[str, tuple[int, int]] = {}
            if pictures == "camera":
                for name, group in demo["hil/pictures"].items():
                    cameras[name] = (int(group.attrs["height"]), int(group.attrs["width"]))
            elif pictures == "policy":
                cameras = {name: demo["obs"][name].shape[1:3] for name in demo["obs"] if name != "state"}
        except (KeyError, ValueError, OSError) as error:
            raise DamagedFile(f"{source.path}: {error}") from error
    return start.spec, cameras


def _fits(found: Survey, spec: RobotSpec, cameras: dict[str, tuple[int, int]], first: str, other: str) -> None:
    pair = f"episodes {first} and {other}"
    for name, one, two in (
        ("control_hz", found.spec.control_hz, spec.control_hz),
        ("robot_id", found.spec.robot_id, spec.robot_id),
        ("action", found.spec.action, spec.action),
        ("observation", found.spec.observation, spec.observation),
    ):
        if one != two:
            said = f"{one} and {two}" if isinstance(one, float | str) else "different names, units or scales"
            raise ExchangeError(f"{pair} do not fit into one dataset: {name} is {said}; export them apart (by task, session or id)")
    if cameras != found.cameras:
        raise ExchangeError(
            f"{pair} do not fit into one dataset: pictures of {_said(found.cameras)} and of {_said(cameras)}; "
            "export them apart, or without pictures"
        )


def _said(cameras: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f"{name} ({width}x{height})" for name, (height, width) in sorted(cameras.items())) or "no camera"
