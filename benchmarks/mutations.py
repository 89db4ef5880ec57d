"""What `benchmarks.mutation_check` takes away, one at a time: every limit, refusal and timeout between a mistake and the robot."""

from benchmarks.mutation import Mutation
from benchmarks.mutations_bridge import BRIDGE
from benchmarks.mutations_cameras import CAMERAS
from benchmarks.mutations_decide import DECIDE
from benchmarks.mutations_ends import ENDS
from benchmarks.mutations_episodes import EPISODES
from benchmarks.mutations_late import LATE_REQUESTS
from benchmarks.mutations_links import LINKS
from benchmarks.mutations_lockstep import LOCKSTEP
from benchmarks.mutations_names import NAMES
from benchmarks.mutations_practice import PRACTICE
from benchmarks.mutations_refusals import REFUSALS
from benchmarks.mutations_sim import SIMULATOR

MUTATIONS: list[Mutation] = [
    *DECIDE,
    *BRIDGE,
    *CAMERAS,
    *PRACTICE,
    *ENDS,
    *EPISODES,
    *SIMULATOR,
    *LOCKSTEP,
    *NAMES,
    *REFUSALS,
    *LATE_REQUESTS,
    *LINKS,
]
