"""Mutations of who it was: under which name a peer's doings are recorded, and what of it is refused."""

from benchmarks.mutation import Mutation, of

T = "tests/robot_bridge/test_"
IO, KEYED = f"{T}io_limits.py", f"{T}security.py::test_what_a_key_does_is_recorded_under_its_name"
OWN_NAME = "if request.sender != sender and not isinstance(request, Hold):"

NAMES: list[Mutation] = [
    *of(
        "robot_bridge/control_desk.py",
        IO,
        ("names: another's", OWN_NAME, "if False:"),
        ("names: hold in any", OWN_NAME, "if request.sender != sender:"),
        ("names: of the hello", "replace(request, sender=names.author(self._gatekeeper, user, sender))", "request"),
        ("lease: gone", "gone = not self._control.reaches(", "gone = self._control.reaches("),
        ("lease: comes back", "now_ns, gone=gone, person=person)", "now_ns, person=person)"),
        ("names: stop", "self._peers.at(peer).sender if self._greeted(peer) else names.claimed(claimed)", "claimed"),
    ),
    *of(
        "robot_bridge/io.py",
        f"{T}security.py::test_a_lease_is_of_the_key_that_it_was_granted_to",
        ("lease: another key", "if self._command.user != self.lease_user:", "if False:"),
    ),
    *of(
        "robot_bridge/names.py",
        IO,
        ("names: long", "return signed[:MAX_AUTHOR]", "return signed"),
        ("names: without hello, cut", "name[: MAX_AUTHOR - len(NO_HELLO)]", "name"),
        ("names: without hello, any", "'somebody' if sender_limit(name) else name", "name"),
    ),
    *of(
        "robot_bridge/names.py",
        f"{T}practice_limits.py::test_names_are_short_and_of_plain_letters",
        ("names: with a slash", "[0-9A-Za-z_.-]{{1,", "[0-9A-Za-z_./-]{{1,"),
        ("names: of any length", "]{{1,{MAX_SENDER}}}", "]{{1,}}"),
        ("names: none", "]{{1,{MAX_SENDER}}}", "]{{0,{MAX_SENDER}}}"),
        ("names: whole", "_SENDER.fullmatch(name)", "_SENDER.match(name)"),
    ),
    *of(
        "robot_bridge/names.py",
        KEYED,
        ("names: key", 'f"{known.name}/{name}" if known is not None else name', "name"),
        ("names: of events", 'f"{known.name if known is not None else LOCAL}/{name}"', "name"),
    ),
]
