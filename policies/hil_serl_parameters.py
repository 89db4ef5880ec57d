"""Settings of ``hil-serl``, checked once."""

import dataclasses
from dataclasses import dataclass

from takeover.policies.parameters import check_device, check_kept, check_ranges, require

RANGES = {
    "clone_learning_rate": (1e-6, 0.1),
    "learning_starts": (0, 1_000_000),
    "reset_updates": (0, 100_000),
    "initial_temperature": (1e-6, 100.0),
    "target_entropy_per_action": (-10.0, 10.0),
    "gripper_penalty": (0.0, 10.0),
    "gripper_margin": (0.0, 10.0),
    "clone_updates": (1, 1_000_000),
    "clone_std": (0.001, 1.0),
    "critic_warmup": (0, 1_000_000),
}

LEAST_PICTURE_BYTES = 1_000_000


@dataclass(frozen=True)
class HilSerlParameters:
    """Settings of `HilSerlLearner`."""

    hidden: int = 128
    """Units of each of the two layers of every network."""
    ensemble: int = 2
    """Critics; the target is their minimum, the actor climbs their mean."""
    target_subset: int = 0
    """The target is the minimum of so many of them, drawn anew for each critic update: ``ensemble`` 10 and 2 here are REDQ. 0: of all."""
    batch: int = 256
    """Half demonstrations and corrections, half online."""
    horizon: int = 0
    """Steps of an episode at most: for more than 100 of them ``discount``, ``actor_delay`` and the decays, which are given for 100, are
    stretched (`paced`). 0: the robot's own step limit; 100: they count as they are given."""
    discount: float = 0.97
    target_rate: float = 0.005
    """Fraction by which the target critics follow per critic update."""
    learning_rate: float = 3e-4
    critic_updates: int = 2
    """Per actor update, each on a fresh batch."""
    updates_per_step: float = 1.5
    """Updates (critic_updates + one actor update) per training step; held, not best effort."""
    reset_updates: int = 0
    """Extra updates after each training episode, while the robot is reset, beyond ``updates_per_step`` and counted apart: what waits or
    fades by updates does not count them. In real time as many as there is time for, in lockstep all of them."""
    learning_starts: int = 100
    """Training steps before the first update."""
    initial_temperature: float = 0.01
    target_entropy_per_action: float = -1.0
    """-1 rather than the usual -0.5: with 1.5 mm of clearance and steps of 5 mm the noise itself makes policies fail."""
    bc_weight: float = 0.5
    """Weight of the cloning term over the demonstration half at update 0."""
    bc_decay: float = 0.9998
    """Factor on the cloning weight per update."""
    bc_help: float = 0.25
    """While people drove at least this share of the newest 1,000 steps or so, neither cloning term decays: what is still corrected is not
    learned. Below it, in proportion, if that is more than the decay leaves. 0: the decay alone."""
    gripper_penalty: float = 0.02
    """Reward taken for a command that toggles a discrete gripper."""
    gripper_margin: float = 0.1
    """By how much a demonstrated gripper command must beat the others, in value; the cloning term of the gripper."""
    gripper_bc_weight: float = 0.5
    """Weight of that term at update 0, in the critics' loss."""
    gripper_bc_decay: float = 0.9998
    """Factor on it per update."""
    clone_updates: int = 800
    """More learns the few demonstrations by heart."""
    clone_learning_rate: float = 1e-3
    clone_weight_decay: float = 1.0
    """Decoupled, times the learning rate; with 20 demonstrations it halves the spread of the warm start between seeds."""
    clone_std: float = 0.15
    """Standard deviation before the tanh with which the cloned policy explores."""
    critic_warmup: int = 1000
    """Critic updates on the demonstrations alone after cloning."""
    actor_average: float = 0.02
    """Fraction by which the published actor follows the trained one per update: a running average is steadier from
    version to version (1: the actor as it is)."""
    keep_warm_start: bool = True
    """Against the dip after cloning: the four settings below take effect. A residual starts from its clone anyway: they are not for it."""
    actor_delay: int = 2500
    """Updates of the critics alone, on what the cloned policy does, before the actor learns."""
    anchor_weight: float = 4.0
    """Weight, when the actor begins to learn, of the pull to the clone on the online half, to the person on the other."""
    anchor_decay: float = 0.999
    """Factor on that weight per update."""
    kept_average: float = 0.005
    """In the place of ``actor_average``."""
    replay_capacity: int = 200_000
    both_buffers: bool = True
    """False: human steps go into the demonstration buffer alone."""
    takeover_reward: float = 0.0
    """RLIF: reward of the policy's last step before a person takes over; -1 as published."""
    task_reward: bool = True
    """False: the takeovers alone teach, as in RLIF."""
    pre_takeover_weight: float = 1.0
    """Chance, of the usual one, with which batches hold the policy's steps just before a takeover."""
    pre_takeover_s: float = 0.75
    progress_reward: float = 0.0
    """Above 0: each step also earns this much times the fall of the steps to go, as a share of the step limit."""
    relative_pose: bool = False
    """Positions and yaws relative to the tool's first pose of the episode, in its axes."""
    ee_frame: bool = False
    """Directions and the action's x and y in the axes of the tool as it is turned now."""
    residual_scale: float = 0.0
    """Above 0: the cloned actor is frozen, and what is learned adds at most this much to its mean before the tanh."""
    keep_versions: int = 100
    """In real time: of the newest published versions so many keep their weights (`policies.pruning`); 0: all do, none is pruned."""
    keep_every: int = 10
    """Of the older ones those keep them whose number this divides; 0: none, beyond those that are referred to."""
    device: str = "auto"
    """Where it is computed: cuda, cuda:N or cpu; auto: on the first CUDA device, on the CPU where there is none."""
    written_gradients: bool = True
    """False: gradients by plain autograd, slower, the same up to rounding. The next two ask for that too."""
    compile: bool = False
    """The losses go through torch.compile; needs a C++ compiler, and for a minute or so at the first updates."""
    bf16: bool = False
    """Online critics and trained actor under bfloat16 autocast, never the targets."""
    observations: str = "state"
    """``pictures``: the policy's cameras, too, through an encoder that is cloned; the settings below take effect."""
    encoder: str = "frozen"
    """After cloning it stays as it is. ``trained``: the critics' gradient goes on training it, for a GPU; pictures stay in the replay."""
    camera_features: int = 64
    """Numbers that the encoder makes of a camera's picture; 256 is usual on a GPU."""
    crops: int = 4
    """Fixed crops of every frame that are encoded; batches take one at random."""
    encoder_updates: int = 1000
    encoder_batch: int = 64
    encoder_learning_rate: float = 1e-3
    encoder_weight_decay: float = 0.1
    """Decoupled, times the learning rate."""
    encoder_critic_rate: float = 1e-4
    """Learning rate of a trained encoder under the critics' gradient."""
    picture_store: str = "raw"
    """How a trained encoder's pictures are kept: as they are, or as ``jpeg``: about a tenth of the memory, and decoding them takes time."""
    picture_bytes: int = 4_000_000_000
    """That those pictures may take: then the oldest episodes go, demonstrations never. Two cameras: 98,304 bytes per step, as they are."""

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_kept(self.keep_versions, self.keep_every)
        require(self.learning_rate > 0.0, f"learning_rate = {self.learning_rate}; must be positive")
        require(8 <= self.hidden <= 2048, f"hidden = {self.hidden}; allowed 8..2048")
        require(1 <= self.ensemble <= 10, f"ensemble = {self.ensemble}; allowed 1..10")
        subset = f"target_subset = {self.target_subset}; allowed 0 (all critics) to {self.ensemble} (ensemble)"
        require(0 <= self.target_subset <= self.ensemble, subset)
        require(2 <= self.batch <= 4096, f"batch = {self.batch}; allowed 2..4096")
        require(0 <= self.horizon <= 100_000, f"horizon = {self.horizon}; allowed 0 (the task's step limit) to 100000 steps")
        require(0.0 < self.discount < 1.0, f"discount = {self.discount}; allowed between 0 and 1")
        require(0.0 < self.target_rate <= 1.0, f"target_rate = {self.target_rate}; allowed above 0, up to 1")
        require(0.0 < self.updates_per_step <= 20.0, f"updates_per_step = {self.updates_per_step}; allowed above 0, up to 20")
        require(1 <= self.critic_updates <= 20, f"critic_updates = {self.critic_updates}; allowed 1..20")
        for name in ("bc_weight", "gripper_bc_weight"):
            require(0.0 <= getattr(self, name) <= 1000.0, f"{name} = {getattr(self, name)}; allowed 0..1000")
        for name in ("bc_decay", "gripper_bc_decay"):
            require(0.0 < getattr(self, name) <= 1.0, f"{name} = {getattr(self, name)}; allowed above 0, up to 1")
        require(0.0 <= self.bc_help <= 1.0, f"bc_help = {self.bc_help}; allowed 0..1")
        require(0.0 <= self.clone_weight_decay <= 100.0, f"clone_weight_decay = {self.clone_weight_decay}; allowed 0..100")
        require(0.0 < self.actor_average <= 1.0, f"actor_average = {self.actor_average}; allowed above 0, up to 1")
        require(0 <= self.actor_delay <= 1_000_000, f"actor_delay = {self.actor_delay}; allowed 0..1000000")
        require(0.0 <= self.anchor_weight <= 1000.0, f"anchor_weight = {self.anchor_weight}; allowed 0..1000")
        require(0.0 < self.anchor_decay <= 1.0, f"anchor_decay = {self.anchor_decay}; allowed above 0, up to 1")
        require(0.0 < self.kept_average <= 1.0, f"kept_average = {self.kept_average}; allowed above 0, up to 1")
        require(self.replay_capacity >= 1000, f"replay_capacity = {self.replay_capacity}; at least 1000")
        require(-10.0 <= self.takeover_reward <= 0.0, f"takeover_reward = {self.takeover_reward}; allowed -10..0")
        require(self.task_reward or self.takeover_reward < 0.0, "task_reward = False leaves no reward at all; set takeover_reward below 0")
        require(0.0 <= self.pre_takeover_weight <= 1.0, f"pre_takeover_weight = {self.pre_takeover_weight}; allowed 0..1")
        require(0.0 <= self.pre_takeover_s <= 10.0, f"pre_takeover_s = {self.pre_takeover_s}; allowed 0..10")
        require(0.0 <= self.progress_reward <= 100.0, f"progress_reward = {self.progress_reward}; allowed 0..100")
        require(0.0 <= self.residual_scale <= 10.0, f"residual_scale = {self.residual_scale}; allowed 0..10")
        check_device(self.device)
        require(self.observations in ("state", "pictures"), f"observations = {self.observations!r}; allowed: state, pictures")
        require(2 <= self.camera_features <= 1024, f"camera_features = {self.camera_features}; allowed 2..1024")
        require(1 <= self.crops <= 8, f"crops = {self.crops}; allowed 1..8")
        require(1 <= self.encoder_updates <= 1_000_000, f"encoder_updates = {self.encoder_updates}; allowed 1..1000000")
        require(2 <= self.encoder_batch <= 4096, f"encoder_batch = {self.encoder_batch}; allowed 2..4096")
        require(
            0.0 < self.encoder_learning_rate <= 0.1, f"encoder_learning_rate = {self.encoder_learning_rate}; allowed above 0, up to 0.1"
        )
        require(0.0 <= self.encoder_weight_decay <= 100.0, f"encoder_weight_decay = {self.encoder_weight_decay}; allowed 0..100")
        self._check_trained()
        of_state = self.progress_reward > 0.0 or self.relative_pose or self.ee_frame
        require(self.observations == "state" or not of_state, "progress_reward, relative_pose and ee_frame need observations = 'state'")

    def _check_trained(self) -> None:
        """What concerns an encoder that goes on learning."""
        require(self.encoder in ("frozen", "trained"), f"encoder = {self.encoder!r}; allowed: frozen, trained")
        require(self.picture_store in ("raw", "jpeg"), f"picture_store = {self.picture_store!r}; allowed: raw, jpeg")
        require(0.0 < self.encoder_critic_rate <= 0.1, f"encoder_critic_rate = {self.encoder_critic_rate}; allowed above 0, up to 0.1")
        least, most = LEAST_PICTURE_BYTES, 1 << 50
        require(least <= self.picture_bytes <= most, f"picture_bytes = {self.picture_bytes}; allowed {least} to {most} bytes")
        if self.encoder == "trained":
            no_residual = "residual_scale needs encoder = 'frozen': the actor below a residual knows the features it was cloned with alone"
            require(self.residual_scale == 0.0, no_residual)

    @property
    def keeps_warm_start(self) -> bool:
        """Whether the actor waits and is held to its clone."""
        return self.keep_warm_start and self.residual_scale == 0.0


USUAL_HORIZON = 100


def paced(parameters: HilSerlParameters, max_steps: int) -> HilSerlParameters:
    """What is given for episodes of 100 steps, for those of ``horizon`` (or else ``max_steps``) steps; shorter ones count as 100.

    With r = steps / 100: 1 - discount becomes 1/r of what it was, what decays does so r times as slowly, the actor waits r times as long.
    """
    r = (parameters.horizon or max_steps) / USUAL_HORIZON
    if r <= 1.0:
        return parameters
    slower = {name: getattr(parameters, name) ** (1.0 / r) for name in ("bc_decay", "gripper_bc_decay", "anchor_decay")}
    return dataclasses.replace(
        parameters, discount=1.0 - (1.0 - parameters.discount) / r, actor_delay=round(r * parameters.actor_delay), **slower
    )
