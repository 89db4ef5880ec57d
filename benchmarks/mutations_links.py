"""Links that die without a word, clocks that jump and pictures that stop: the rules that say what then, taken away."""

from benchmarks.mutation import Mutation, of

MEANT = "tests/robot_bridge/test_episode_meant.py"
DEAD = "tests/app/console/test_dead_links.py"
REPEATED = "tests/robot_bridge/test_repeated_stops.py"

LINKS: list[Mutation] = [
    *of(
        "robot_bridge/protocol/kept_stop.py",
        DEAD,
        (
            "kept stop: sent again",
            "if not self._left_ns or time.monotonic_ns() - self._left_ns > REPEAT_NS else None",
            "if not self._left_ns else None",
        ),
        ("kept stop: not heaped up", "if self._left_ns and not (self._may_lose or self._lives):", "if False:"),
        ("kept stop: heard and not stopped", "not (self._may_lose or self._lives)", "not self._may_lose"),
        (
            "kept stop: answered to this press",
            "if self._envelope is not None and request_id == self._envelope.request_id:\n            self._confirm()",
            "self._confirm()",
        ),
        ("kept stop: by no state over a network", "if self._may_lose or self._envelope is None or", "if self._envelope is None or"),
        ("kept stop: confirmed by who is stopped", "or state.mode is not Mode.STOPPED:", "or False:"),
        ("kept stop: confirmed by what is newer", "or state.seq > self._envelope.newest_state_seq:", "or True:"),
        ("kept stop: confirmed by a new bridge", "state.session != self._pressed_session or state", "state"),
    ),
    *of(
        "robot_bridge/protocol/client.py",
        DEAD,
        ("kept stop: its answer", "self._stop.answered(envelope.request_id)", "pass"),
        ("kept stop: repeated, no clock", "self._sent_ns.pop(envelope.request_id, None)", "pass"),
    ),
    *of(
        "robot_bridge/protocol/client.py",
        "tests/app/console/test_link_limits.py",
        ("kept stop: closed", "while self._stop.pressed_ns and", "while False and"),
    ),
    *of(
        "app/console/models/banner.py",
        "tests/app/console/test_models.py",
        ("console: kept stop, said", "if view.stop_waits_s > STOP_WAITS_S:", "if False:"),
    ),
    *of(
        "app/console/client.py",
        "tests/app/console/test_link_limits.py",
        ("console: kept stop, known", "self.stop_pressed_ns = self._control.stop_pressed_ns", "self.stop_pressed_ns = 0"),
    ),
    *of(
        "robot_bridge/protocol/watched_push.py",
        DEAD,
        ("commands: made anew", "self.renew(self._endpoints)", "pass"),
        ("commands: those that arrive", "if 0.0 <= age_ms <= ARRIVES_MS:", "if False:"),
        ("commands: none that ever arrived", "if 0.0 <= age_ms <= ARRIVES_MS:", "if age_ms <= ARRIVES_MS:"),
        ("commands: late ones", "if 0.0 <= age_ms <= ARRIVES_MS:", "if 0.0 <= age_ms:"),
        ("commands: on one computer", "elif self._endpoints.over_network(self.name) and self._since_ns", "elif self._since_ns"),
        ("commands: while they are sent", "and self._since_ns and now", "and now"),
        ("commands: time for the handshake", " and now > self._not_before_ns:", ":"),
        ("commands: keys that cannot be read", "contextlib.suppress(EndpointError)", "contextlib.suppress(KeyError)"),
    ),
    *of(
        "robot_bridge/protocol/sockets.py",
        DEAD,
        ("commands: the old connection stays", "self.socket = old\n            raise", "raise"),
    ),
    *of(
        "app/console/client.py",
        "tests/app/console/test_link_limits.py",
        ("commands: whose arrive", "if message.commander == self.sender else 0.0", ""),
        ("commands: told of", "self._command_out.arrived(", "float("),
    ),
    *of(
        "robot_bridge/protocol/client.py",
        "tests/robot_bridge/test_remote.py::test_a_clock_that_jumps_is_known_with_the_next_answer",
        ("clock: a jump", "                self.forget()\n", "                pass\n"),
        ("clock: slow ways", "> (round_trip + best_trip) // 2 + DRIFT_NS", "> DRIFT_NS"),
        ("clock: drift", "DRIFT_NS = 5_000_000", "DRIFT_NS = 0"),
        ("clock: drift, small", "DRIFT_NS = 5_000_000", "DRIFT_NS = 50_000_000"),
    ),
    *of(
        "robot_bridge/protocol/client.py",
        DEAD,
        ("clock: another bridge", "if envelope.reply.session != self._session:", "if False:"),
    ),
    *of(
        "app/console/controller.py",
        "tests/app/console/test_old_pictures.py",
        (
            "pictures: how long they have been here",
            "max(there_ns - frames[name].t_source_ns, now_ns - arrived_ns.get(name, now_ns))",
            "(there_ns - frames[name].t_source_ns)",
        ),
        (
            "pictures: their way here",
            "max(there_ns - frames[name].t_source_ns, now_ns - arrived_ns.get(name, now_ns))",
            "(now_ns - arrived_ns.get(name, now_ns))",
        ),
    ),
    *of(
        "app/console/client.py",
        "tests/app/console/test_link_limits.py",
        ("blind: held", " and not (self.blind and state.mode is Mode.TAKEOVER)", ""),
        ("blind: in a takeover", "(self.blind and state.mode is Mode.TAKEOVER)", "self.blind"),
    ),
    *of(
        "app/console/sight.py",
        "tests/app/console/test_old_pictures.py",
        ("blind: who sees it", "if spec is None or sees_robot(config, spec):", "if spec is None:"),
        ("blind: elsewhere", " and spec.simulated and not config.connect", " and spec.simulated"),
        ("blind: a real robot", " and spec.simulated and not", " and not"),
        ("blind: no picture ever", 'ages_ms.get(camera.name, float("inf"))', "ages_ms.get(camera.name, 0.0)"),
        ("blind: how long", "PICTURE_DEAD_MS = 500.0", "PICTURE_DEAD_MS = 5000.0"),
    ),
    *of(
        "app/console/controller.py",
        "tests/app/console/test_old_pictures.py",
        ("blind: told", "client.blind = bool(dead)", "pass"),
        ("blind: may not begin", "(not dead and (not ages", "((not ages"),
        ("blind: goes on pressed", "self.devices.may_start = in_takeover or (", "self.devices.may_start = ("),
    ),
    *of(
        "robot_bridge/requests.py",
        MEANT,
        ("meant: what was shown", "meant = self._shown.meant\n", "pass\n"),
        ("meant: none was shown", "if not meant:\n                raise", "if False:\n                raise"),
        ("meant: the one that runs", 'episode.recorded and meant in ("", episode.id):', "episode.recorded:"),
        ("meant: one that waits", '"" if waits else meant)', "meant)"),
        ("meant: next, another one", "if shown is not None and shown.running != running and not request.discard:", "if False:"),
        ("meant: next, ended since", "shown.running != running and not", 'running not in ("", shown.running) and not'),
        ("meant: discard, what runs", "if running and (shown is None or shown.meant == running):", "if running:"),
        ("meant: discard, what ended", "if shown is not None and last is not None and last.id != shown.meant:", "if False:"),
        ("meant: by the request", "self._shown = item.shown", "self._shown = None"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        REPEATED,
        ("repeated stop: not again", "if not self._is_repeated(peer, envelope):", "if True:"),
        ("repeated stop: answered only", "if copy not in self._stops_done:", "if True:"),
        ("repeated stop: on one computer", "return bool(self._control.user) and self._greeted(peer)", "return self._greeted(peer)"),
        ("repeated stop: after a hello", "and self._greeted(peer) and envelope", "and envelope"),
        ("repeated stop: what it saw", " and envelope.newest_state_seq >= 0\n", "\n"),
        ("repeated stop: of which key", "copy = (self._control.user, envelope", 'copy = ("", envelope'),
        ("repeated stop: of which press", "envelope.request_id, envelope.newest_state_seq)\n", "0, envelope.newest_state_seq)\n"),
        ("repeated stop: of which state", "envelope.request_id, envelope.newest_state_seq)\n", "envelope.request_id, 0)\n"),
    ),
    *of(
        "robot_bridge/io.py",
        REPEATED,
        ("repeated stop: bounded", "deque(maxlen=REMEMBERED_STOPS)", "deque()"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        MEANT,
        ("meant: by the state", "self.episodes_shown.get(envelope.newest_state_seq)", "None"),
    ),
    *of(
        "robot_bridge/io.py",
        MEANT,
        ("meant: remembered", "self.episodes_shown.pop(self._state_seq - REMEMBERED_STATES, None)", "pass"),
    ),
    *of(
        "robot_bridge/status.py",
        MEANT,
        (
            "meant: being recorded",
            "running = episode.id if episode is not None and episode.recorded else",
            "running = episode.id if episode is not None else",
        ),
    ),
    *of(
        "app/console/client.py",
        "tests/app/console/test_link_limits.py",
        ("meant: said", "episode_id=episode_meant(self.state)", 'episode_id=""'),
    ),
    *of(
        "app/outcome_episode.py",
        "tests/app/console/test_link_limits.py",
        ("meant: between two", "state.episode_id if state.episode_id and state.mode in _RUNS else", "state.episode_id or"),
        ("meant: stopped and ended", "(state.mode is Mode.STOPPED and state.episode_id)", "state.mode is Mode.STOPPED"),
    ),
    *of(
        "app/outcome_episode.py",
        f"{MEANT}::test_a_key_at_a_stop_is_not_for_the_episode_before",
        ("meant: being stopped", " or (state.mode is Mode.STOPPED and state.episode_id):", ":"),
    ),
    *of(
        "app/processes/actor.py",
        "tests/policies/test_actor_process.py::test_its_answers_socket_is_told_whether_the_bridge_gets_them",
        ("commands: answers, told of", "answers.arrived(state.policy_age_ms)", "pass"),
    ),
]
