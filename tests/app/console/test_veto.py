"""The learned reward at the operator's place: its probability, and one key that says it is wrong."""

import itertools

import pytest

from takeover.data.schema import Mark, Mode, Outcome, SetOutcome

RUNS = {"mode": Mode.POLICY, "episode_id": "e2", "scores": {"success": 0.42}}


def test_the_key_takes_back_the_success_that_a_learned_reward_gave(console, peer, until, qtbot):
    peer.set(**RUNS, last_outcome=Outcome.SUCCESS, last_outcome_episode="e1", last_outcome_source="classifier")
    panel = console[0].operate.episode
    until(lambda: panel.veto.isVisibleTo(panel))
    assert ("Success chance", "0.42") in panel._view.rows
    buttons = [button for button in (panel.success, panel.failure, panel.veto) if button.isVisibleTo(panel)]
    assert len(buttons) == 3
    for one, two in itertools.pairwise(buttons):
        assert one.geometry().right() < two.geometry().left()
    assert panel.rect().contains(panel.veto.geometry())
    assert all(button.width() >= button.sizeHint().width() for button in buttons)
    qtbot.keyClick(console[0], "v")
    until(lambda: peer.asked(SetOutcome))
    asked = peer.asked(SetOutcome)[-1]
    assert (asked.outcome, asked.episode_id) == (Outcome.UNKNOWN, "e1")


def test_while_it_only_watches_the_key_marks_the_moment(console, peer, until, qtbot):
    peer.set(**RUNS, last_outcome=Outcome.SUCCESS, last_outcome_episode="e1", last_outcome_source="task")
    panel = console[0].operate.episode
    until(lambda: panel.veto.isVisibleTo(panel))
    qtbot.keyClick(console[0], "v")
    until(lambda: peer.asked(Mark))
    assert peer.asked(Mark)[-1].text == "not success"
    assert not peer.asked(SetOutcome)


@pytest.mark.parametrize("scores", [{}, {"steps_to_go": 3.0}])
def test_without_a_learned_reward_there_is_nothing_to_veto(console, peer, until, qtbot, scores):
    peer.set(**(RUNS | {"scores": scores}))
    panel = console[0].operate.episode
    until(lambda: panel._view is not None and panel._view.can_judge)
    assert not panel.veto.isVisibleTo(panel)
    qtbot.keyClick(console[0], "v")
    assert not peer.asked(Mark)
