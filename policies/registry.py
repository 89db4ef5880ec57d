"""Learners by name. Modules are imported only when asked for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from takeover.data.schema import RobotSpec

if TYPE_CHECKING:  # the command line lists the names without loading torch
    from takeover.policies.base import Learner

KNOWN_LEARNERS = ("hil-serl", "sirius", "iwr", "hg-dagger", "bc")


def make_learner(name: str, spec: RobotSpec, seed: int, parameters: Mapping[str, Any] | None = None) -> "Learner":
    """A learner for ``spec``, its randomness derived from ``seed``.

    Raises `LearnerError` listing the known names, `ValueError` for a setting that is unknown or out of range.
    """
    if name == "hil-serl":
        if (parameters or {}).get("observations", "state") == "pictures":
            if (parameters or {}).get("encoder", "frozen") == "trained":
                from takeover.policies.picture_trained import TrainedPictureLearner

                return TrainedPictureLearner.make(spec, seed, parameters or {})
            from takeover.policies.picture_hil_serl import PictureHilSerlLearner

            return PictureHilSerlLearner.make(spec, seed, parameters or {})
        from takeover.policies.hil_serl import HilSerlLearner

        return HilSerlLearner.make(spec, seed, parameters or {})
    if name in KNOWN_LEARNERS:
        from takeover.policies.imitation import ImitationLearner

        return ImitationLearner.make(name, spec, seed, parameters or {})
    from takeover.policies.base import LearnerError

    raise LearnerError(f"unknown learner {name!r}; known: {', '.join(KNOWN_LEARNERS)}, none")


def check_parameters(name: str, parameters: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a setting that learner ``name`` does not have or that is out of range."""
    from takeover.policies.parameters import parse_parameters

    if name == "hil-serl":
        from takeover.policies.hil_serl import HilSerlParameters

        parse_parameters(HilSerlParameters, dict(parameters), name=name)
    else:
        from takeover.policies.imitation import ImitationParameters

        parse_parameters(ImitationParameters, dict(parameters), name=name)
