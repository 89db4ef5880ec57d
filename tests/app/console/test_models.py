"""What the console says, as pure functions of a snapshot."""

import math
import time
from dataclasses import dataclass, replace

import pytest
from peer import GATE, SPEC, make_learner, make_state

from takeover.app.console.models.banner import banner
from takeover.app.console.models.cards import card
from takeover.app.console.models.episode import EpisodeTrack, episode_view
from takeover.app.console.models.gate import gate
from takeover.app.console.models.holds import HOLDS
from takeover.app.console.models.learner_card import learner_card
from takeover.app.console.models.rate import intervention_rate
from takeover.app.console.models.snapshot import Snapshot, duration, milliseconds, signed
from takeover.app.console.models.status import status_items
from takeover.app.console.models.strip import HELD, NOBODY, PERSON, POLICY, RAMP, Strip
from takeover.app.inputs.base import DeviceReading
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome


def reading(kind: str = "keyboard", neutral: bool = True, **raw: float) -> DeviceReading:
    return DeviceReading(kind, kind, kind.capitalize(), True, not neutral, neutral, (0.0,) * 6, 0.0, 0, raw=raw)


def view(**changes) -> Snapshot:
    state = changes.pop("state", None) or make_state()
    base = {
        "state": state,
        "state_age_ms": 10.0,
        "spec": SPEC,
        "learner": make_learner(),
        "learner_age_ms": 100.0,
        "reading": reading(),
        "holds_lease": True,
    }
    return Snapshot(**{**base, **changes})


def test_banner_is_filled_only_when_a_person_must_know():
    filled = {mode for mode in Mode if banner(view(state=make_state(mode=mode))).filled}
    assert filled == {Mode.TAKEOVER, Mode.HOLD, Mode.STOPPED}


def test_every_hold_reason_has_a_sentence_and_a_remedy():
    for reason in HoldReason:
        if reason is HoldReason.NONE:
            continue
        assert reason in HOLDS, f"{reason} has no text"
        shown = view(state=make_state(mode=Mode.HOLD, hold_reason=reason))
        told = banner(shown)
        assert told.word == "HOLD"
        assert "{" not in " ".join(told.parts)
        made = card(shown)
        assert made is not None
        assert made.steps
        assert not any("{" in step for step in made.steps)
        assert {"resume", "next"} <= {button.act for button in made.buttons}


def test_a_hold_for_lack_of_pictures_here_says_so():
    held = make_state(mode=Mode.HOLD, hold_reason=HoldReason.COMMAND_STALE)
    told = banner(view(state=held, lost_pictures=("front", "wrist")))
    assert told.parts[0] == "**No new picture here for 0.5 s: front, wrist**"
    assert "no new picture" in card(view(state=held, lost_pictures=("front",))).title
    assert "picture" not in banner(view(state=held)).parts[0]
    other = make_state(mode=Mode.HOLD, hold_reason=HoldReason.OPERATOR)
    assert "picture" not in banner(view(state=other, lost_pictures=("front",))).parts[0]


def test_banner_names_the_key_of_the_device_in_use():
    taking = make_state(mode=Mode.TAKEOVER, episode_kind=EpisodeKind.POLICY)
    assert "**Space held**" in banner(view(state=taking, reading=reading("keyboard", False))).parts[0]
    assert "**RB held**" in banner(view(state=taking, reading=reading("gamepad", False))).parts[0]
    assert "latched" in banner(view(state=taking, reading=reading("keyboard", False, latched=1.0))).parts[0]
    demonstration = make_state(mode=Mode.TAKEOVER, episode_kind=EpisodeKind.DEMONSTRATION)
    assert "policy" not in banner(view(state=demonstration)).parts[2]


def test_a_stop_that_is_not_confirmed_wins_over_everything():
    for shown in (view(), view(state_age_ms=9e9), view(state=make_state(mode=Mode.STOPPED))):
        told = banner(replace(shown, stop_waits_s=0.3))
        assert told.word == "STOP SENT"
        assert "not confirmed" in told.parts[0]
        assert banner(replace(shown, stop_waits_s=0.2)).word != "STOP SENT", "on its way"


