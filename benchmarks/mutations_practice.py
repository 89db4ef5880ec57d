"""Mutations of unattended practice, of the way to a start pose, and of what the bridge believes over a network."""

from benchmarks.mutation import Mutation, of

AROUND = "tests/robot_bridge/test_bridge_faults.py"
TESTS = "tests/robot_bridge/test_practice_limits.py"
SLOW = "slow = self.unattended or not self.spec.has_watchdog"
KNOWN = "if not sender or user != self._control.user or not self._granted(role):"
OLD = "if not isinstance(request, Hold) and (age := self._request_age(envelope.newest_state_seq, now)):"
UNSEEN = "if self._lockstep or (state_seq < 0 and self._gatekeeper is None):"
OVER = "block is not None and block.max_failures and block.failures >= block.max_failures and not block.finishing"
OTHER = "if self._record_key not in (None, self._record.user):"

PRACTICE: list[Mutation] = [
    *of(
        "robot_bridge/control_state.py",
        TESTS,
        ("practice: slow", SLOW, "slow = not self.spec.has_watchdog"),
        ("practice: no watchdog, slow", SLOW, "slow = self.unattended"),
        ("practice: tighter limits", "(self.practice_filter if self.unattended else self.filter).apply(", "self.filter.apply("),
        ("practice: force", 'max(low["max_force_n"], limits.max_force_n / 2)', "limits.max_force_n"),
        ("practice: force never off", 'max(low["max_force_n"], limits.max_force_n / 2)', "limits.max_force_n / 2"),
        ("practice: grip", 'max(low["max_gripper_force_n"], limits.max_gripper_force_n / 2)', "limits.max_gripper_force_n"),
        ("practice: clamps", "max(1, limits.clamps_to_hold - 1)", "limits.clamps_to_hold"),
        ("practice: clamps at least one", "max(1, limits.clamps_to_hold - 1)", "limits.clamps_to_hold - 1"),
        ("practice: mistakes", "max(1, limits.mistakes_per_episode // 2)", "limits.mistakes_per_episode"),
        ("practice: somebody came", "block.max_failures = 0\n", "pass\n"),
        ("practice: time", "round(self.spec.max_steps / self.config.limits.slow_scale) if self.unattended else", "0 if False else"),
    ),
    *of(
        "robot_bridge/control_base.py",
        TESTS,
        ("practice: failures", f"if {OVER}:", "if False:"),
        ("way: its velocity", "self.safety_state = SafetyState(velocity=velocity)", "self.safety_state = SafetyState()"),
    ),
    *of(
        "robot_bridge/control.py",
        TESTS,
        ("way: time", "if self.start_steps * self.period_s > WAY_TO_START_S:", "if False:"),
        ("way: slow", "scale = min(self.active_speed_scale(), self.config.limits.slow_scale)", "scale = self.active_speed_scale()"),
        ("way: checked", 'checked(wanted, self.spec.action.size, "action towards the start pose")', "np.nan_to_num(wanted)"),
        ("way: limited", "robot.apply(result.action)\n        robot.advance()", "robot.apply(asked)\n        robot.advance()"),
        ("way: watched", "self.supervise()  # from the first step on", "pass  # from the first step on"),
        ("way: no step when held", "if self.mode.mode is not Mode.RESETTING:", "if False:"),
        ("practice: nobody resumes", "self.unattended\n            or (self.config.operator", "(self.config.operator"),
    ),
    *of(
        "robot_bridge/control_step.py",
        TESTS,
        ("way: no takeover", "human = None  # no takeover: only Resume leads out", "pass"),
        ("practice: a takeover attends", "self.attend()", "pass"),
    ),
    *of(
        "robot_bridge/realtime.py",
        TESTS,
        (
            "way: relies on the same",
            "not in (Mode.POLICY, Mode.TAKEOVER) and not self.on_way_to_start:",
            "not in (Mode.POLICY, Mode.TAKEOVER):",
        ),
        ("practice: nobody there", "if self.unattended:", "if False:"),
        ("way: a demonstration's too", "if self.unattended:", "if self.unattended or self.mode.mode is not Mode.POLICY:"),
    ),
    *of(
        "robot_bridge/requests.py",
        TESTS,
        ("practice: demonstrations", "if request.kind is EpisodeKind.DEMONSTRATION:", "if False:"),
        ("practice: lockstep", "if self._control.lockstep:", "if False:"),
        ("practice: budget", "if not 1 <= request.max_failures <= MAX_FAILURES:", "if request.max_failures > MAX_FAILURES:"),
        ("practice: budget at most", "if not 1 <= request.max_failures <= MAX_FAILURES:", "if not 1 <= request.max_failures:"),
        ("practice: robot", "if lacks:", "if False:"),
        ("practice: robot's task", 'if not spec.simulated or self._control.config.reward != "task":', "if False:"),
        ("practice: permitted", "self._permit_practice(request)\n        control", "pass\n        control"),
    ),
    *of(
        "robot_bridge/record_desk.py",
        TESTS,
        ("recorder: another one", OTHER, "if False:"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        TESTS,
        ("network: identity of a key", KNOWN, "if not sender or not self._granted(role):"),
        ("network: role now", KNOWN, "if not sender or user != self._control.user:"),
        ("network: role of the key", "if client is None or hello.role not in client.roles:", "if client is None:"),
        (
            "network: unknown key",
            "if client is None or hello.role not in client.roles:",
            "if client is not None and hello.role not in client.roles:",
        ),
        ("network: old requests", OLD, "if False:"),
        ("network: hold at any age", OLD, OLD.replace("not isinstance(request, Hold) and ", "")),
        ("age: on one computer too", UNSEEN, "if self._lockstep or self._gatekeeper is None:"),
        ("age: no state watched", UNSEEN, "if self._lockstep:"),
        ("age: not in lockstep", UNSEEN, "if state_seq < 0 and self._gatekeeper is None:"),
        ("network: request's age", "if now_ns - seen_ns > MAX_REQUEST_AGE_NS else", "if False else"),
        ("network: state not known", 'return "without a recent state in view"', 'return ""'),
        ("network: names", "if limit := names.sender_limit(hello.sender):", 'if limit := "":'),
    ),
    *of(
        "robot_bridge/record_desk.py",
        "tests/robot_bridge/test_recorder_requests.py",
        ("recorder: again and again", " and now - self._rewound_ns > REWIND_NS):", "):"),
    ),
    *of(
        "robot_bridge/bridge.py",
        AROUND,
        ("network: refused before it runs", "if self._count_refusal is not None:", "if True:"),
        ("sight: nobody's", "if nobody_sees(config, spec, known):", "if False:"),
        ("sight: noted", 'audit.note_sight(workspace, "bridge", self.config.line_of_sight)', "pass"),
    ),
    *of(
        "robot_bridge/control_base.py",
        AROUND,
        (
            "stop: outlives one that fails",
            "except Exception:\n            log.exception(\"the robot's own",
            "except KeyError:\n            log.exception(\"the robot's own",
        ),
    ),
    *of(
        "robot_bridge/sight.py",
        AROUND,
        ("sight: simulators", "return not spec.simulated and not names", "return not names"),
        ("sight: a camera's", " and not names and", " and"),
        ("sight: people's own", ' and config.line_of_sight != "yes"', ""),
        ("sight: said to be none", 'config.line_of_sight != "yes"', 'config.line_of_sight == "auto"'),
    ),
    *of(
        "robot_bridge/protocol/link.py",
        AROUND,
        ("keys: refusal that fails", "except Exception:  # it", "except KeyError:  # it"),
    ),
    *of(
        "robot_bridge/bridge.py",
        TESTS,
        ("network: refusals noted once a second", "if now_s - self._refusal_noted_s >= REFUSAL_NOTE_S:", "if True:"),
    ),
]
