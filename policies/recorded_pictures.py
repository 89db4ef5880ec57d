"""What the policy saw at single recorded steps, from the episode files: one file is open at a time, one step's pictures are decoded."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from takeover.data.episode_file import EpisodeReader
from takeover.data.schema import PolicyImage


class RecordedPictures:
    """A context manager. Ask episode by episode: a file is opened, and its seal checked, each time that another one is asked for."""

    def __init__(self) -> None:
        self._open: tuple[Path, EpisodeReader] | None = None

    def __enter__(self) -> "RecordedPictures":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def of(self, path: Path, step: int, cameras: Sequence[str]) -> list[PolicyImage] | None:
        """The pictures that the policy acted on in step number ``step``, byte for byte; None where one of ``cameras`` gave none, or
        what is stored of it cannot be read.

        Raises `DamagedFile` or `FileNotFoundError` when the episode's file cannot be opened.
        """
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = (path, EpisodeReader(path))
        try:
            found = self._open[1].policy_images(step, cameras)
        except (OSError, KeyError):
            return None
        return found if len(found) == len(cameras) else None
