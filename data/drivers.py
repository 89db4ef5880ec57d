"""Who drove an episode: its operator, until the bridge's ``driver`` events name somebody else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from takeover.data.schema import EpisodeStart, Event

DRIVER = "driver"
"""Kind of the event; its ``seq`` is the first control step that this person drives, its ``text`` `Driver.noted`."""


@dataclass(frozen=True)
class Driver:
    """Pseudonym, and which consent that person has given. Empty: not said."""

    name: str = ""
    consent_version: str = ""

    @property
    def noted(self) -> str:
        """As the text of an event: neither part has a space."""
        return f"{self.name} {self.consent_version}".rstrip()

    @classmethod
    def of(cls, text: str) -> "Driver":
        name, _, consent_version = text.partition(" ")
        return cls(name, consent_version)


UNNAMED = Driver()
SCRIPT = Driver("scripted")


def drivers(start: EpisodeStart, events: Iterable[Event]) -> list[tuple[int, Driver]]:
    """[(control step, who drives from there on if anybody does)]; the operator stands first, before every step."""
    changes = [(event.seq, Driver.of(event.text)) for event in events if (event.kind, event.source) == (DRIVER, "bridge")]
    return [(-1, Driver(start.operator, start.consent_version)), *sorted(changes, key=lambda change: change[0])]


def driver_at(changes: Sequence[tuple[int, Driver]], seq: int) -> str:
    """Pseudonym of who drives at control step ``seq``, of what `drivers` found."""
    return [driver.name for since, driver in changes if since <= seq or since < 0][-1]
