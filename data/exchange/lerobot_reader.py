"""What every reader of a LeRobotDataset does the same way: its pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.foreign import LARGEST_POLICY_PICTURE, ForeignEpisode, name_of
from takeover.data.exchange.lerobot_read import TIME_TOLERANCE_S, Dataset, video_path
from takeover.data.exchange.pictures import PictureError, decode, encode_jpeg, is_jpeg
from takeover.data.exchange.video import read_video


def camera_of(key: str) -> str:
    """A feature's camera as a plain name."""
    return name_of(key.removeprefix("observation.images.").removeprefix("observation."))


class Reader:
    """Makes episodes of a dataset, one after the other."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.picture_keys = [key for key, feature in dataset.features.items() if feature.is_picture]
        self._videos: dict[str, tuple[Path, Iterator[tuple[float, np.ndarray]], float]] = {}

    def where(self, number: int) -> str:
        return f"{self.dataset.path}, episode {number}"

    def add_pictures(self, episode: ForeignEpisode, columns: Mapping[str, Any], number: int) -> None:
        """JPEG bytes stay as they are; other pictures are the policy's when small, else they become JPEG."""
        for key in self.picture_keys:
            camera = camera_of(key)
            feature = self.dataset.features[key]
            if feature.dtype == "image" and all(map(is_jpeg, columns[key])):
                episode.jpegs[camera] = columns[key]
                continue
            pixels = self._video_frames(number, key) if feature.dtype == "video" else self._decoded(columns[key], key, number)
            if max(pixels[0].shape[:2]) > LARGEST_POLICY_PICTURE:
                episode.jpegs[camera] = [encode_jpeg(picture) for picture in pixels]
                continue
            sizes = {picture.shape for picture in pixels}
            if len(sizes) > 1:
                raise ExchangeError(f"{self.where(number)}: {key} changes size: {sorted(sizes)}")
            episode.small[camera] = np.stack(pixels)

    def _decoded(self, encoded: list[bytes], key: str, number: int) -> list[np.ndarray]:
        pixels = []
        for step, data in enumerate(encoded):
            try:
                pixels.append(decode(data))
            except PictureError as error:
                raise ExchangeError(f"{self.where(number)}: {key} at step {step}: {error}") from error
        return pixels

    def _video_frames(self, number: int, key: str) -> list[np.ndarray]:
        """Frames whose times are from_timestamp + k / fps. Files are read once, as long as episodes come in their order."""
        path, fps = video_path(self.dataset, number, key), self.dataset.fps
        begin = self.dataset.episodes[number].get(f"videos/{key}/from_timestamp")
        if not isinstance(begin, int | float):
            raise ExchangeError(f"{self.where(number)}: videos/{key}/from_timestamp is missing")
        held = self._videos.get(key)
        if held is None or held[0] != path or held[2] > begin + TIME_TOLERANCE_S:
            held = (path, read_video(path), -1.0)
        frames: list[np.ndarray] = []
        time_s, wanted = held[2], int(self.dataset.episodes[number]["length"])
        while len(frames) < wanted:
            found = next(held[1], None)
            due = float(begin) + len(frames) / fps
            if found is None or found[0] > due + TIME_TOLERANCE_S:
                raise ExchangeError(f"{path}: no frame at {due:.4f} s, step {len(frames)} of episode {number}; the video is not whole")
            time_s = found[0]
            if abs(time_s - due) <= TIME_TOLERANCE_S:
                frames.append(found[1])
        self._videos[key] = (path, held[1], time_s)
        return frames
