"""Closed episode files: write, verify, read back as records, and read for playback."""

import contextlib
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import msgspec
import numpy as np

from takeover.data.episode_build import DEMO, build_episode
from takeover.data.episode_checks import contradictions
from takeover.data.episode_read import open_episode, read_bounds, read_events, read_records, texts
from takeover.data.episode_schema import EpisodeRecords
from takeover.data.hdf5_image import USER_BLOCK_BYTES, DamagedFile, check_seal, sealed_digest, write_durably
from takeover.data.schema import EpisodeStart, Event, PolicyImage
from takeover.data.workspace import Workspace

__all__ = ["EpisodeReader", "episode_path", "open_episode", "read_bounds", "read_events", "read_records", "verify_file", "write_episode"]


def episode_path(workspace: Workspace, start: EpisodeStart) -> Path:
    """Where the file of an episode belongs (UTC date of its start)."""
    date = datetime.datetime.fromtimestamp(start.wall_ns / 1e9, tz=datetime.UTC).date().isoformat()
    return workspace.episode_path(start.episode_id, date)


def write_episode(workspace: Workspace, episode: EpisodeRecords) -> tuple[Path, str, int]:
    """Build, write durably and check the file; returns (path, sha256, bytes).

    Raises `EpisodeError` (records contradict each other), `OSError` (disk) or `DamagedFile` (the disk did not keep it).
    """
    path = episode_path(workspace, episode.start)
    data = build_episode(episode)
    write_durably(path, data)
    digest = check_seal(path)
    if digest != sealed_digest(data[:USER_BLOCK_BYTES]):
        raise DamagedFile(f"{path}: what is on disk is not what was written")
    return path, digest, len(data)


def verify_file(path: Path) -> list[str]:
    """Everything that is wrong with an episode file; empty when nothing is. Any changed byte is found by the seal.

    A file whose seal is broken is not opened: it could crash HDF5. `takeover.data.damaged.inspect` looks inside it from a distance.
    """
    try:
        check_seal(path)
    except (DamagedFile, OSError) as error:
        return [str(error)]
    problems: list[str] = []
    try:
        with open_episode(path, sealed=True) as file:
            problems += [f"{path}: {problem}" for problem in contradictions(file[DEMO])]
    except (DamagedFile, OSError, KeyError, ValueError, msgspec.DecodeError) as error:
        problems.append(f"{path}: unreadable: {error}")
    return problems


