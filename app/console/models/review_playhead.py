"""Where playback stands and how fast it runs: J/K/L shuttle, frames, seconds. Pure; the page calls `advance` with elapsed time."""

from dataclasses import dataclass, replace

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Playhead:
    """``position_s`` from the start of step 0, in [0, ``duration_s``]; one frame is one control step (1 / ``control_hz``)."""

    steps: int
    control_hz: float
    position_s: float = 0.0
    speed: float = 1.0  # chosen; how fast it plays when it does
    direction: int = 0  # -1 back, 0 paused, 1 forward

    def __post_init__(self) -> None:
        if self.steps < 1 or self.control_hz <= 0:
            raise ValueError(f"an episode of {self.steps} steps at {self.control_hz} Hz cannot be played")

    @property
    def duration_s(self) -> float:
        """Start of the last step: the last place at which anything is known."""
        return (self.steps - 1) / self.control_hz

    @property
    def playing(self) -> bool:
        return self.direction != 0

    @property
    def step(self) -> int:
        """The control step under the play-head."""
        return min(self.steps - 1, max(0, int(self.position_s * self.control_hz + 1e-6)))

    def seek(self, position_s: float) -> "Playhead":
        return replace(self, position_s=min(self.duration_s, max(0.0, position_s)))

    def frame(self, frames: int) -> "Playhead":
        """Pause and go to the start of another step."""
        return replace(self, direction=0).seek((self.step + frames) / self.control_hz)

    def toggle(self) -> "Playhead":
        """K: play or pause; from the end it starts again at 0."""
        if self.playing:
            return replace(self, direction=0)
        position = 0.0 if self.position_s >= self.duration_s else self.position_s
        return replace(self, direction=1, position_s=position)

    def shuttle(self, direction: int) -> "Playhead":
        """J (-1) or L (+1): play that way; again: the next faster speed; against the present direction: turn round at speed 1."""
        if self.direction == direction:
            faster = [speed for speed in SPEEDS if speed > self.speed]
            return replace(self, speed=faster[0] if faster else self.speed)
        return replace(self, direction=direction, speed=self.speed if not self.playing else 1.0)

    def with_speed(self, speed: float) -> "Playhead":
        """Raises ValueError for a speed that is not one of `SPEEDS`."""
        if speed not in SPEEDS:
            raise ValueError(f"speed {speed}; known: {', '.join(map(str, SPEEDS))}")
        return replace(self, speed=speed)

    def advance(self, elapsed_s: float) -> "Playhead":
        """After ``elapsed_s`` of wall time; pauses at either end."""
        if not self.playing:
            return self
        moved = self.seek(self.position_s + self.direction * self.speed * elapsed_s)
        at_end = moved.position_s >= self.duration_s if self.direction > 0 else moved.position_s <= 0.0
        return replace(moved, direction=0) if at_end else moved
