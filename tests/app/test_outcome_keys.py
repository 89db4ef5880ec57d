"""The keys of a scripted operator: once per episode, late by a drawn delay, and as often wrong as was asked."""

import numpy as np

from takeover.app.operators.outcome_keys import OutcomeKey
from takeover.data.schema import Outcome


def pressed(key: OutcomeKey, success_from: int, steps: int = 120) -> list[tuple[int, Outcome]]:
    found = []
    for step in range(steps):
        outcome = key.see(step, 0 <= success_from <= step)
        if outcome is not None:
            found.append((step, outcome))
    return found


def test_success_is_keyed_once_and_late():
    assert pressed(OutcomeKey(delay=7, mistaken=False, blind_step=60), 30) == [(37, Outcome.SUCCESS)]
    assert pressed(OutcomeKey(delay=7, mistaken=False, blind_step=60), -1) == []


def test_a_mistaken_key_is_the_other_one():
    assert pressed(OutcomeKey(delay=7, mistaken=True, blind_step=60), 30) == [(37, Outcome.FAILURE)]
    assert pressed(OutcomeKey(delay=7, mistaken=True, blind_step=60), -1) == [(60, Outcome.SUCCESS)]


def test_delays_and_mistakes_are_drawn_as_asked():
    rng = np.random.default_rng(0)
    keys = [OutcomeKey.draw(rng, 6, 20, 0.03, 40, 90) for _ in range(4000)]
    assert {key.delay for key in keys} == set(range(6, 21))
    assert 0.02 < np.mean([key.mistaken for key in keys]) < 0.04
    assert {key.blind_step for key in keys} == set(range(40, 91))
