"""A bridge for a toy robot, a point on a table (docs/protocol.md). Usage: python examples/minimal_bridge.py SOCKET_FOLDER [CONTROL_HZ]"""

# ruff: noqa: B905, E401, E701, E702, I001, SIM905, C408
# fmt: off
import fcntl, math, os, secrets, sys, time, msgpack, zmq
HZ, A, TABLE = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0, 2, 0.3  # control rate; size of an action; half the table, m
PERIOD, SCALE, RAMP = 1 / HZ, 0.2 / HZ, max(1, round(0.15 * HZ))  # s; m per step at full deflection; steps of the human command's ramp
T_CMD, MOVING = min(max(3 * PERIOD, 0.12), 0.2), ("policy", "takeover", "hold")  # s that a human command lives; modes of a running episode
SPEC = {"robot_id": "point", "task_id": "reach", "prompt": "Reach the goal", "control_hz": HZ, "max_steps": round(5 * HZ), "cameras": [],
        "action": {"kind": "ee_delta", "frame": "base", "names": ["x", "y"], "units": ["m", "m"], "scale": [SCALE] * A, "gripper": "none",
        "groups": [{"name": "arm", "start": 0, "stop": A}]}, "simulated": True, "has_watchdog": True, "can_reset": True,
        "observation": {"names": ["x", "y", "to_goal_x", "to_goal_y"], "units": ["m"] * 4}, "workspace_low": [-TABLE, -TABLE, 0.0],
        "workspace_high": [TABLE, TABLE, 0.0]}
ZERO = "takeovers human_steps train_steps steps_total steps_dropped steps_late lateness_p99_ms resumes tool_yaw episode_time_s".split()
STATE = {"type": "state", "force_n": [0.0] * 3, "tool_velocity": [0.0] * 3, "human_action": None, "policy_action": None, "hold_detail": "",
         "picture_age_ms": {}, "safety_counts": {}, "speed_scale": 1.0, "intervention_id": -1, "episode_max_steps": SPEC["max_steps"]}
TYPES, DEVICE = {"s": str, "i": int, "b": bool, "m": dict, "l": list}, "keyboard|gamepad|spacemouse|scripted|leader|none"
MESSAGES = {"control": "type:ControlEnvelope? request_id:i request:m newest_state_seq:i?",  # types or values; "?": may be left out
            "record": "type:recorder_hello|record_ack session:s acked_rec_seq:i disk_free_bytes:i? error:s?",
            "policy_action": "type:policy_action session:s from_seq:i actions:rows valid_until_seq:i policy_version:i",
            "command": f"type:command session:s sender:s seq:i lease:s device_id:s device_kind:{DEVICE} device_alive:b deadman:b neutral:b "
                       "focused:b gui_alive:b action:row authority:l newest_state_seq:i for_step_seq:i?"}
REQUESTS = {"hello": "protocol:i role:observer|labeler|operator|learner software:s", "stop": "reason:s?", "hold": "", "resume": "",
            "start": "kind:demonstration|policy|evaluation|manual_reset episodes:i? unattended:b? max_failures:i?", "finish": "now:b?",
            "lease": "release:b? device_kind:s?", "set_outcome": "outcome:success|failure episode_id:s?", "next": "discard:b?", "clear": ""}
RUN, PLAN, REPEATS = (*MOVING, "resetting"), int(3 * HZ), int(T_CMD / PERIOD)  # modes of a block; steps of a plan, of its last row
ALLOWED = {"start": ["ready"], "finish": RUN, "hold": RUN, "resume": ["hold"], "clear": ["stopped"], "set_outcome": MOVING, "next": MOVING}
SOCKETS = {"state": (zmq.PUB, -1), "observation": (zmq.PUB, -1), "command": (zmq.PULL, 1 << 16), "policy_action": (zmq.PULL, 1 << 16),
           "control": (zmq.ROUTER, 1 << 16), "record": (zmq.ROUTER, 1 << 16)}  # pattern, most bytes of a message
def need(good, why):  # whatever else is raised while a message is dealt with: it cannot be read
    if not good: raise RuntimeError(why)