class EpisodeReader:
    """A closed episode for playback. A context manager; arrays are read when asked for and kept.

    ``len(reader)`` is N, the steps; held steps are left out unless ``held=True``, which gives the whole timeline by time.
    Times are monotonic nanoseconds of the recording computer.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(open_episode(self.path))
        try:
            self._demo = self._file[DEMO]
            self._hil = self._demo["hil"]
            self.start, self.end = read_bounds(self._demo)
        except (KeyError, ValueError) as error:
            self.close()
            raise DamagedFile(f"{self.path}: {error}") from error
        self.attributes: dict[str, Any] = {name: value for name, value in self._demo.attrs.items() if name not in ("start", "end")}
        self._arrays: dict[tuple[str, bool], np.ndarray] = {}
        self._pictures: dict[str, tuple[np.ndarray, np.ndarray, h5py.Dataset]] = {}

    def __enter__(self) -> "EpisodeReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stack.close()

    def __len__(self) -> int:
        return int(self._demo.attrs["num_samples"])

    @property
    def control_hz(self) -> float:
        return self.start.spec.control_hz

    @property
    def columns(self) -> list[str]:
        """Names that `column` knows."""
        return [name for name, item in self._hil.items() if isinstance(item, h5py.Dataset) and name not in ("interventions", "events")]

    def column(self, name: str, held: bool = False) -> np.ndarray:
        """(N, ...) values of ``hil/<name>``; texts as ``str`` arrays. With ``held`` also held steps, in time order."""
        key = (name, held)
        if key not in self._arrays:
            values = self._hil[name][:]
            if held and "held" in self._hil:
                order = np.argsort(np.concatenate([self._hil["rec_seq"][:], self._hil["held/rec_seq"][:]]), kind="stable")
                values = np.concatenate([values, self._hil["held"][name][:]])[order]
            self._arrays[key] = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        return self._arrays[key]

    def score(self, name: str) -> np.ndarray | None:
        """(N,) one of the scores that came with the policy's actions, NaN where a step had none; None: not in this episode."""
        key = f"scores/{name.replace('/', '_')}"
        return self.column(key) if key in self._hil else None

    @property
    def actions(self) -> np.ndarray:
        """(N, A) applied, canonical."""
        return self.column("action")

    @property
    def policy_action(self) -> np.ndarray:
        """(N, A) what the policy wanted; NaN where it gave none."""
        return self.column("policy_action")

    @property
    def human_action(self) -> np.ndarray:
        """(N, A) what the person commanded; NaN where nobody did."""
        return self.column("human_action")

    @property
    def source(self) -> np.ndarray:
        """(N, G) a `Source` per action group."""
        return self.column("source")

    @property
    def control_mode(self) -> np.ndarray:
        """(N,) a `ControlMode`."""
        return self.column("control_mode")

    @property
    def times_s(self) -> np.ndarray:
        """(N,) seconds since the episode's start, of each observation."""
        return (self.column("t_observation_ns") - self.start.t_ns) / 1e9

    @property
    def observations(self) -> np.ndarray:
        """(N, D)."""
        return self._demo["obs/state"][:]

    @property
    def rewards(self) -> np.ndarray:
        return self._demo["rewards"][:]

    def observation(self, name: str) -> np.ndarray:
        """(N,) one named number of the observation. Raises `KeyError` listing the known ones."""
        names = self.start.spec.observation.names
        if name not in names:
            raise KeyError(f"no observation {name!r}; known: {', '.join(names)}")
        return self.observations[:, names.index(name)]

    @property
    def interventions(self) -> list[dict[str, Any]]:
        """[{id, start, end, labeled_onset, kind, trigger, operator}], start and end as step numbers."""
        table = self._hil["interventions"][:]
        names = table.dtype.names or ()
        return [{n: row[n].decode() if row[n].dtype.kind == "S" else row[n].item() for n in names} for row in table]

    @property
    def events(self) -> list[Event]:
        return read_events(self._demo, self.start)

    @property
    def cameras(self) -> list[str]:
        """Cameras with recorded pictures; empty when none were recorded."""
        return list(self._hil["pictures"])

    def frame_count(self, camera: str) -> int:
        return len(self.frame_times_ns(camera))

    def frame_times_ns(self, camera: str) -> np.ndarray:
        """(F,) monotonic source time of each picture."""
        return self._hil["pictures"][camera]["t_source_ns"][:]

    def frame_seqs(self, camera: str) -> np.ndarray:
        """(F,) control step each picture belongs to."""
        return self._hil["pictures"][camera]["seq"][:]

    def frame(self, camera: str, index: int) -> bytes:
        """JPEG bytes of picture ``index``."""
        if camera not in self._pictures:
            group = self._hil["pictures"][camera]
            self._pictures[camera] = (group["offsets"][:], group["t_source_ns"][:], group["jpeg"])
        offsets, _, stored = self._pictures[camera]  # kept open: HDF5's cache of chunks goes with the dataset
        return stored[int(offsets[index]) : int(offsets[index + 1])].tobytes()

    def frame_at(self, camera: str, t_ns: int) -> int:
        """Index of the newest picture not younger than ``t_ns`` (the first one before that)."""
        return max(0, int(np.searchsorted(self.frame_times_ns(camera), t_ns, side="right")) - 1)

    @property
    def policy_cameras(self) -> list[str]:
        """Cameras whose pictures the policy saw; empty when it saw none."""
        return [name for name in self._hil["frames"] if name != "state"]

    def policy_picture(self, camera: str, t_ns: int) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB: what the policy saw in the step that ``t_ns`` is in; None when that step has no such picture."""
        times = self.column("t_observation_ns", held=True)
        step = max(0, int(np.searchsorted(times, t_ns, side="right")) - 1)
        row = int(self.column("frame_index", held=True)[step])
        return self._hil["frames"][camera][row] if self._hil["image_valid"][camera][row] else None

    def policy_images(self, step: int, cameras: Sequence[str]) -> list[PolicyImage]:
        """What the policy saw before step number ``step`` through ``cameras``, each that gave a picture. Nothing else is decoded.

        Raises `OSError` where a stored picture cannot be read.
        """
        row, found = int(self.column("frame_index")[step]), []
        for camera in cameras:
            if camera in self.policy_cameras and self._hil["image_valid"][camera][row]:
                picture = self._hil["frames"][camera][row]
                found.append(PolicyImage(camera=camera, height=picture.shape[0], width=picture.shape[1], data=picture.tobytes()))
        return found

    def simulator_states(self) -> list[tuple[str, int, bytes]]:
        """Exact simulator states as (takeover | failure | a mark's kind | ..., seq, bytes)."""
        group = self._hil["sim_state"]
        offsets, data = group["offsets"][:].tolist(), group["data"][:]
        pairs = zip(texts(group["kind"][:]), group["seq"][:].tolist(), strict=True)
        return [(kind, seq, data[offsets[i] : offsets[i + 1]].tobytes()) for i, (kind, seq) in enumerate(pairs)]