def test_lost_link_wins_over_the_last_mode():
    assert banner(view(state=make_state(mode=Mode.TAKEOVER), state_age_ms=349.0)).word != "LINK LOST"
    shown = view(state=make_state(mode=Mode.TAKEOVER), state_age_ms=351.0)
    assert banner(shown).word == "LINK LOST"
    assert card(shown).title.startswith("Link lost")
    assert gate(shown).rows[0].ok is False
    assert banner(Snapshot()).word == "OFFLINE"


def test_resume_waits_for_the_gate_and_a_neutral_device():
    held = make_state(mode=Mode.HOLD, hold_reason=HoldReason.CAMERA_FROZEN)
    assert next(b for b in card(view(state=held)).buttons if b.act == "resume").enabled
    assert not next(b for b in card(view(state=held, reading=reading(neutral=False))).buttons if b.act == "resume").enabled
    failing = make_state(mode=Mode.HOLD, hold_reason=HoldReason.CAMERA_FROZEN, gate={**GATE, "cameras": "1 of 2, wrist frozen"})
    made = card(view(state=failing))
    assert not next(b for b in made.buttons if b.act == "resume").enabled
    assert "cameras" in made.note


def test_gate_counts_what_is_missing():
    passed = gate(view())
    assert (passed.title, passed.note) == ("Start gate", "passed")
    waiting = gate(view(state=make_state(mode=Mode.HOLD, gate={**GATE, "recorder": "silent"})))
    assert (waiting.title, waiting.note) == ("Resume gate", "7 of 8, waiting")
    assert [row.value for row in waiting.rows if not row.ok] == ["silent"]


def test_empty_states_lead_from_nothing_to_a_start():
    nothing = make_learner(phase="waiting", demonstrations=0, newest_version=0)
    ready = make_state(policy_version=0)
    acts = [button.act for button in card(view(state=ready, learner=nothing)).buttons]
    assert acts == ["scripted", "record"]
    cloning = make_learner(phase="cloning", progress=0.4, newest_version=0)
    assert card(view(state=ready, learner=cloning)).progress == pytest.approx(0.4)
    assert [b.act for b in card(view()).buttons] == ["start"]
    assert [b.act for b in card(view(collect=True)).buttons] == ["collect"]
    blocked = card(view(state=make_state(gate={**GATE, "recorder": "silent"})))
    assert not blocked.buttons[0].enabled
    assert "silent" in blocked.note
    assert card(view(state=make_state(mode=Mode.POLICY))) is None


def test_a_real_robot_is_not_offered_scripted_demonstrations():
    import msgspec

    real = msgspec.structs.replace(SPEC, simulated=False)
    made = card(
        view(spec=real, state=make_state(policy_version=0), learner=make_learner(phase="waiting", demonstrations=3, newest_version=0))
    )
    assert [b.act for b in made.buttons] == ["record"]
    assert made.title == "3 of 20 demonstrations"


@pytest.mark.parametrize(("done", "label"), [(0, "Use 20 scripted demonstrations"), (19, "Use 1 scripted demonstration")])
def test_as_many_are_offered_as_are_missing_and_failed_ones_do_not_count(done, label):
    learner = make_learner(phase="waiting", demonstrations=done, newest_version=0)
    made = card(view(state=make_state(policy_version=0), learner=learner))
    assert made.buttons[0].label == label
    assert made.steps[0] == f"A first policy is cloned from 20 demonstrations that succeed; {done} are recorded, failed ones left out."


