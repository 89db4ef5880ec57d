"""What each hold reason means for a person: the banner's why, the card's title, what to do (numbered), and what must be true to go on."""

from dataclasses import dataclass, replace

from takeover.data.schema import HoldReason


@dataclass(frozen=True)
class HoldText:
    why: str  # for the banner, a few words
    title: str  # for the card
    steps: tuple[str, ...]  # {resume}, {deadman}, {next}: the keys of the device in use
    restart: str = ""  # process whose restart is the remedy
    line: str = "{resume} resumes the policy, {deadman} takes over"  # what to do, for the banner


_GO_ON = "Let go of the device, then {resume} resumes the policy or {deadman} takes over."

HOLDS: dict[HoldReason, HoldText] = {
    HoldReason.OPERATOR: HoldText("Held by you", "Held: you asked for it", ("The robot keeps still until you go on.", _GO_ON)),
    HoldReason.RELEASED: HoldText("Hold to run", "Held: you let go", ("Hold-to-run is on: letting go holds the robot.", _GO_ON)),
    HoldReason.DEVICE_LOST: HoldText(
        "Device unplugged",
        "Held: the device that drove is gone",
        ("Plug it in again, or pick up another one.", "Wait until the device panel shows it as neutral.", _GO_ON),
        line="Plug it in again or use another; then {resume} resumes or {deadman} takes over",
    ),
    HoldReason.COMMAND_STALE: HoldText(
        "Commands too late",
        "Held: commands arrived too late",
        ("The window or the link stalled while you drove.", "Wait until command round trip is below 100 ms.", _GO_ON),
    ),
    HoldReason.FOCUS_LOST: HoldText(
        "Window lost focus",
        "Held: the window lost focus while the keyboard drove",
        ("Click into this window.", _GO_ON),
        line="Click into the window; then {resume} resumes or {deadman} takes over",
    ),
    HoldReason.LEASE_LAPSED: HoldText(
        "Console stopped answering",
        "Held: the one who drove stopped answering",
        ("This console now asks to command again by itself.", _GO_ON),
    ),
    HoldReason.NOT_PRESENT: HoldText(
        "Nobody present",
        "Held: nobody is there to supervise",
        ("The policy runs only while a person's console is connected.", _GO_ON),
    ),
    HoldReason.RECORDER_LOST: HoldText(
        "Recorder not answering",
        "Held: steps are not being recorded",
        ("Restart the recorder. Nothing acknowledged is lost, the rest is sent again.", "Still silent: see Setup, Processes.", _GO_ON),
        restart="recorder",
        line="Restart the recorder; then {resume} resumes or {deadman} takes over",
    ),
    HoldReason.DISK_FULL: HoldText(
        "Disk full",
        "Held: the disk is full",
        ("Free some space or end the episode.", "The recorder goes on by itself when there is room.", _GO_ON),
        line="Free some space; then {resume} resumes",
    ),
    HoldReason.CAMERA_FROZEN: HoldText(
        "Camera frozen",
        "Held: a camera stopped sending new pictures",
        (
            "Restart the robot bridge if it does not return within 2 s.",
            "Still frozen: check its cable, then Setup.",
            "When its age is below 100 ms: " + _GO_ON[0].lower() + _GO_ON[1:],
        ),
        restart="bridge",
        line="When its picture is live, {resume} resumes the policy or {deadman} takes over",
    ),
    HoldReason.CAMERA_MISSING: HoldText(
        "Camera missing",
        "Held: a camera is gone",
        ("Check its cable, then Setup.", "When its picture is back: " + _GO_ON[0].lower() + _GO_ON[1:]),
        restart="bridge",
        line="When its picture is live, {resume} resumes the policy or {deadman} takes over",
    ),
    HoldReason.POLICY_LATE: HoldText(
        "Policy too late",
        "Held: the policy answered too late",
        ("The actor may be busy or gone; it is restarted by itself.", "When the policy rate is back: " + _GO_ON[0].lower() + _GO_ON[1:]),
        restart="actor",
        line="When the policy answers again, {resume} resumes; {deadman} takes over now",
    ),
    HoldReason.POLICY_FAULT: HoldText(
        "Policy fault",
        "Held: the policy asked for something that is not a motion",
        ("Its answer was refused and never reached the robot.", "Take over with {deadman}, or end the episode with {next}."),
        restart="actor",
        line="{deadman} takes over, {next} ends the episode",
    ),
    HoldReason.HUMAN_FAULT: HoldText(
        "Command fault",
        "Held: the device sent something that is not a motion",
        ("It was refused and never reached the robot.", "Check the device in Setup, Devices.", _GO_ON),
    ),
    HoldReason.REPEATED_CLAMP: HoldText(
        "Policy over the limits",
        "Held: the policy asked for more than is allowed, several times in a row",
        (
            "Every request was cut to the limit before it reached the robot.",
            "Take over with {deadman} and steer away, or resume with {resume}.",
        ),
        line="{deadman} takes over and steers away, {resume} resumes",
    ),
    HoldReason.CONTROL_LATE: HoldText(
        "Control loop late",
        "Held: the control loop cannot keep its rate",
        ("Close what else is busy on this computer.", _GO_ON),
    ),
    HoldReason.ROBOT_FAULT: HoldText(
        "Robot fault",
        "Held: the robot reported a fault",
        ("See the detail at the right.", "Restart the robot bridge when the cause is gone.", _GO_ON),
        restart="bridge",
        line="Remove the cause; then {resume} resumes or {deadman} takes over",
    ),
    HoldReason.RESTARTED: HoldText(
        "Bridge restarted",
        "Held: the robot bridge was restarted",
        ("No earlier command is carried out.", _GO_ON),
    ),
}
NO_PICTURE = HoldText(
    "No new picture here for 0.5 s",
    "Held: you drove and no new picture came here for half a second",
    (
        "The link to this desk stalls, or the ports of the cameras are closed.",
        "When their age is below 100 ms: " + _GO_ON[0].lower() + _GO_ON[1:],
    ),
    line="When the picture is live, {deadman} takes over; {resume} resumes the policy",
)
UNKNOWN = HoldText("Held", "Held", (_GO_ON,))


def hold_text(reason: HoldReason, lost_pictures: tuple[str, ...] = ()) -> HoldText:
    """``lost_pictures``: for lack of which this console itself has had the robot held, as if its window did not answer."""
    if lost_pictures and reason is HoldReason.COMMAND_STALE:
        return replace(NO_PICTURE, why=f"{NO_PICTURE.why}: {', '.join(lost_pictures)}")
    return HOLDS.get(reason, UNKNOWN)
