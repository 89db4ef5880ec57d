"""Which episode a person means who presses a key for its outcome."""

from takeover.data.schema import Mode, State

_RUNS = (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD)


def episode_meant(state: State | None) -> str:
    """The one that runs in ``state``, between two the one that ended last; "": none was in view.

    Said with the key: when that arrives the next one may have begun.
    """
    if state is None:
        return ""
    return state.episode_id if state.episode_id and state.mode in _RUNS else state.last_outcome_episode
