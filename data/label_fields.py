"""Which labels there are, what they may say, and of what. Pure functions."""

import re
from dataclasses import dataclass

from takeover.data.label_log import LabelError
from takeover.data.schema import Cause, InterventionKind, Outcome

FIELDS: dict[str, tuple[str, ...]] = {
    "cause": tuple(cause.value for cause in Cause),
    "kind": tuple(kind.value for kind in InterventionKind),
    "outcome": tuple(outcome.value for outcome in Outcome),
    "quality": ("good", "different", "bad"),  # "different but fine" is not "bad"
    "exclude": ("true", "false"),
    "review": ("submitted", "skipped", "unsure", "flagged"),
    "note": (),  # free text
    "onset": (),  # step number of the labelled onset
    "trim": (),  # "first-last": the steps that count, both included
    "subtask": (),  # a plain name
    "tag": (),  # a field of its own per tag: "tag:<name>", "true" or ""
}
"""Fields and their allowed values; "" takes a label back. On an episode: outcome, exclude, quality, note, trim, tag.

An outcome may be dated back to a step: "failure@17".
"""

EPISODE_FIELDS = ("outcome", "exclude", "quality", "note", "trim", "tag")
AGREEMENT_FIELDS = ("cause", "kind", "quality", "exclude", "subtask")  # what two labelers can agree on
TRAINING_FIELDS = ("outcome", "exclude", "quality", "onset", "trim")  # what changes a learner's weights
MAX_NOTE = 4000
_NAME = re.compile(r"[0-9a-z_-]{1,32}")
_RANGE = re.compile(r"(\d{1,9})-(\d{1,9})")


@dataclass(frozen=True)
class Extent:
    """Where a label's target lies: steps ``first`` to ``last`` (both counted) of an episode of ``steps`` steps."""

    first: int
    last: int
    steps: int


def base_of(field: str) -> str:
    """The field's name in `FIELDS`: "tag" of "tag:slippery"."""
    return field.partition(":")[0]


def outcome_of(value: str) -> tuple[str, int]:
    """(outcome, step or -1) of an outcome's value."""
    outcome, _, step = value.partition("@")
    return outcome, int(step) if step else -1


def trim_of(value: str) -> tuple[int, int]:
    """(first, last) of a trim's value. Raises `LabelError`."""
    found = _RANGE.fullmatch(value)
    if found is None or int(found[1]) > int(found[2]):
        raise LabelError(f'trim must be "first-last", two step numbers, not {value!r}')
    return int(found[1]), int(found[2])


def check(target: str, field: str, value: str, author: str) -> None:
    """Raises `LabelError` for what can be seen without the catalog."""
    name, colon, tag = field.partition(":")
    if name not in FIELDS or (name == "tag") != bool(colon):
        raise LabelError(f"unknown label field {field!r}; known: {', '.join(FIELDS)} (a tag is tag:<name>)")
    if name == "tag" and (not _NAME.fullmatch(tag) or value not in ("true", "")):
        raise LabelError(f'{field} cannot be {value!r}; a tag is a-z, 0-9, _ and -, at most 32, and its value "true" or ""')
    if ":" not in target and name not in EPISODE_FIELDS:
        raise LabelError(f"an episode has no {field!r}; it has {', '.join(EPISODE_FIELDS)}")
    if ":" in target and name == "outcome":
        raise LabelError(f"an outcome belongs to the episode {target.partition(':')[0]}, not to its segment")
    if not author:
        raise LabelError("a label needs an author")
    if not value:
        return
    if name == "outcome" and "@" in value:
        value, _, step = value.partition("@")
        if not (step.isascii() and step.isdecimal() and len(step) < 10):
            raise LabelError(f'an outcome is dated with a step number, as in "failure@17", not {step!r}')
    allowed = FIELDS[name]
    if allowed and value not in allowed:
        raise LabelError(f"{field} cannot be {value!r}; allowed: {', '.join(allowed)}")
    if name == "onset" and not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise LabelError(f"onset must be a step number, not {value!r}")
    if name == "trim":
        trim_of(value)
    if name == "subtask" and not _NAME.fullmatch(value):
        raise LabelError(f"subtask {value!r}: a-z, 0-9, _ and -, at most 32")
    if len(value) > MAX_NOTE:
        raise LabelError(f"a {field} has at most {MAX_NOTE} characters; this one has {len(value)}")


def check_steps(target: str, field: str, value: str, where: Extent) -> None:
    """Raises `LabelError` when a label points at steps its target does not have."""
    if not value:
        return
    if field == "outcome" and outcome_of(value)[1] >= where.steps:
        raise LabelError(f"{target} has steps 0 to {where.steps - 1}; its outcome cannot be dated to {outcome_of(value)[1]}")
    if field == "onset" and int(value) > where.last:
        raise LabelError(f"the segment {target} ends at step {where.last}; its onset cannot be step {value}")
    if field == "trim":
        first, last = trim_of(value)
        if first < where.first or last > where.last:
            raise LabelError(f"{target} has steps {where.first} to {where.last}; it cannot be trimmed to {value}")
