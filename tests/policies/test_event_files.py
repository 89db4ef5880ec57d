"""Learning curves for TensorBoard: readable after a kill, never going back, and never a reason to stop."""

from pathlib import Path

import pytest

from takeover.policies.event_files import EventFile, newest_step, read_scalars


def test_a_file_that_was_cut_off_is_gone_on_with_and_steps_never_go_back(tmp_path: Path) -> None:
    first = EventFile(tmp_path / "tb")
    for step in (50, 100, 150):
        first.scalars(step, {"learner/critic_loss": step / 100})
    first.close()
    (path,) = (tmp_path / "tb").iterdir()
    path.write_bytes(path.read_bytes()[:-3])  # killed while it wrote the last
    assert newest_step(tmp_path / "tb") == 100
    second = EventFile(tmp_path / "tb")
    for step in (50, 100, 150, 200):  # made again from an older checkpoint
        second.scalars(step, {"learner/critic_loss": step / 100})
    second.close()
    found = list(read_scalars(tmp_path / "tb"))
    assert [step for step, _ in found] == [50, 100, 150, 200]
    assert found[-1][1] == {"learner/critic_loss": 2.0}


def test_what_begins_anew_has_curves_of_its_own(tmp_path: Path) -> None:
    first = EventFile(tmp_path / "tb")
    first.scalars(500, {"a": 1.0})
    first.close()
    second = EventFile(tmp_path / "tb")
    second.set_aside()
    second.scalars(50, {"a": 2.0})
    second.close()
    assert [step for step, _ in read_scalars(tmp_path / "tb")] == [50]
    assert [step for step, _ in read_scalars(tmp_path / "tb-before-1")] == [500]


def test_a_disk_that_fails_is_said_and_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    events = EventFile(tmp_path / "file" / "tb")
    events.scalars(50, {"a": 1.0})
    assert "the learning curves are not written" in events.problem
    (tmp_path / "file").unlink()
    monkeypatch.setattr("takeover.policies.event_files.TRY_AGAIN_AFTER_S", 0.0)
    events._try_at = 0.0
    events.scalars(100, {"a": 1.0})
    events.close()
    assert events.problem == ""
    assert [step for step, _ in read_scalars(tmp_path / "file" / "tb")] == [100]
