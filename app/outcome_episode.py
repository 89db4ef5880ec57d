"""Which episode a person means who presses a key for its outcome."""

from takeover.data.schema import Mode, State

_RUNS = (Mode.POLICY, Mode.TAKEOVER, Mode.HOLD)


def episode_meant(state: State | None) -> str:
    """The one that runs in ``state``, between two the one that ended last; "": none was in view, or the bridge must say which.

    Said with the key: when that arrives the next one may have begun.
    """
    if state is None or (state.mode is Mode.STOPPED and state.episode_id):
        return ""  # until its next step ends it a stopped bridge names the episode, or one whose start was being made: only it can tell
    return state.episode_id if state.episode_id and state.mode in _RUNS else state.last_outcome_episode