def test_learner_sentence_says_only_what_is_known():
    def text(**last) -> str:
        return "".join(piece for piece, _ in learner_card(view(learner=make_learner(last_correction=last))).sentence)

    assert text(update=1240, to_batch_s=0.8, to_acting_s=3.1) == "Last correction is in update 1,240 after 0.8 s; acting after 3.1 s"
    assert text(update=1240, to_batch_s=0.8) == "Last correction is in update 1,240 after 0.8 s; not acting yet"
    assert text(episode_number=3.0) == "Last correction is on its way to the learner"
    assert "No correction yet" in text()
    waiting = learner_card(view(learner=make_learner(metrics={"actor_waits": 1240.0}))).sentence
    assert "".join(piece for piece, _ in waiting).endswith("What drives changes in 1,240 updates.")
    rows = learner_card(view()).rows
    assert [row.episode for row in rows] == ["136", "131", "127"]


@dataclass
class Figures:
    number: int
    kind: str
    steps: int
    human_steps: int
    discarded: bool = False


def test_rate_is_over_steps_of_the_last_twenty_policy_episodes():
    episodes = [Figures(i, "policy", 50, 50) for i in range(5)]  # older than the window
    episodes += [Figures(5 + i, "policy", 100, 40 if i < 3 else 0) for i in range(20)]
    episodes += [Figures(1, "demonstration", 40, 40), Figures(30, "policy", 10, 10, discarded=True), Figures(31, "policy", 0, 0)]
    rate = intervention_rate(episodes)
    assert (rate.episodes, rate.steps, rate.human_steps, rate.with_takeover) == (20, 2000, 120, 3)
    assert rate.mean == pytest.approx(0.06)
    # Wilson, 3 of 20, by hand
    z, p, n = 1.959964, 0.15, 20
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert (rate.low, rate.high) == pytest.approx((centre - half, centre + half), abs=1e-5)
    assert math.isnan(intervention_rate([]).mean)


def test_strip_keeps_who_drove_ramp_hold_and_breaks_between_episodes():
    strip = Strip()
    t0 = time.monotonic_ns()

    def add(seconds: float, mode: Mode, since: float, episode: str, **changes) -> None:
        strip.add(
            make_state(
                t_ns=t0 + int(seconds * 1e9),
                mode=mode,
                mode_since_ns=t0 + int(since * 1e9),
                episode_id=episode,
                force_n=[0.0, 3.0, 4.0],
                **changes,
            )
        )

    for i in range(200):
        t = i * 0.02
        if t < 1:
            add(t, Mode.POLICY, 0, "a")
        elif t < 2:
            add(t, Mode.TAKEOVER, 1, "a", intervention_id=0)
        elif t < 2.5:
            add(t, Mode.HOLD, 2, "a")
        elif t < 3:
            add(t, Mode.RESETTING, 2.5, "", last_outcome=Outcome.FAILURE, last_outcome_episode="a")
        else:
            add(t, Mode.POLICY, 3, "b", last_outcome=Outcome.FAILURE, last_outcome_episode="a")
    kinds = [who for _, _, who in strip.spans()]
    assert kinds == [POLICY, RAMP, PERSON, HELD, NOBODY, POLICY]
    ramp = strip.spans()[1]
    assert ramp[1] - ramp[0] == pytest.approx(0.15, abs=0.05)
    assert len(strip.curves("force")) == 2, "a curve is broken at the hold and the reset, never joined"
    assert strip.latest("force") == pytest.approx(5.0)
    assert strip.summary() == "2 episodes, 1 takeover, 1 failure"
    strip.add(make_state(session="session-2"))
    assert len(strip.spans()) <= 1, "a new bridge session starts empty"


def test_strip_forgets_after_sixty_seconds():
    strip = Strip()
    t0 = time.monotonic_ns()
    for i in range(25 * 80):
        strip.add(make_state(t_ns=t0 + i * 40_000_000, mode=Mode.POLICY, episode_id="a"))
    t, _ = strip.window()
    assert t[0] >= -60.0
    assert t[0] < -59.0


def test_scores_are_drawn_before_measured_signals():
    strip = Strip()
    strip.add(make_state(scores={"steps_to_go": 16.0}))
    assert [name for name, _, _ in strip.rows()] == ["steps_to_go", "force"]


