"""Plays an episode into the page's views: pictures, action bars, timeline, transport follow one play-head."""

from PySide6.QtCore import QElapsedTimer, QObject, Qt, QTimer
from PySide6.QtGui import QImage

from takeover.app.console import tokens
from takeover.app.console.models.review import LEAD_S
from takeover.app.console.models.review_episode import CameraTrack, LoadedEpisode
from takeover.app.console.models.review_items import ReviewItem
from takeover.app.console.models.review_playhead import SPEEDS, Playhead
from takeover.app.console.review_background import Background
from takeover.app.console.review_pictures import ActionPanel, PictureView
from takeover.app.console.review_timeline import TimelineView
from takeover.app.console.review_transport import TransportRow
from takeover.app.console.widgets import Run

TICK_MS = 25
_DECODED = 64  # pictures kept decoded


class ReviewPlayer(QObject):
    """`show_episode` when a recording was read, then `seek`, `toggle`, `shuttle`, `jump`; ``playhead`` is None without a recording."""

    def __init__(self, background: Background, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.front, self.wrist = PictureView("Front", 140.0), PictureView("Wrist", 100.0)
        self.action, self.timeline, self.transport = ActionPanel(), TimelineView(), TransportRow()
        self.playhead: Playhead | None = None
        self.episode: LoadedEpisode | None = None
        self._background = background
        self._shown_step = -1
        self._decoded: dict[tuple[str, int], QImage] = {}
        self._tick = QTimer(self, interval=TICK_MS)
        self._tick.timeout.connect(self._advance)
        self._clock = QElapsedTimer()
        self.timeline.sought.connect(self.seek)
        self.transport.play.clicked.connect(self.toggle)
        self.transport.speed.changed.connect(self.set_speed)

    def show_nothing(self, reason: str) -> None:
        """The recording cannot be read; say why where the picture would be."""
        self._set(None)
        self.episode = None
        self.front.set_missing(reason)
        self.timeline.set_timeline(None, None)

    def show_episode(self, episode: LoadedEpisode, item: ReviewItem | None) -> None:
        """Begin `LEAD_S` before the segment's first step, paused."""
        if episode is not self.episode:
            self._decoded.clear()
        self.episode = episode
        timeline = episode.timeline
        pictures = bool(episode.tracks)
        self.wrist.setVisible(len(episode.tracks) > 1)
        if not pictures:
            self.front.set_name("No pictures")
            self.front.set_missing("This run recorded no pictures;\nthe signals below are complete.")
        for view, track in zip((self.front, self.wrist), episode.tracks, strict=False):
            view.set_name(track.camera.capitalize())
        self.timeline.set_timeline(timeline, item, pictures)
        if pictures:
            self._make_film(episode.tracks[0])
        self._shown_step = -1
        start = item.start_step / timeline.control_hz if item else 0.0
        self._set(Playhead(timeline.steps, timeline.control_hz).seek(start - LEAD_S) if timeline.steps else None)

    def _make_film(self, track: CameraTrack) -> None:
        places = [int((index + 0.5) / TimelineView.FRAMES * len(track.frame_of)) for index in range(TimelineView.FRAMES)]

        def decode() -> list[QImage]:
            images = [QImage.fromData(track.jpegs[int(track.frame_of[place])]) for place in places]
            return [image.scaledToWidth(160, Qt.TransformationMode.SmoothTransformation) for image in images]

        self._background.submit("film", decode, self.timeline.set_film)

    def _show(self) -> None:
        playhead, episode = self.playhead, self.episode
        self.transport.set_playhead(playhead, SPEEDS)
        if playhead is None or episode is None:
            return
        self.timeline.set_position(playhead.position_s)
        if playhead.step == self._shown_step:
            return
        self._shown_step = playhead.step
        self.action.set_state(episode.timeline, playhead.step)
        for view, track in zip((self.front, self.wrist), episode.tracks, strict=False):
            view.set_image(self._picture(track, int(track.frame_of[playhead.step])), self._chip(track, playhead))

    def _chip(self, track: CameraTrack, playhead: Playhead) -> list[Run]:
        pairs: tuple[tuple[str, str], ...]
        if self.episode is not None and track is self.episode.tracks[0]:
            pairs = (("step ", f"{playhead.step}   "), ("time ", f"{playhead.position_s:.2f} s"))
        else:
            pairs = (("offset ", f"{track.offset_ms[playhead.step]:+.0f} ms".replace("-", "−")),)
        return [run for name, value in pairs for run in ((name, tokens.T3, tokens.REGULAR), (value, tokens.T1, tokens.MEDIUM))]

    def _picture(self, track: CameraTrack, index: int) -> QImage:
        key = (track.camera, index)
        if key not in self._decoded:
            if len(self._decoded) >= _DECODED:
                del self._decoded[next(iter(self._decoded))]
            self._decoded[key] = QImage.fromData(track.jpegs[index])
        return self._decoded[key]

    def _set(self, playhead: Playhead | None) -> None:
        was_playing = self.playhead is not None and self.playhead.playing
        self.playhead = playhead
        playing = playhead is not None and playhead.playing
        if playing and not was_playing:
            self._clock.start()
            self._tick.start()
        elif not playing:
            self._tick.stop()
        self._show()

    def _advance(self) -> None:
        if self.playhead is not None:
            self._set(self.playhead.advance(self._clock.restart() / 1000.0))

    def pause(self) -> None:
        if self.playhead is not None and self.playhead.playing:
            self._set(self.playhead.toggle())

    def toggle(self) -> None:
        if self.playhead is not None:
            self._set(self.playhead.toggle())

    def seek(self, position_s: float) -> None:
        if self.playhead is not None:
            self._set(self.playhead.seek(position_s))

    def set_speed(self, index: int) -> None:
        if self.playhead is not None:
            self._set(self.playhead.with_speed(SPEEDS[index]))

    def jump(self, direction: int, second: bool) -> None:
        if self.playhead is not None:
            frames = round(self.playhead.control_hz) if second else 1
            self._set(self.playhead.frame(direction * frames))

    def shuttle(self, direction: int) -> None:
        if self.playhead is not None:
            self._set(self.playhead.shuttle(direction))