def fits(value, kind):
    if kind[:3] == "row": return type(value) is list and all(fits(v, "row") if kind == "rows" else type(v) in (int, float) for v in value)
    return type(value) is TYPES[kind] if kind in TYPES else value in kind.split("|")
def checked(message, what, strict=True):  # unknown fields are refused in what may move the robot
    fields = dict(field.split(":") for field in (MESSAGES.get(what) or f"type:{what} sender:s {REQUESTS[what]}").split())
    for name in {*message, *fields} if strict else fields:
        good = name in fields and (fits(message[name], fields[name].strip("?")) if name in message else "?" in fields[name])
        if not good: raise ValueError(f"{what}: field {name!r} is unknown, missing or of the wrong type")
def faulty(row): return len(row) != A or not all(math.isfinite(value) for value in row)
class Bridge:
    def __init__(self, folder):
        self.session, self.sockets, self.poller = secrets.token_hex(13), {}, zmq.Poller(); os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, (kind, limit) in SOCKETS.items():
            fcntl.flock(os.open(f"{folder}/{name}.lock", os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX | fcntl.LOCK_NB)  # one bridge only
            self.sockets[name] = socket = zmq.Context.instance().socket(kind)
            socket.setsockopt(zmq.MAXMSGSIZE, limit); socket.bind(f"ipc://{folder}/{name}.sock")
            self.poller.register(socket, zmq.POLLIN if kind != zmq.PUB else 0)
        self.mode, self.reason, self.flush, self.flushed_at, self.seq, self.step, self.undecided = "ready", "", True, 0, -1, None, False
        self.peers, self.holder, self.owner, self.token, self.heard, self.refused, self.states, self.steps = {}, "", b"", "", 0.0, 0, [], 0
        self.command, self.arrived, self.command_seq, self.armed, self.needs_neutral, self.late, self.pause = None, 0, -1, False, True, 0, 0
        self.place, self.goal, self.action, self.chunk, self.chunk_at, self.source = [0.0] * A, [0.1] * A, [0.0] * A, None, 0.0, 0
        self.size, self.blocks, self.done, self.end, self.last, self.number, self.episode, self.auto = -1, 0, 0, None, (None, ""), 0, "", 0
        self.rec_seq = self.next_send = self.run_id = self.bad = self.recorder_at = 0; self.records, self.recorder, self.ack = [], None, {}
    def send(self, name, message, *peer): self.sockets[name].send_multipart([*peer, name.encode() + b"\0" + msgpack.packb(message)])
    def receive(self, socket):
        name, (*peer, data), request_id = next(name for name in self.sockets if self.sockets[name] is socket), socket.recv_multipart(), -1
        try:
            message = msgpack.unpackb(data.removeprefix(name.encode() + b"\0")); request_id = message.get("request_id", -1)
            if name != "control": checked(message, name, strict=name == "command")
            need(name in ("control", "record") or message["session"] == self.session, "made for another session")
            reply = getattr(self, "on_" + name)(message, *peer)
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
            refused = type(error) is RuntimeError; self.refused += refused; self.bad += not refused; reply = {"error": f"refused: {error}"}
        reply = {"type": "reply", "session": self.session, **(reply or {})}
        if name == "control": self.send(name, {"request_id": request_id if type(request_id) is int else -1, "reply": reply}, *peer)
    def held_by(self): return self.holder if time.monotonic() - self.heard <= 0.5 else ""
    def age(self): return time.monotonic() - min(self.arrived, dict(self.states).get((self.command or {}).get("newest_state_seq"), 0.0))
    def recorder_lives(self): return time.monotonic() - self.recorder_at <= 0.5 and not self.ack.get("error")
    def on_command(self, c):
        need(c["lease"] == self.token and c["sender"] == self.held_by() != "", "sender does not hold the lease")
        need(c["seq"] > self.command_seq and set(c["authority"]) <= {"arm"}, "old sequence number or unknown action group")
        if c["device_id"] != (self.command or c)["device_id"] and self.mode != "policy": self.armed, self.needs_neutral = False, True
        self.command, self.command_seq = c, c["seq"]; self.arrived = self.heard = time.monotonic(); self.refused += faulty(c["action"])
    def on_policy_action(self, answer):
        need((self.chunk or {}).get("from_seq", -1) <= answer["from_seq"] <= self.seq, "overtaken, or to what was never sent")
        answer["fault"] = not 1 <= len(answer["actions"]) <= 1024 or any(faulty(row) for row in answer["actions"])
        self.chunk, self.chunk_at = answer, time.monotonic()
    def on_record(self, message, peer):
        acked, self.recorder_at = message["acked_rec_seq"] if message["session"] == self.session else -1, time.monotonic()
        if message["type"] == "recorder_hello" or peer != self.recorder: self.recorder, self.next_send = peer, acked + 1
        need(acked < self.rec_seq, "acknowledges what was never sent"); self.records = [kept for kept in self.records if kept[0] > acked]
        if message["type"] == "record_ack": self.ack = message
    def on_control(self, envelope, peer):
        r, kind = envelope["request"], envelope["request"]["type"]; person = r.get("device_kind") != "scripted" and not r.get("release")
        need(kind != "hello" or r.get("protocol") == 1, f"protocol {r.get('protocol')} asked for, this bridge speaks 1")
        need(kind in REQUESTS, f"request {kind!r} is not supported"); checked(envelope, "control"); checked(r, kind)
        if kind == "stop": self.end, self.size = ("aborted", "stop"), -1; return self.change("stopped")  # the block, too
        if kind == "hello": self.peers[peer] = (r["sender"], r["role"]); return {"spec": SPEC}
        need(peer in self.peers, "say hello first"); sender, role = self.peers[peer]
        need(kind == "hold" or (r["sender"] == sender and role == "operator"), f"{sender}, role {role}: not for you, or not your name")
        need(kind in "start finish hold" or not self.held_by() or self.owner == peer or (self.auto and person), f"{self.holder} holds it")
        seen = {-1: 1e9, **dict(self.states)}.get(envelope.get("newest_state_seq", -1), 0.0)  # when the state was sent; -1: watches none
        need(kind in ("hold", "lease") or time.monotonic() - seen <= 1.0, f"{kind} was asked more than a second ago")
        need(self.mode in ALLOWED.get(kind, [self.mode]) and r.get("episode_id", "") in ("", self.episode), f"not possible in {self.mode}")
        if kind == "lease":
            if r.get("release") or (self.held_by(), self.owner) != (sender, peer):  # given anew: what was commanded before is void
                self.holder, self.owner, self.token = ("", b"", "") if r.get("release") else (sender, peer, secrets.token_hex(8))
                self.command, self.command_seq, self.armed, self.needs_neutral = None, -1, False, True
            self.heard = time.monotonic(); self.auto = r.get("device_kind") == "scripted"; return {"lease": self.token}
        if kind == "start":
            need(r["kind"] == "policy" and not r.get("unattended"), "not supported: this bridge makes attended policy episodes only")
            need(self.chunk and self.recorder_lives(), "the actor has no policy yet, or the recorder is silent")
            self.size, self.blocks, self.done = r.get("episodes", 0), self.blocks + 1, 0
        need(kind != "resume" or not self.held_by() or (self.age() <= T_CMD and self.command["neutral"]), "centre the device and command")
        self.change(*dict(start=["resetting"], resume=["policy"], clear=["ready"], hold=["hold", "operator"]).get(kind, [self.mode]))
        self.pause, self.size = kind == "hold", self.done + 1 if kind == "finish" else self.size  # the newest wish outlasts an episode
        if kind in ("next", "set_outcome") or r.get("now"): self.end = (r["outcome"], "operator") if "outcome" in r else ("aborted", "next")
    def change(self, mode, reason=""):
        if mode == self.mode or (self.mode, mode) == ("resetting", "hold"): return  # held as soon as the start state is made
        self.record("event", kind="mode", source="bridge", text=f"{self.mode} -> {mode} {reason}", seq=self.seq)
        if "hold" in (mode, self.mode): self.armed, self.needs_neutral, self.run_id = False, True, self.run_id + (mode != "hold")
        self.mode, self.reason, self.flush, self.late = mode, reason, True, 0
    def record(self, tag, **fields):
        common = {"type": tag, "session": self.session, "rec_seq": self.rec_seq, "episode_id": self.episode, "t_ns": time.monotonic_ns()}
        self.records.append((self.rec_seq, b"record\0" + msgpack.packb({**common, "wall_ns": time.time_ns(), **fields}))); self.rec_seq += 1
    def tick(self):  # complete step k - 1 with what is seen now, end and begin episodes, ask the policy about step k
        seen, reached = [*self.place, *(goal - at for goal, at in zip(self.goal, self.place))], math.dist(self.goal, self.place) < 0.01
        if self.step:
            moved, last = self.step["mode"] != "hold", self.steps + 1 >= SPEC["max_steps"]
            if moved: self.end = self.end or (("success", "task") if reached else ("failure", "limit") if last else None)
            ended = bool(self.end) and self.end[1] in ("task", "operator")
            self.record("step", **self.step, next_observation=seen, terminated=ended, truncated=bool(self.end and not ended))
            self.steps, self.step = self.steps + moved, None
        if self.end and self.episode:
            self.record("episode_end", outcome=self.end[0], outcome_source=self.end[1], event_step=max(0, self.steps - 1), steps=self.steps,
                        human_steps=0, takeovers=0, autonomous=False); self.done += self.mode != "resetting"  # none begun since STOP
            self.last, self.episode, self.action, self.source = (self.end[0], self.episode), "", [0.0] * A, 0
            if self.mode in MOVING: self.change("ready" if self.done == self.size else "resetting")
        self.size, self.end = self.size if self.mode not in ("ready", "stopped") else -1, None
        if self.mode == "resetting":
            self.number, self.place, self.goal = self.number + 1, [0.0] * A, [0.2 * math.cos(self.number), 0.2 * math.sin(self.number)]
            seen, self.episode, self.steps, self.run_id = [*self.place, *self.goal], secrets.token_hex(13), 0, 0
            self.record("episode_start", number=self.number - 1, kind="policy", spec=SPEC, station_id="example", operator="", start_seed=0,
                        policy_version=self.chunk["policy_version"], policy_sha256="", config_sha256=""); self.change("policy")
            if self.pause: self.change("hold", "operator")
        self.seq, self.flushed_at, self.undecided = self.seq + 1, self.seq + 1 if self.flush else self.flushed_at, True
        self.seen = {"seq": self.seq, "mode": self.mode, "episode_step": self.steps, "run_id": self.run_id, "observation": seen}
        self.send("observation", {**self.seen, "type": "observation", "session": self.session, "t_robot_ns": time.monotonic_ns(),
                                  "episode_id": self.episode, "flush": self.flush}); self.flush = False
    def row(self):  # what the policy says about this step; None: nothing that counts
        if not self.chunk or not (self.seq if self.flush else self.flushed_at) <= self.chunk["from_seq"] <= self.seq: return None
        i, rows, valid = self.seq - self.chunk["from_seq"], self.chunk["actions"][:PLAN], self.seq <= self.chunk["valid_until_seq"]
        return "fault" if self.chunk["fault"] else rows[min(i, len(rows) - 1)] if valid and i < len(rows) + REPEATS else None
    def decide(self):  # who drives this step, and with what
        c, policy, age, self.undecided = self.command, self.row(), self.age(), False
        loss = "command_stale" if age > T_CMD or not c["gui_alive"] else "device_lost" if not c["device_alive"] else \
            "focus_lost" if c["device_kind"] == "keyboard" and not c["focused"] else "human_fault" if faulty(c["action"]) else ""
        wants, nobody = loss not in ("", "command_stale") and c["deadman"], loss == "device_lost" and c["device_kind"] != "scripted"
        if wants or loss in ("command_stale", "device_lost"): self.armed, self.needs_neutral = False, True  # nor is that press good later
        elif not loss and not c["deadman"] and (c["neutral"] or not self.needs_neutral): self.armed, self.needs_neutral = True, False
        if self.mode == "takeover" and (loss or not c["deadman"]): self.change("hold" if loss else "policy", loss); policy = self.row()
        elif self.mode in ("policy", "hold") and not loss and c["deadman"] and self.armed:
            self.change("takeover"); self.armed, self.pause, self.ramp, self.ramp_from = False, False, RAMP, self.action
        if self.mode == "policy":
            waits = self.chunk and len(self.chunk["actions"]) > 1 and self.seq - self.flushed_at < HZ  # for a slow actor
            self.late = self.late + 1 if policy is None and not waits else 0
            gone = "lease_lapsed" if not self.held_by() else "not_present" if c and (age > 0.5 or not c["gui_alive"]) else ""
            loss = gone or (loss if wants or nobody else "policy_fault" if policy == "fault" else "policy_late" if self.late > 1 else "")
            if loss: self.change("hold", loss)
        if self.mode in ("policy", "takeover") and not self.recorder_lives(): self.change("hold", "recorder_lost")
        policy, asked, who, how = policy if policy != "fault" else None, [0.0] * A, 0, 3 if self.reason == "operator" else 4
        if self.mode == "policy": asked, who, how = policy or asked, int(policy is not None), 0
        if self.mode == "takeover":
            part, how, self.ramp = self.ramp / (RAMP + 1), 2 if self.ramp else 1, max(0, self.ramp - 1)
            asked, who = [(1 - part) * new + part * old for new, old in zip(c["action"], self.ramp_from)], 2
        self.action, self.source = [min(max(value, -1.0), 1.0) for value in asked], who
        self.place = [min(max(at + SCALE * value, -TABLE), TABLE) for at, value in zip(self.place, self.action)]
        if self.mode in MOVING:
            stamps = dict.fromkeys(("t_observation_ns", "t_decision_ns", "t_applied_ns"), time.monotonic_ns())
            self.step = {**self.seen, **stamps, "train_step": -1, "mode": self.mode, "kind": "policy", "control_mode": how, "source": [who],
                "hold_reason": self.reason, "policy_action": policy, "policy_from_seq": self.chunk["from_seq"] if policy else -1,
                "policy_version": self.chunk["policy_version"] if policy else 0, "asked_action": asked, "action": self.action,
                "human_action": c["action"] if who == 2 else None}
    def state(self, now):
        age, seq = lambda there, since: (now - since) * 1e3 if there else -1.0, self.states[-1][0] + 1 if self.states else 0
        self.states = [*self.states[-127:], (seq, now)]  # when each was sent: how old a command is, without comparing clocks
        chunk = self.chunk or {}; self.send("state", {**STATE, **dict.fromkeys(ZERO, 0), "session": self.session, "seq": seq,
            "mode": self.mode, "step_seq": self.seq, "action": self.action, "hold_reason": self.reason, "source": [self.source],
            "observation": self.seen["observation"], "tool_position": [*self.place, 0.0], "commander": self.held_by(), "gripper_width_m": 0,
            "policy_age_ms": age(chunk, self.chunk_at), "device_id": (self.command or {}).get("device_id", ""), "episode_id": self.episode,
            "episode_kind": "policy" if self.episode else None, "episode_number": self.number - 1, "episode_step": self.steps,
            "block_done": self.done, "block_size": max(self.size, 0), "block_number": self.blocks, "block_running": self.size >= 0,
            "last_outcome": self.last[0], "last_outcome_episode": self.last[1], "policy_version": chunk.get("policy_version", 0),
            "record_backlog": len(self.records), "refused_commands": self.refused, "recorder_age_ms": age(self.recorder, self.recorder_at),
            "disk_free_bytes": self.ack.get("disk_free_bytes", -1), "bad_messages": self.bad, "t_ns": int(now * 1e9), "mode_since_ns": 0,
            "command_age_ms": age(self.command, self.arrived), "gate": {"command_echo": "" if self.command else "no commands arrive"}})
    def run(self):
        state_due = tick_due = time.monotonic()
        while True:
            for socket, _ in self.poller.poll(2): self.receive(socket)
            now = time.monotonic()
            if self.undecided and (self.row() is not None or now >= tick_due - 0.3 * PERIOD): self.decide()
            if now >= tick_due: tick_due = max(tick_due + PERIOD, now) if self.tick() is None else now
            if now >= state_due: state_due = now + 0.02 if self.state(now) is None else now
            for rec_seq, frame in self.records if self.recorder else ():
                if rec_seq >= self.next_send: self.sockets["record"].send_multipart([self.recorder, frame])
            self.next_send = self.rec_seq if self.recorder else 0
Bridge(sys.argv[1]).run()