def test_episode_panel_and_track():
    track = EpisodeTrack()
    for step, mode in ((0, Mode.POLICY), (30, Mode.POLICY), (30, Mode.TAKEOVER), (50, Mode.TAKEOVER)):
        state = make_state(mode=mode, episode_id="a", episode_step=step)
        track.add(state, POLICY if mode is Mode.POLICY else PERSON)
    assert track.segments == [(0.0, 0.3, POLICY), (0.3, 0.5, PERSON)]
    shown = episode_view(
        view(
            state=make_state(
                mode=Mode.HOLD, episode_id="a", episode_kind=EpisodeKind.POLICY, episode_number=7, episode_step=50, human_steps=20
            )
        )
    )
    assert shown.title == "Episode 7"
    assert ("Step", "50 of 100 (paused)") in shown.rows
    assert ("By a person", "20 steps, 1.0 s") in shown.rows
    demo = make_state(mode=Mode.TAKEOVER, episode_id="b", episode_kind=EpisodeKind.DEMONSTRATION, block_done=2, block_size=20)
    assert episode_view(view(state=demo)).title == "Demonstration 3 of 20"
    assert not episode_view(view()).can_judge


def test_episode_panel_says_how_many_steps_are_left():
    def shown(**scores):
        return episode_view(view(state=make_state(mode=Mode.POLICY, episode_id="a", episode_kind=EpisodeKind.POLICY, scores=scores)))

    assert shown(steps_to_go=24.6).rows[-1] == ("To go", "about 25 steps")
    assert shown(steps_to_go=24.6).to_go == pytest.approx(0.246)
    assert shown(steps_to_go=2.0, success_offered=1.0).rows[-1] == ("To go", "about 2 steps, done?")
    assert shown(steps_to_go=40.0, stalled=1.0, success_offered=0.0).rows[-1] == ("To go", "about 40 steps, unsure")
    assert shown(steps_to_go=500.0).to_go == 1.0
    assert shown().to_go < 0.0
    assert shown().rows[-1][0] == "Block"


def test_status_line_marks_faults():
    left, _ = status_items(view(picture_age_ms={"front": 40.0, "wrist": 4600.0}))
    assert ("Picture", "wrist 4.6 s", True) in left
    left, _ = status_items(view(state_age_ms=900.0))
    assert left[0] == ("Link", "lost", True)
    left, _ = status_items(view(state=make_state(recorder_age_ms=900.0)))
    assert ("Recorder", "not answering", True) in left


def test_control_steps_that_were_missed_are_no_fault_of_the_recorder():
    left, _ = status_items(view(state=make_state(steps_dropped=3, steps_total=1197)))
    assert ("Control", "3 of 1,200 steps missed", True) in left
    assert ("Recorder", False) in [(label, fault) for label, _, fault in left]
    assert "Control" not in [label for label, _, _ in status_items(view())[0]]


def test_texts():
    assert duration(4.44) == "4.4 s"
    assert duration(65) == "1:05"
    assert duration(3725) == "1:02:05"
    assert milliseconds(42.4) == "42 ms"
    assert milliseconds(4600) == "4.6 s"
    assert milliseconds(-1) == "–"
    assert signed(-0.53) == "−0.53"


def test_a_press_that_came_to_nothing_is_explained():
    """After a hold or a late command the bridge wants a fresh press; the banner says so while the old one lasts."""
    for state in (
        make_state(mode=Mode.POLICY),
        make_state(mode=Mode.HOLD, hold_reason=HoldReason.COMMAND_STALE),
        make_state(episode_id="d", episode_kind=EpisodeKind.DEMONSTRATION),
    ):
        assert banner(view(state=state, deadman_s=1.0)).parts == ("**Let go of Space, then hold it again**",)
        assert banner(view(state=state, deadman_s=0.1)).parts != ("**Let go of Space, then hold it again**",)
    assert "Let go" not in banner(view(state=make_state(mode=Mode.TAKEOVER), deadman_s=9.0)).parts[0]
