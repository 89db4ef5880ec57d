"""The closed vocabularies of the record. Values are what is written on the wire and on disk: never renumber."""

from enum import IntEnum, IntFlag, StrEnum


class Mode(StrEnum):
    """State of the bridge. Transitions are in `takeover.robot_bridge.modes`."""

    OFFLINE = "offline"
    READY = "ready"
    POLICY = "policy"
    TAKEOVER = "takeover"
    HOLD = "hold"
    STOPPED = "stopped"
    RESETTING = "resetting"


class HoldReason(StrEnum):
    """Why the robot is held. The console has a sentence and a remedy for each."""

    NONE = ""
    OPERATOR = "operator"
    RELEASED = "released"  # hold-to-run: the deadman was let go
    DEVICE_LOST = "device_lost"
    COMMAND_STALE = "command_stale"
    FOCUS_LOST = "focus_lost"
    LEASE_LAPSED = "lease_lapsed"
    NOT_PRESENT = "not_present"
    RECORDER_LOST = "recorder_lost"
    DISK_FULL = "disk_full"
    CAMERA_FROZEN = "camera_frozen"
    CAMERA_MISSING = "camera_missing"
    POLICY_LATE = "policy_late"
    POLICY_FAULT = "policy_fault"  # NaN, wrong shape
    HUMAN_FAULT = "human_fault"  # NaN, wrong shape in a command
    REPEATED_CLAMP = "repeated_clamp"
    CONTROL_LATE = "control_late"
    ROBOT_FAULT = "robot_fault"
    RESTARTED = "restarted"


class Source(IntEnum):
    """Who an action group's applied action came from."""

    NONE = 0
    POLICY = 1
    HUMAN = 2


class ControlMode(IntEnum):
    """Per-step summary of authority (``hil/control_mode`` on disk)."""

    POLICY = 0
    HUMAN = 1
    TRANSITION = 2  # ramp-in: human authority, blended command
    PAUSED = 3
    SAFETY_HOLD = 4


class Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


class OutcomeSource(StrEnum):
    TASK = "task"
    OPERATOR = "operator"
    LIMIT = "limit"  # step limit: truncated
    NEXT = "next"
    STOP = "stop"
    FAULT = "fault"
    LABEL = "label"
    CLASSIFIER = "classifier"  # a learned reward passed its threshold, where the station lets it
    NONE = "none"


class EpisodeKind(StrEnum):
    DEMONSTRATION = "demonstration"
    POLICY = "policy"
    EVALUATION = "evaluation"
    MANUAL_RESET = "manual_reset"


class Role(StrEnum):
    """What a client may do. Anyone may STOP."""

    OBSERVER = "observer"
    LABELER = "labeler"
    OPERATOR = "operator"
    LEARNER = "learner"


class Cause(StrEnum):
    """Why a correction was needed; the seven of the mistake loop, in the order of their digit keys."""

    VISION = "vision"
    PLANNING = "planning"
    TIMING = "timing"
    FORCE = "force"
    WEAR = "wear"
    ASSUMPTION = "assumption"
    OPERATOR = "operator"


class InterventionKind(StrEnum):
    RECOVER = "recover"
    CORRECT = "correct"
    RESET = "reset"


class Trigger(StrEnum):
    HUMAN = "human"
    ROBOT_ASKED = "robot_asked"
    SAFETY = "safety"


class SafetyBit(IntFlag):
    """What the safety filter changed in one step (bit mask in every record)."""

    NONE = 0
    NON_FINITE = 1
    SHAPE = 2
    RANGE = 4
    WORKSPACE = 8
    TRANSLATION = 16
    ROTATION = 32
    SPEED = 64
    ACCELERATION = 128
    FORCE = 256
    GRIPPER = 512
    SLOW_MODE = 1024
    JOINT_LIMIT = 2048
