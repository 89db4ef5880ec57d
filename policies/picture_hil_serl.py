"""``hil-serl`` with ``observations: pictures``: the robot's numbers and its cameras, through an encoder that is frozen after cloning.

Cloning trains the encoder on the demonstrations' pictures (`picture_cloning`). From then on a frame is encoded once, when it is ingested,
for a few fixed crops; the replay holds features, actor and critics learn on them, and an update costs about what it does on state
observations. Nothing pushes gradients through the encoder any more (`picture_trained` does). What was ingested before is kept as
pictures until then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from takeover.data.episode_labels import EpisodeLabels
from takeover.data.schema import EpisodeEnd, EpisodeStart, Outcome, RobotSpec, Step
from takeover.data.seeding import stream
from takeover.policies.base import LearnerError, PolicyWeights
from takeover.policies.feature_replay import FeatureReplay, Features, widened
from takeover.policies.hil_serl import NAME, HilSerlLearner
from takeover.policies.hil_serl_parameters import HilSerlParameters
from takeover.policies.parameters import parse_parameters
from takeover.policies.picture_cloning import CloningSettings, clone_encoder, encode_frames
from takeover.policies.picture_encoder import EncoderShape, encoder_config, fixed_crops, initialise_encoder, stack_pictures
from takeover.policies.picture_log import PictureLog
from takeover.policies.picture_pairs import PicturePairs
from takeover.policies.replay import CorrectionReplay
from takeover.policies.same_settings import differing
from takeover.policies.takeover_marks import TakeoverMarks

ARCHITECTURE = "picture_gaussian"
_ENCODER_SHARE = 0.7  # of cloning's progress


class PictureHilSerlLearner(HilSerlLearner):
    """See the module. Construct with `make`. Raises `LearnerError` for a robot whose policy sees no camera."""

    def __init__(self, spec: RobotSpec, seed: int, parameters: HilSerlParameters) -> None:
        if not spec.policy_cameras:
            known = ", ".join(camera.name for camera in spec.cameras) or "none"
            raise LearnerError(f"observations = pictures, but policy_cameras is empty; name some of the station's cameras ({known})")
        p = parameters
        self.robot_spec = spec
        self.shape = EncoderShape(tuple(spec.policy_cameras), features=p.camera_features)
        super().__init__(widened(spec, self.shape.names()), seed, parameters)
        self.encoder_generator = torch.Generator().manual_seed(int(stream(seed, "encoder").integers(2**62)))
        self._encoder = initialise_encoder(self.shape, self.encoder_generator).to(self.device)
        marks = TakeoverMarks(p.takeover_reward, p.pre_takeover_weight, round(p.pre_takeover_s * spec.control_hz))
        options = {"gripper_penalty": p.gripper_penalty, "task_reward": p.task_reward, "both_buffers": p.both_buffers}
        self._cloned_replay = self._make_replay(capacity=p.replay_capacity, marks=marks, **options)
        self._log: PictureLog | None = PictureLog(spec, self.shape)
        self.replay = self._log.replay
        self._pairs = PicturePairs()
        self.encoding = False  # as of `base.Encodes`
        self._newest: tuple[Any, Features] = (None, Features(0))  # pictures of the newest frame and their features

    @classmethod
    def make(cls, spec: RobotSpec, seed: int, parameters: Mapping[str, Any]) -> "PictureHilSerlLearner":
        return cls(spec, seed, parse_parameters(HilSerlParameters, dict(parameters), name=NAME))

    def _make_replay(self, **options: Any) -> CorrectionReplay:
        """What holds everything from the cloning of the encoder on; ``options`` as of `CorrectionReplay`."""
        self._features = FeatureReplay(self.robot_spec, self.shape.names(), self.parameters.crops, **options)
        return self._features

    @property
    def frozen(self) -> bool:
        """Whether the encoder is cloned, so that pictures go to the replay that is learned from at once."""
        return self._log is None

    @property
    def steps_left_out(self) -> int:
        """Steps without a picture after them."""
        return self._pairs.left_out

    # --- ingestion ---

    def begin_episode(self, start: EpisodeStart) -> None:
        """Raises `ValueError` for another observation or action space, or other cameras for the policy, than the learner was made for."""
        if missing := [camera for camera in self.shape.cameras if camera not in start.spec.policy_cameras]:
            has = ", ".join(start.spec.policy_cameras) or "none"
            raise ValueError(f"episode {start.episode_id}: the policy saw {has}; this learner needs {', '.join(missing)}, too")
        self._take(self._pairs.end())
        if self._log is not None:
            self._log.begin_episode(start)
        else:
            self.replay.begin_episode(start)

    def ingest(self, steps: Sequence[Step]) -> None:
        """As the interface says, each step once its successor is known.

        Raises `ValueError` naming episode, step and camera for a picture that is missing or has another size.
        """
        for step in steps:
            self._take(self._pairs.put(step))

    def end_episode(self, end: EpisodeEnd) -> None:
        self._take(self._pairs.end())
        if self._log is not None:
            self._log.end_episode(end)
        else:
            self.replay.end_episode(end)

    def exclude(self, episode_id: str) -> None:
        if self._log is not None:
            self._log.exclude(episode_id)
        else:
            super().exclude(episode_id)

    def relabel(self, episode_id: str, outcome: Outcome, event_step: int) -> None:
        if self._log is not None:
            self._log.relabel(episode_id, outcome, event_step)
        else:
            super().relabel(episode_id, outcome, event_step)

    def apply_labels(self, labels: EpisodeLabels) -> bool:
        return self._log.apply_labels(labels) if self._log is not None else super().apply_labels(labels)

    def _take(self, steps: Iterator[Step]) -> None:
        for step in steps:
            if not self.replay.trains():
                continue
            if self._log is not None:
                self._log.add(step)
            else:
                self._add(step)

    def _add(self, step: Step) -> None:
        where = f"episode {step.episode_id}, step {step.episode_step}"
        self._features.add_encoded(
            step, self._encoded(step.images, f"{where}, images"), self._encoded(step.next_images, f"{where}, next_images")
        )

    def _encoded(self, images: Any, where: str) -> Features:
        """Features (crops, features) of one moment's pictures; those of the newest are remembered, since the next step begins with them."""
        if self._newest[0] is not images:
            crops = fixed_crops(stack_pictures(self.shape, images, where), self.parameters.crops)
            self._newest = (images, encode_frames(self.shape, self._encoder, crops))
        return self._newest[1]

    # --- learning ---

    def clone_demonstrations(self) -> Iterator[float]:
        """Clone the encoder and freeze it, encode what was ingested, then clone actor and critics on features. Yields progress."""
        if self.replay.demonstrations.size == 0:
            raise LearnerError("no demonstrations to clone; record some first")
        p = self.parameters
        if self._log is not None:
            settings = CloningSettings(p.encoder_updates, p.encoder_batch, p.encoder_learning_rate, p.encoder_weight_decay, p.hidden)
            data = self._log.cloning_set()
            try:
                for done, _ in clone_encoder(self.robot_spec, self.shape, self._encoder, data, settings, self.encoder_generator):
                    yield _ENCODER_SHARE * done
            except FloatingPointError as error:
                raise LearnerError(f"{error}; nothing was published. Look for pictures or actions that make no sense") from error
            for _ in self._freeze():
                yield _ENCODER_SHARE
        for _ in self._look():
            yield _ENCODER_SHARE
        for done in super().clone_demonstrations():
            yield _ENCODER_SHARE + (1.0 - _ENCODER_SHARE) * done

    def _freeze(self) -> Iterator[None]:
        """From now on pictures go to the replay that is learned from: first those that were kept."""
        log, self._log = self._log, None
        self.replay = self._cloned_replay
        if log is not None:
            self.encoding = True
            for _ in log.feed(self.replay, self._add):
                yield
            self.encoding = False

    def _look(self) -> Iterator[None]:
        """What can be made ready in pieces before actor and critics are cloned."""
        yield from ()

    def _batch(self, demonstrations_only: bool = False) -> tuple[Tensor, int]:
        rows, n = super()._batch(demonstrations_only)
        return self._cropped(rows), n

    def _cropped(self, rows: Tensor) -> Tensor:
        """Rows of the replay with the features of a random crop each, for the observation and the next one on their own."""
        return self._features.cropped(rows, self.generator)

    # --- weights and state ---

    @property
    def _acting_encoder(self) -> Tensor:
        """Flat parameters of the encoder that is published."""
        return self._encoder

    def weights(self) -> PolicyWeights:
        """As `HilSerlLearner.weights`, with the encoder."""
        inner = super().weights()
        encoder = {name: view.clone().cpu() for name, view in self.shape.layout().views(self._acting_encoder).items()}
        return PolicyWeights(ARCHITECTURE, inner.config | encoder_config(self.shape), inner.tensors | encoder, inner.metrics)

    def state(self) -> dict[str, Any]:
        state = super().state()
        state["tensors"] = state["tensors"] | {"encoder": self._encoder.clone().cpu()}
        state["values"] = state["values"] | {"cameras": list(self.shape.cameras)}
        return state

    def _fits(self, state: Mapping[str, Any]) -> bool:
        values, encoder = state["values"], state["tensors"].get("encoder")
        same = values["learner"] == NAME and not differing(values["parameters"], asdict(self.parameters))
        cameras = values.get("cameras") == list(self.shape.cameras)
        return same and cameras and encoder is not None and encoder.shape == self._encoder.shape

    def prepare(self, state: Mapping[str, Any]) -> None:
        """The encoder of a state that fits, so that what is ingested again becomes features at once and no picture is kept."""
        if self._took_encoder(state):
            super().prepare(state)

    def _took_encoder(self, state: Mapping[str, Any]) -> bool:
        """Whether the encoder was taken from the state just now."""
        if self._log is None or not self._fits(state):
            return False
        self._encoder.copy_(state["tensors"]["encoder"])
        for _ in self._freeze():
            pass
        return True

    def restore(self, state: Mapping[str, Any]) -> None:
        """After the same steps were ingested again. Raises `LearnerError` for a state of another learner or other settings."""
        if not self._fits(state):
            found, differ = state["values"]["learner"], differing(state["values"]["parameters"], asdict(self.parameters))
            what = f" ({'; '.join(differ)})" if differ else ""
            other = f"the saved state is of {found} with other settings or cameras{what}"
            raise LearnerError(f"{other}; use a new workspace or the same settings")
        self._took_encoder(state)
        super().restore(state)
