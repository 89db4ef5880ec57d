"""MP4 with PyAV: frame i is at exactly i / fps."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from takeover.data.exchange.errors import ExchangeError
from takeover.data.exchange.pictures import PictureError, decode, is_jpeg
from takeover.data.exchange.scheduling import ordinary_priority
from takeover.data.exchange.target import write_with

Codec = Literal["h264", "av1"]
# Small groups of pictures: a learner reads frames in random order. Fast: forty pictures a second of robot time are not to take long.
_ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "23", "preset": "ultrafast", "g": "2", "bf": "0"}),
    "av1": ("libsvtav1", {"crf": "30", "preset": "12", "g": "2"}),
}
_THREADS = 2
_AHEAD = 8  # pictures decoded while others are encoded


class VideoTrack:
    """One video file of pictures that all have ``width`` x ``height``."""

    def __init__(self, path: Path, width: int, height: int, fps: int, codec: Codec = "h264") -> None:
        if width % 2 or height % 2:
            raise ExchangeError(f"{path.name}: pictures of {width}x{height}: MP4 in yuv420p needs even numbers; export images instead")
        self.path, self.width, self.height, self.fps, self.codec = path, width, height, fps, codec

    def write(self, parts: Sequence[Sequence[bytes] | np.ndarray]) -> None:
        """Encode parts of JPEG or PNG bytes, or of (n, H, W, 3) uint8, one after the other; whole and synced under its name."""
        write_with(self.path, lambda temporary: self._encode(temporary, parts))

    def _encode(self, path: Path, parts: Sequence[Sequence[bytes] | np.ndarray]) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # errors only: it writes pages to stderr otherwise
        encoder, options = _ENCODERS[self.codec]
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream(encoder, rate=self.fps, options=options)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, self.fps)
            stream.codec_context.thread_count = _THREADS
            stream.codec_context.color_range, stream.codec_context.colorspace = ColorRange.MPEG, Colorspace.SMPTE170M
            with ordinary_priority():
                stream.codec_context.open()
            number = -1
            try:
                for number, frame in enumerate(_decoded_ahead(picture for part in parts for picture in part)):
                    frame.pts, frame.time_base = number, Fraction(1, self.fps)
                    container.mux(stream.encode(frame))
            except (av.FFmpegError, PictureError) as error:
                raise ExchangeError(f"{self.path.name}: picture {number + 1} cannot be encoded: {error}") from error
            container.mux(stream.encode(None))


def _decoded_ahead(pictures: Iterator[bytes | np.ndarray]) -> Iterator[av.VideoFrame]:
    """Frames in yuv420p, decoded by a second thread while the first encodes."""
    decoder = av.CodecContext.create("mjpeg", "r")
    newest: tuple[bytes, av.VideoFrame] | None = None  # a camera slower than the control has one picture for several steps

    def decoded(picture: bytes) -> av.VideoFrame:
        nonlocal newest
        if newest is None or newest[0] is not picture:
            found = decoder.decode(av.Packet(picture))
            if len(found) != 1 or found[0].is_corrupt:
                raise PictureError("a damaged picture")
            newest = (picture, found[0])
        return newest[1]

    def frame_of(picture: bytes | np.ndarray) -> av.VideoFrame:
        if isinstance(picture, bytes) and is_jpeg(picture):
            # a JPEG has levels 0 to 255, a video 16 to 235: unless it is asked for, they are copied and shown with too much contrast
            return decoded(picture).reformat(format="yuv420p", src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG)
        pixels = decode(picture) if isinstance(picture, bytes) else picture
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        return frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[av.VideoFrame]] = deque()
        for picture in pictures:
            waiting.append(pool.submit(frame_of, picture))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_video(path: Path, max_pixels: int = 64 * 1024**2) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, (H, W, 3) uint8 RGB) of every frame in order. Raises `ExchangeError` naming the file and the frame."""
    number = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ExchangeError(f"{path}: no video in it")
            stream = container.streams.video[0]
            stream.thread_count = _THREADS
            if stream.width * stream.height > max_pixels:
                raise ExchangeError(f"{path}: a picture of {stream.width}x{stream.height} is too large")
            for frame in container.decode(stream):
                if frame.time is None:
                    raise ExchangeError(f"{path}: frame {number} has no time")
                yield frame.time, frame.to_ndarray(format="rgb24")
                number += 1
    except (av.FFmpegError, OSError) as error:
        raise ExchangeError(f"{path}: cannot be read at frame {number}: {error}") from error
