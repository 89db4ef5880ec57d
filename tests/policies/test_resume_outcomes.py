"""What happened to episodes while nobody listened, in lockstep: outcomes that changed, episodes that were discarded or cut off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from takeover.data.schema import Outcome, OutcomeSource
from takeover.policies.learner_run import LearnerRun

from .test_resume import DEMONSTRATION, STEPS, Stream, demonstration, differences, episode, make_run, state_of, take  # noqa: F401
from .test_taken_back_outcomes import by_classifier, change

E = STEPS + 2  # records of an episode


def with_changes(*changes: tuple[Outcome, OutcomeSource]) -> Callable[[Any, np.random.Generator], list[Any]]:
    """A classifier's success; then, a few steps into each of the episodes that follow, its outcome changes."""

    def made(script: Any, rng: np.random.Generator) -> list[Any]:
        records = [*demonstration(script, rng), *by_classifier(episode(script, rng))]
        for outcome, source in changes:
            script_at = script.rec_seq
            later = episode(script, rng)
            script.rec_seq = script_at + 8
            inserted = change(script, "e001", outcome, 13, source)
            inserted = msgspec.structs.replace(inserted, wall_ns=inserted.rec_seq)
            records += [*later[:8], inserted, *(msgspec.structs.replace(r, rec_seq=r.rec_seq + 1) for r in later[8:])]
            script.rec_seq = records[-1].rec_seq
        return records + episode(script, rng)

    return made


def with_discarded(script: Any, rng: np.random.Generator) -> list[Any]:
    records = [*demonstration(script, rng), *episode(script, rng), *episode(script, rng)]
    records[-1] = msgspec.structs.replace(records[-1], discarded=True)
    return records + episode(script, rng)


def with_cut_off(script: Any, rng: np.random.Generator) -> list[Any]:
    records = [*demonstration(script, rng), *episode(script, rng), *episode(script, rng)[:-1]]
    script.rec_seq -= 1
    return records + episode(script, rng)


VETO, AGAIN = (Outcome.UNKNOWN, OutcomeSource.OPERATOR), (Outcome.SUCCESS, OutcomeSource.CLASSIFIER)
ABORTED = (Outcome.ABORTED, OutcomeSource.OPERATOR)
HAPPENED = {
    "a veto": with_changes(VETO),
    "a veto that is taken back": with_changes(VETO, AGAIN),
    "thrown away": with_changes(ABORTED),
    "discarded": with_discarded,
    "cut off": with_cut_off,
}


IN_FIRST, IN_SECOND, IN_THIRD = DEMONSTRATION + E - 4, DEMONSTRATION + E + 3, DEMONSTRATION + 2 * E + 4
CASES = [("a veto", IN_SECOND), ("a veto that is taken back", IN_SECOND), ("a veto that is taken back", IN_THIRD)]
CASES += [("thrown away", IN_SECOND), ("discarded", IN_FIRST), ("cut off", IN_SECOND)]


@pytest.mark.parametrize(("happened", "heard"), CASES)
@pytest.mark.parametrize("learner", ["hil-serl", "sirius"])
def test_what_happened_while_it_was_away_counts_where_it_happened(
    tmp_path: Path,
    make_run: Callable[..., LearnerRun],  # noqa: F811
    make_script: Callable[..., Any],
    learner: str,
    happened: str,
    heard: int,
) -> None:
    """Saved after ``heard`` records; the rest is committed, closed and labelled before it starts again."""
    plain, stream = make_run(tmp_path / "plain", learner), Stream(tmp_path / "plain")
    records = HAPPENED[happened](make_script(), np.random.default_rng(7))
    take(plain, stream.commit(records))
    stream.recorder.close()

    run, stream = make_run(tmp_path / "away", learner), Stream(tmp_path / "away")
    take(run, stream.commit(records[:heard]))
    run.checkpoint()
    run.close()
    stream.commit(records[heard:])
    stream.recorder.close()
    run = make_run(tmp_path / "away", learner)
    run.resume()
    run.catch_up(records[0].session)
    assert differences(state_of(plain), state_of(run)) == []
    assert run._labels.state()["left_out"] == plain._labels.state()["left_out"]
