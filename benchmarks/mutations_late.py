"""What was asked must not happen late, and a hold that was asked for must last: the rules that say so, taken away."""

from benchmarks.mutation import Mutation, of

T = "tests/robot_bridge/test_"
SEEN = f"{T}seen_by_who_asks.py"
LATE, IO, STOPPED = f"{T}late_requests.py", f"{T}io_limits.py", f"{T}robot_stopped.py"

LATE_REQUESTS: list[Mutation] = [
    *of(
        "robot_bridge/control_base.py",
        SEEN,
        ("stop: recorded again", "if pressed != known:", "if False:"),
        ("stop: recorded once", "if pressed != known:", "if True:"),
        ("resume: a hold that began", "self.holds += 1", "pass"),
    ),
    *of(
        "robot_bridge/requests.py",
        SEEN,
        ("resume: a hold seen", "if self._shown is not None and self._shown.holds != control.holds:", "if False:"),
        ("resume: held by whoever asks again", "control.holds += 1", "pass"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        SEEN,
        ("stop: seen by who asks", "stops = self.inbox.stops if shown is None else shown.stops", "stops = self.inbox.stops"),
    ),
    *of(
        "robot_bridge/inbox.py",
        SEEN,
        ("stop: its reason", "reason[:MAX_STOP_REASON]", "reason"),
    ),
    *of(
        "robot_bridge/requests.py",
        LATE,
        ("late: before a stop", "if isinstance(item.request, _MOVING) and item.stops != self._control.io.inbox.stops:", "if False:"),
        ("late: moves nothing", "isinstance(item.request, _MOVING) and item.stops", "item.stops"),
        *(
            (f"late: {name}", "_MOVING = (Clear, Start, Resume, Ready, Next)", f"_MOVING = ({rest})")
            for name, rest in (
                ("clear", "Start, Resume, Ready, Next"),
                ("start", "Clear, Resume, Ready, Next"),
                ("resume", "Clear, Start, Ready, Next"),
                ("ready", "Clear, Start, Resume, Next"),
                ("next", "Clear, Start, Resume, Ready"),
            )
        ),
        ("late: waited", "not isinstance(item.request, Hold) and waited_ns > MAX_REQUEST_AGE_NS:", "False:"),
        ("late: a hold", "not isinstance(item.request, Hold) and waited_ns", "waited_ns"),
        ("late: stops known", "self._stops = item.stops", "self._stops = 0"),
        ("start: silent actor", "control.actor_silent(time.monotonic_ns()):", "False:"),
        (
            "start: shown by a person",
            "if request.kind is not EpisodeKind.DEMONSTRATION and control.policy_present() and control.actor",
            "if control.actor",
        ),
        ("hold: before an episode", "Mode.HOLD, Mode.RESETTING):", "Mode.HOLD):"),
        ("hold: remembered", "control.asked_to_hold, control.hold_asker = True,", "control.hold_asker ="),
        ("hold: before the end", '= (outcome, source, discard), ""', "= (outcome, source, discard), control.hold_asker"),
        ("resume: practice that somebody held", "if control.unattended and control.asked_to_hold and not led and", "if False and"),
        ("resume: practice that nobody held", "control.unattended and control.asked_to_hold and not led", "control.unattended and not led"),
        ("resume: practice, by who held it", " and request.sender != control.hold_asker:", ":"),
        ("resume: practice, by who leads", "control.asked_to_hold and not led and", "control.asked_to_hold and"),
        (
            "stop: its cause stands",
            "if control.end_request is not None and control.end_request[1] is OutcomeSource.STOP:",
            "if False:",
        ),
    ),
    *of(
        "robot_bridge/control_base.py",
        LATE,
        ("hold: forgotten", "self.flush, self.asked_to_hold = True, False", "self.flush = True"),
        ("clear: a stop meanwhile", "if not self.io.inbox.clear_stop(stops):", "if self.io.inbox.clear_stop(stops) is None:"),
        ("stop: cleared at once", "in (Mode.STOPPED, Mode.READY) or block is None:", "is Mode.STOPPED or block is None:"),
    ),
    *of(
        "robot_bridge/control_state.py",
        LATE,
        ("drive: disk full", "return HoldReason.DISK_FULL, self.io.records.error", "return HoldReason.NONE, self.io.records.error"),
        ("drive: unrecorded", "reason, detail = self.unrecorded(now_ns)", 'reason, detail = HoldReason.NONE, ""'),
        ("recorder: disk", "if self.io.records.error:", "if False:"),
        ("recorder: lost", "trouble = self.io.records.trouble(now_ns)", 'trouble = ""'),
    ),
    *of(
        "robot_bridge/control.py",
        LATE,
        ("hold: asked for in practice", "            and not self.asked_to_hold\n", ""),
        ("hold: as the episode ends", "if asker and self.mode.mode is Mode.RESETTING:", "if False:"),
        ("hold: over, as the episode ends", 'self.hold_asker if self.asked_to_hold else ""', "self.hold_asker"),
        (
            "requests: robot away",
            "self.requests.handle_all()  # answered also while the robot is not\n        reading = self._read()",
            "reading = self._read()\n        self.requests.handle_all()",
        ),
    ),
    *of(
        "robot_bridge/control_base.py",
        STOPPED,
        (
            "clear: a stop just then",
            "if self.io.inbox.stop_reason is not None:\n            self.stop_robot()",
            "if False:\n            pass",
        ),
        ("stopped: known", "self.robot_stopped = True", "pass"),
        ("stopped: stands", "self.safety_state = replace(self.safety_state, velocity=(0.0, 0.0, 0.0))", "pass"),
        ("fault: stands", "self.stood_still()\n        self.pending", "self.pending"),
        ("fault: ends what STOP ends", "self.end_episode(*self.end_request)  # at once", "pass  # at once"),
        ("stop: no next episode", "stopped = source is OutcomeSource.STOP", "stopped = False"),
    ),
    *of(
        "robot_bridge/control.py",
        STOPPED,
        (
            "reset: lets it move again",
            "if self.mode.mode is Mode.RESETTING and self.robot_stopped and not self.on_way_to_start:",
            "if False:",
        ),
        ("reset: not on the way", "self.robot_stopped and not self.on_way_to_start:", "self.robot_stopped:"),
    ),
    *of(
        "robot_bridge/realtime.py",
        STOPPED,
        ("slept: stands", "self.stop_robot()\n            self.stood_still()", "self.stop_robot()"),
        ("stuck: known", "self.tripped = self.robot_stopped = True", "self.tripped = True"),
        ("stuck: stands", "self.tripped = False\n            self.stood_still()", "self.tripped = False"),
        ("stuck: stands in a hold", "self.tripped = False\n        self.stood_still()", "self.tripped = False"),
    ),
    *of(
        "robot_bridge/inbox.py",
        LATE,
        ("stop: counted", "self.stops += 1", "pass"),
        ("stop: of another", "if self.stops == stops:\n", "if True:\n"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        LATE,
        ("stop: known to who asks", "stops = self.inbox.stops if shown is None else shown.stops", "stops = 99"),
    ),
    *of(
        "robot_bridge/control_step.py",
        LATE,
        ("clamps: beside a person", "if driver is Source.HUMAN and Source.POLICY in decision.source:", "if False:"),
        ("clamps: of the policy alone", "if source is Source.POLICY:\n                part", "if True:\n                part"),
    ),
    *of(
        "robot_bridge/protocol/polling.py",
        f"{T}floods.py",
        ("flood: the others' turn", "islice(iter(receive, None), MAX_AT_ONCE)", "iter(receive, None)"),
        ("flood: of large messages", "if time.monotonic() >= end:", "if False:"),
        ("flood: their turn soon", "MAX_AT_ONCE = 64 ", "MAX_AT_ONCE = 64_000 "),
    ),
    *of(
        "robot_bridge/io.py",
        f"{T}floods.py",
        ("flood: requests first", "if ready:\n            self._on_control()", "if ready:\n            pass"),
        ("flood: requests between", "self._handlers[id(socket)]()\n                self._on_control()", "self._handlers[id(socket)]()"),
    ),
    *of(
        "robot_bridge/recordable.py",
        f"{T}floods.py",
        ("answer: bytes of larger actions", "rows = MAX_ROWS * (3 + 9 * action_size)", "rows = 0"),
    ),
    *of("robot_bridge/protocol/sockets.py", f"{T}floods.py", ("answer: room for larger actions", "= max_bytes or entry", "= entry")),
    *of(
        "robot_bridge/mark_rate.py",
        f"{T}mark_rate.py",
        ("marks: at most so many", "permitted = left >= 1.0", "permitted = True"),
        ("marks: a burst", "min(float(MARKS_AT_ONCE), left + ", "(left + "),
        ("marks: time", "(now_ns - then_ns) / 1e9 * MARKS_PER_S", "0.0"),
        ("marks: peers bounded", "while len(self._peers) > MAX_REMEMBERED:", "while False:"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        f"{T}mark_rate.py",
        ("marks: backlog", "self.records.bytes > MAX_EVENT_BACKLOG_BYTES", "False"),
        ("marks: rate", "if kept and not self._marks", "if False and not self._marks"),
        ("marks: outcomes too", "Mark | SetOutcome | UndoOutcome)", "Mark)"),
        ("marks: in lockstep", "UndoOutcome) and not self._lockstep", "UndoOutcome)"),
    ),
    *of(
        "robot_bridge/peers.py",
        f"{T}peers.py",
        ("hello: peers bounded", "self._drop(rest[", "list(rest["),
        ("hello: peers of one kind bounded", "self._drop(alike[", "list(alike["),
        ("hello: kind by key", "return self.user or self.role", "return self.role"),
        ("hello: kind by role", "return self.user or self.role", "return self.user"),
        ("hello: the commander's stays", "if other.kind == peer.kind and known != kept", "if other.kind == peer.kind"),
        ("hello: the commander's stays, of all", "rest = [known for known in self._known if known != kept]", "rest = list(self._known)"),
        ("hello: by last use", "self._known[identity] = self._known.pop(identity)", "pass"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        f"{T}peers.py",
        ("hello: who commands", "kept=self._lease_peer", 'kept=b""'),
        ("hello: who is heard", "self._peers.heard(peer)", "pass"),
    ),
    *of(
        "robot_bridge/protocol/sockets.py",
        f"{T}subscriptions.py",
        ("subscriptions: long ones", "self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)", "pass"),
        ("subscriptions: room for the handshake", "MAX_SUBSCRIPTION_BYTES = 1024 ", "MAX_SUBSCRIPTION_BYTES = 256 "),
    ),
    *of("robot_bridge/refusals.py", f"{T}floods.py", ("refusal: too deep", "except RecursionError:", "except KeyError:")),
    *of("robot_bridge/protocol/sockets.py", f"{T}floods.py", ("flood: of rubbish", "if time.monotonic() >= deadline:", "if False:")),
    *of("robot_bridge/realtime.py", LATE, ("plan: so long", "repeats, self.plan_steps)", "repeats)")),
    *of("robot_bridge/control_step.py", LATE, ("plan: its rows", "chunk.choice(self.seq, self.plan_steps)", "chunk.choice(self.seq)")),
    *of("robot_bridge/io.py", IO, ("command: presses for nothing", "if command.deadman and not command.authority:", "if False:")),
]
