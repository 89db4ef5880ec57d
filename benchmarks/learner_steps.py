"""Made-up episodes for the learner's benchmark."""

import numpy as np

from takeover.data.schema import ControlMode, EpisodeEnd, EpisodeKind, EpisodeStart, Mode, Outcome, OutcomeSource, RobotSpec, Source, Step

STEPS = 100  # of each episode


def steps_of(spec: RobotSpec, kind: EpisodeKind, number: int, random: np.random.Generator) -> tuple[EpisodeStart, list[Step], EpisodeEnd]:
    """An episode of made-up numbers: a demonstration, or one in which a person drove the last third."""
    name = f"{kind}-{number}"
    common = {"session": "bench", "wall_ns": 0, "t_ns": 0}
    start = EpisodeStart(
        **common,
        rec_seq=0,
        episode_id=name,
        number=number,
        kind=kind,
        spec=spec,
        station_id="bench",
        operator="bench",
        start_seed=number,
        policy_version=0,
        policy_sha256="",
        config_sha256="",
    )
    observations = random.normal(0.0, 0.1, (STEPS + 1, spec.observation.size))
    actions = random.uniform(-1.0, 1.0, (STEPS, spec.action.size))
    steps = []
    for i in range(STEPS):
        human = kind == EpisodeKind.DEMONSTRATION or i > 2 * STEPS // 3
        steps.append(
            Step(
                session="bench",
                rec_seq=i + 1,
                seq=number * STEPS + i,
                episode_id=name,
                episode_step=i,
                train_step=number * STEPS + i if kind == EpisodeKind.POLICY else -1,
                run_id=0,
                kind=kind,
                t_observation_ns=0,
                t_decision_ns=0,
                t_applied_ns=0,
                wall_ns=0,
                mode=Mode.TAKEOVER if human else Mode.POLICY,
                control_mode=ControlMode.HUMAN if human else ControlMode.POLICY,
                observation=observations[i].tolist(),
                next_observation=observations[i + 1].tolist(),
                source=[int(Source.HUMAN if human else Source.POLICY)] * len(spec.action.groups),
                policy_action=actions[i].tolist(),
                policy_from_seq=i,
                policy_version=1,
                human_action=actions[i].tolist() if human else None,
                asked_action=actions[i].tolist(),
                action=actions[i].tolist(),
                intervention_id=0 if human and kind == EpisodeKind.POLICY else -1,
                reward=float(i == STEPS - 1),
                terminated=i == STEPS - 1,
            )
        )
    end = EpisodeEnd(
        **common,
        rec_seq=STEPS + 1,
        episode_id=name,
        outcome=Outcome.SUCCESS,
        outcome_source=OutcomeSource.TASK,
        event_step=STEPS - 1,
        steps=STEPS,
        human_steps=0,
        takeovers=0,
        autonomous=False,
    )
    return start, steps, end
