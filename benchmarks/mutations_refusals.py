"""Mutations of how refusals are counted and told."""

from benchmarks.mutation import Mutation, of

T = "tests/robot_bridge/test_"
TOLD = f"{T}refusals.py {T}io_limits.py"
RECORDABLE = f"{T}recordable.py"
REVOKED = f"{T}security.py::test_a_revoked_key_is_refused_while_it_is_connected"

REFUSALS: list[Mutation] = [
    *of(
        "robot_bridge/refusals.py",
        TOLD,
        ("refusal: once a second", "now_ns - self._noted.get(key, -NOTE_NS) < NOTE_NS or ", ""),
        ("refusal: whoever they come from", " or not self._room(now_ns):", ":"),
        ("refusal: some every second", "return self._notes <= MAX_NOTES", "return False"),
        ("refusal: bounded", "if len(self._since) >= MAX_KNOWN and key not in self._since:", "if False:"),
        ("refusal: long names", "key = (kind, refusal.sender[:MAX_SENDER],", "key = (kind, refusal.sender,"),
        ("refusal: at whatever place", '_DIGITS.sub("", refusal.field)', "refusal.field"),
        ("refusal: long names told", "{self.sender[:MAX_SENDER]}", "{self.sender}"),
        ("refusal: long reasons", "{self.limit[:MAX_LIMIT]}", "{self.limit}"),
        ("refusal: long values", "text if len(text) <= MAX_VALUE else", "text if text else"),
        ("refusal: how many", "count, self._since[key] = self._since[key], 0", "count, self._since[key] = 1, 0"),
    ),
    *of(
        "robot_bridge/io.py",
        TOLD,
        ("refusal: unreadable told", 'self.refusals.note("bad_message", refusal, time.monotonic_ns())', "pass"),
        ("refusal: keys told", 'self.refusals.note("client_refused", refusal, time.monotonic_ns())', "pass"),
        ("refusal: faults of answers", "if self.inbox.chunk.fault:", "if False:"),
        ("refusal: faults of people", 'self._refuse(Refusal(who, "action of the command", str(error), command.action), now)', "pass"),
        ("refusal: in its episode", "value=value, **self.where())", "value=value)"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        TOLD,
        ("refusal: requests told", "self._note_request(self._who_asks(peer, request.sender), request, error)", "pass"),
        ("refusal: requests of the loop told", "self._note_request(request.request.sender, request.request, error)", "pass"),
        ("refusal: requests counted", "self.refused_requests += 1", "pass"),
        ("refusal: another version told as answered", "if unread.protocol is None:", "if True:"),
        ("refusal: another version's sender", "who = self._who_asks(peer, unread.sender)", 'who = "somebody"'),
        ("view: age", "if not 0.0 <= request.age_ms < math.inf:", "if False:"),
        ("view: age a number", "if not 0.0 <= request.age_ms < math.inf:", "if request.age_ms < 0.0 or request.age_ms == math.inf:"),
        ("view: age finite", "0.0 <= request.age_ms < math.inf:", "0.0 <= request.age_ms:"),
        ("view: age not negative", "0.0 <= request.age_ms < math.inf:", "request.age_ms < math.inf:"),
    ),
    *of(
        "robot_bridge/protocol/codec.py",
        TOLD,
        ("unreadable: what is allowed", "if words:", "if False:"),
        ("unreadable: long words", "{reason[:MAX_WORDS]}", "{reason}"),
        ("unreadable: small ones looked into", "len(data) > MAX_LOOKED_INTO_BYTES or ", ""),
        ("unreadable: no secrets", 'path.rpartition(".")[2] == SECRET', "False"),
        ("unreadable: somewhere in a map", ' or "..." in path:', ":"),
        ("unreadable: looked into with care", "except (ValueError, TypeError, LookupError, RecursionError):", "except KeyError:"),
        ("unreadable: reason without its place", "made.reason = reason", "pass"),
    ),
    *of(
        "robot_bridge/protocol/allowed.py",
        TOLD,
        ("unreadable: types", "elif step[1] == tag_field:", "elif False:"),
        ("unreadable: which of many", "structs = [item for item in structs if item.tag == tag]", "structs = []"),
    ),
    *of(
        "robot_bridge/io.py",
        RECORDABLE,
        ("recordable: answers", "if refusal := recordable.answer_refusal(answer, who):", "if refusal := None:"),
        ("recordable: events", "if refusal := recordable.event_refusal(message, source):", "if refusal := None:"),
        ("recordable: devices", "if limit := recordable.device_limit(command):", 'if limit := "":'),
    ),
    *of(
        "robot_bridge/recordable.py",
        RECORDABLE,
        ("recordable: versions", "if not 0 <= (version := getattr(answer, field)) <= MAX_VERSION:", "if not (version := 1):"),
        ("recordable: versions in 32 bits", "MAX_VERSION = 2**31 - 1", "MAX_VERSION = 2**63 - 1"),
        ("recordable: rewards' versions", 'for field in ("policy_version", "reward_version"):', 'for field in ("policy_version",):'),
        ("recordable: long hashes", "len(answer.policy_sha256) > MAX_HASH or ", ""),
        ("recordable: hashes with NUL", ' or "\\0" in answer.policy_sha256:', ":"),
        ("recordable: spread", "if not math.isfinite(answer.spread):", "if False:"),
        ("recordable: how many scores", "if len(answer.scores) > MAX_SCORES:", "if False:"),
        ("recordable: empty and long names", "not 0 < len(name) <= MAX_SCORE_NAME or ", ""),
        ("recordable: dots", 'name in (".", "..") or ', ""),
        ("recordable: slashes", ' or "/" in name or ', " or "),
        ("recordable: names with NUL", ' or "\\0" in name:', ":"),
        ("recordable: scores", "if not math.isfinite(value):", "if False:"),
        ("recordable: long devices", "len(command.device_id) > MAX_DEVICE_ID or ", ""),
        ("recordable: devices with NUL", ' or "\\0" in command.device_id:', ":"),
        ("recordable: an event's number", "if not math.isfinite(event.value):", "if False:"),
    ),
    *of("robot_bridge/protocol/sockets.py", REVOKED, ("refusal: revoked keys", "self.on_revoked(self.user)", "pass")),
    *of("robot_bridge/bridge.py", TOLD, ("refusal: its episode", "self.io.where = self.control.where", "pass")),
]
