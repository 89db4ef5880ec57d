"""What the launcher tells every process, once, at its start (a JSON file in the socket folder)."""

from typing import Literal

import msgspec

from takeover.data.schema.specs import SafetyLimits


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one station. Every process gets the same file and derives its part from it."""

    session_id: str
    workspace: str  # absolute path
    sockets: str  # absolute path of the 0700 folder with the ipc sockets
    listen: str = ""  # tcp://HOST:PORT: the bridge is reached over the network, with keys; "": on this computer only
    connect: str = ""  # tcp://HOST:PORT: the bridge is another computer's
    keys: str = ""  # absolute path of the folder with keys, for both
    own_key: str = ""  # name of the key pair used; "": the only one
    bridge_key: str = ""  # name of the bridge's card; "": the only one
    station_id: str = "local"
    person: str = "op-01"  # pseudonym of who operates
    consent_version: str = ""  # what that person agreed to; "": not noted
    robot: str = "sim"
    robot_address: str = ""  # of a robot that is reached over a link: HOST:PORT or the path of a UNIX socket
    task: str = "peg-insert"
    learner: str = "hil-serl"
    operator: Literal["scripted", "console", "none"] = "console"
    control_hz: float = 0.0  # of the simulated robot; 0: its own, 20
    clock: Literal["realtime", "lockstep"] = "realtime"
    cameras: bool = True
    seed: int = 0
    demonstrations: int = 20  # cloned into policy version 1
    devices: list[str] = msgspec.field(default_factory=lambda: ["keyboard", "gamepad", "spacemouse"])  # kinds that may drive
    policy_cameras: list[str] = msgspec.field(default_factory=list)  # the policy is held while one of these gives no new picture
    collect: int = 0  # the console opens in Collect mode for this many demonstrations; 0: it does not
    lockstep_lag: int = 16  # before step k the learner has finished its updates for step k - lag
    publish_every_updates: int = 75  # in lockstep; in real time at most every publish_every_s
    publish_every_s: float = 2.0
    checkpoint_every_updates: int = 2000  # in lockstep; in real time at most every checkpoint_every_s
    checkpoint_every_s: float = 30.0
    evaluate_every_s: float = 30.0  # in real time the evaluator looks at the newest version at most so often
    evaluate_starts: int = 50  # held-out starts of that look, 1 to 200
    gate: bool = False  # in real time, compare new versions with the trusted one; a worse one is refused and the actor rolls back
    probe_share: float = 0.0  # of policy episodes that become no-help probes, by chance
    probe_versions: list[int] = msgspec.field(default_factory=list)  # that drive in them: none (whichever acts), one, or two in turn
    hold_to_run: bool = False
    line_of_sight: Literal["auto", "yes", "no"] = "auto"  # whether people see the robot itself; auto: on real robots they do not
    reward: Literal["task", "keys", "classifier"] = "task"  # what ends episodes: keys: operators alone; classifier: a learned one too
    key_delay_s: float = 0.5  # an operator's outcome key is dated back by this
    retrain_reward_after: int = 3  # vetoes; with reward "classifier" the evaluator then trains the next one; 0: never
    torch_threads: int = 1
    parent_pid: int = 0  # a process exits when this one is gone; 0: never
    limits: SafetyLimits = msgspec.field(default_factory=SafetyLimits)
    task_parameters: dict[str, float] = msgspec.field(default_factory=dict)
    operator_parameters: dict[str, float | str] = msgspec.field(default_factory=dict)
    learner_parameters: dict[str, float | str | bool] = msgspec.field(default_factory=dict)
