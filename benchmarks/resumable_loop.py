"""The in-process loop for runs that stop and go on in another process: keeps the weights that act or wait to act, for a checkpoint."""

from collections.abc import Mapping
from typing import Any

from benchmarks.inprocess_loop import Loop
from takeover.data.schema import RunConfig
from takeover.policies.base import PolicyWeights
from takeover.policies.inference import build_policy
from takeover.policies.training import Publication

_KEPT_VERSIONS = 4  # the acting one and those that wait to act


class ResumableLoop(Loop):
    """Adds the weights to a learner's state, and takes them out again."""

    def __init__(self, config: RunConfig, redo_failed: bool = False) -> None:
        self.weights: dict[int, PolicyWeights] = {}
        super().__init__(config, redo_failed)

    def _publish(self, publication: Publication) -> int:
        self.weights[publication.version] = publication.weights
        for old in sorted(self.weights)[:-_KEPT_VERSIONS]:
            del self.weights[old]
        return super()._publish(publication)

    def state_with_weights(self) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """The learner's state, the weights among its tensors, and what `restore_weights` needs: version -> architecture, configuration."""
        state = self.training.state()
        kept = {f"weights.{v}.{name}": tensor for v, w in self.weights.items() for name, tensor in w.tensors.items()}
        state["tensors"] = state["tensors"] | kept
        return state, {str(v): [w.architecture, w.config] for v, w in self.weights.items()}

    def restore_weights(self, architectures: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        """From what `state_with_weights` gave."""
        for version, (architecture, config) in architectures.items():
            prefix = f"weights.{version}."
            own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            self.weights[int(version)] = PolicyWeights(architecture, config, own)
            self.policies[int(version)] = build_policy(self.weights[int(version)], self.spec)
