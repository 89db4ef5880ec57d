"""A bridge for a toy robot, a point on a table: docs/protocol.md with nothing but pyzmq and msgpack.

python examples/minimal_bridge.py SOCKET_FOLDER [CONTROL_HZ]
"""
# Written compactly, to be read in one go: guards stand on one line.
# ruff: noqa: E401, E701, I001
# fmt: off
import fcntl, math, os, secrets, sys, time
from collections import deque
from contextlib import ExitStack
import msgpack, zmq

HZ, A, TABLE = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0, 2, 0.3  # control rate; size of an action; half the table, m
PERIOD, SCALE, RAMP = 1 / HZ, 0.2 / HZ, max(1, round(0.15 * HZ))  # s; m per step at full deflection; steps of the human command's ramp
T_CMD, MOVING = min(max(3 * PERIOD, 0.12), 0.2), ("policy", "takeover", "hold")  # s that a human command lives; modes of a running episode
SPEC = {"robot_id": "point", "task_id": "reach", "prompt": "Reach the goal", "control_hz": HZ, "max_steps": round(5 * HZ), "cameras": [],
        "action": {"kind": "ee_delta", "frame": "base", "names": ["x", "y"], "units": ["m", "m"], "scale": [SCALE] * A, "gripper": "none",
                   "groups": [{"name": "arm", "start": 0, "stop": A}]}, "simulated": True, "has_watchdog": True, "can_reset": True,
        "observation": {"names": ["x", "y", "to_goal_x", "to_goal_y"], "units": ["m"] * 4}, "workspace_low": [-TABLE] * 3, "workspace_high": [TABLE] * 3}
STATE = {"type": "state", "force_n": [0.0] * 3, "tool_velocity": [0.0] * 3, "human_action": None, "policy_action": None, "picture_age_ms": {},
         "episode_max_steps": SPEC["max_steps"], "safety_counts": {}, "speed_scale": 1.0, "tool_yaw": 0.0, "gripper_width_m": 0.0, **dict.fromkeys(
         ("intervention_id", "takeovers", "human_steps", "train_steps", "steps_dropped", "steps_late", "lateness_p99_ms", "resumes", "episode_time_s"), 0)}
# What may move the robot has only known fields, of the right type. "?": may be left out.
TYPES = {"s": str, "i": int, "b": bool, "l": list}
FIELDS = {"command": "session:s seq:i lease:s device_id:s device_kind:s device_alive:b deadman:b neutral:b focused:b gui_alive:b action:l "
                     "authority:l newest_state_seq:i for_step_seq:i?", "hello": "protocol:i role:s software:s", "stop": "reason:s?",
          "lease": "release:b? device_kind:s?", "start": "kind:s episodes:i?", "finish": "now:b?", "set_outcome": "outcome:s episode_id:s?",
          "next": "discard:b?", "hold": "", "resume": "", "clear": ""}
ALLOWED = {"start": ["ready"], "hold": MOVING, "resume": ["hold"], "clear": ["stopped"], "set_outcome": MOVING, "next": MOVING}  # in which modes
SOCKETS = {"state": (zmq.PUB, -1), "observation": (zmq.PUB, -1), "command": (zmq.PULL, 1 << 16), "policy_action": (zmq.PULL, 1 << 22),
           "control": (zmq.ROUTER, 1 << 16), "record": (zmq.ROUTER, 1 << 16)}  # pattern, most bytes of a message

def checked(message):
    fields = dict(field.split(":") for field in ["type:s", "sender:s", *FIELDS[message["type"]].split()])
    for name in {*message, *fields}:
        good = name in fields and (type(message[name]) is TYPES[fields[name][0]] if name in message else "?" in fields[name])
        if not good: raise ValueError(f"{message['type']}: field {name!r} is unknown, missing or of the wrong type")
    return message

def faulty(row):
    return len(row) != A or not all(type(value) in (int, float) and math.isfinite(value) for value in row)

class Bridge:
    """One thread: `run` receives, sends the state, and makes a step (`tick`, then `decide`) every period."""
    def __init__(self, folder):
        self.session, self.sockets, self.poller, self.locks = secrets.token_hex(13), {}, zmq.Poller(), ExitStack()
        os.makedirs(folder, mode=0o700, exist_ok=True)
        for name, (kind, limit) in SOCKETS.items():
            lock = self.locks.enter_context(open(f"{folder}/{name}.lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ZeroMQ would take the path from a living process without a word
            self.sockets[name] = socket = zmq.Context.instance().socket(kind)
            socket.setsockopt(zmq.MAXMSGSIZE, limit)
            socket.bind(f"ipc://{folder}/{name}.sock")
            self.poller.register(socket, zmq.POLLIN if kind != zmq.PUB else 0)
        self.mode, self.reason, self.since, self.flush, self.flushed_at, self.seq, self.step = "ready", "", 0, True, 0, -1, None
        self.peers, self.holder, self.owner, self.token, self.heard, self.refused = {}, "", b"", "", 0.0, 0
        self.command, self.arrived, self.command_seq, self.states, self.state_seq = None, 0.0, -1, {}, 0
        self.armed, self.needs_neutral, self.ramp, self.ramp_from, self.late, self.undecided = False, True, 0, [0.0] * A, 0, False
        self.chunk, self.chunk_at, self.place, self.goal, self.action, self.source = None, 0.0, [0.0] * A, [0.1] * A, [0.0] * A, 0
        self.size, self.blocks, self.done, self.end, self.last, self.number = -1, 0, 0, None, (None, ""), 0  # size -1: no block of episodes
        self.episode, self.steps, self.run_id, self.records, self.rec_seq, self.next_send = "", 0, 0, deque(), 0, 0
        self.recorder, self.recorder_at, self.ack = None, 0.0, {}
    # --- what arrives ---
    def send(self, name, message, *peer):
        self.sockets[name].send_multipart([*peer, name.encode() + b"\0" + msgpack.packb(message)])
    def receive(self, socket):
        name = next(name for name, known in self.sockets.items() if known is socket)
        (*peer, data), request_id, reply = socket.recv_multipart(), -1, {}
        try:
            message = msgpack.unpackb(data.removeprefix(name.encode() + b"\0"))
            if name == "control":
                request_id, request = message["request_id"], checked(message["request"])
                reply = self.on_control(peer[0], request["type"], request) or {}
            else: {"command": self.on_command, "policy_action": self.on_answer, "record": self.on_record}[name](message, *peer)
        except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
            self.refused, reply = self.refused + 1, {"error": str(error) or "bad message"}
        if name == "control":
            self.send(name, {"request_id": request_id, "reply": {"type": "reply", "session": self.session, "protocol": 1, **reply}}, *peer)
    def held_by(self): return self.holder if time.monotonic() - self.heard <= 0.5 else ""
    def recorder_lives(self): return time.monotonic() - self.recorder_at <= 0.5 and not self.ack.get("error")
    def on_command(self, c):
        if checked(c)["session"] != self.session: raise ValueError("made for another session")
        if c["lease"] != self.token or not c["sender"] == self.held_by() != "": raise ValueError("sender does not hold the lease")
        if c["seq"] <= self.command_seq or set(c["authority"]) - {"arm"}: raise ValueError("old sequence number or unknown action group")
        self.command, self.command_seq, self.arrived, self.heard = c, c["seq"], time.monotonic(), time.monotonic()
    def on_answer(self, answer):
        if answer["session"] != self.session or not (self.chunk or {}).get("from_seq", -1) <= answer["from_seq"] <= self.seq:
            raise ValueError("made for another session, overtaken, or to an observation that was never sent")
        answer["fault"] = not 1 <= len(answer["actions"]) <= 1024 or any(faulty(row) for row in answer["actions"])
        self.chunk, self.chunk_at = answer, time.monotonic()
    def on_record(self, message, peer):
        acked, self.recorder_at = message["acked_rec_seq"] if message["session"] == self.session else -1, time.monotonic()
        if message["type"] == "recorder_hello" or peer != self.recorder: self.recorder, self.next_send = peer, acked + 1
        while self.records and self.records[0][0] <= acked: self.records.popleft()
        if message["type"] == "record_ack": self.ack = message
    def on_control(self, peer, kind, r):
        sender, role = self.peers.get(peer, (r["sender"], ""))
        if kind == "stop":
            self.end = ("aborted", "stop")
            return self.change("stopped")
        if kind == "hello":
            if r["protocol"] != 1: raise ValueError(f"protocol {r['protocol']} asked for, this bridge speaks 1")
            self.peers[peer] = (r["sender"], r["role"])
            return {"spec": SPEC}
        if not role: raise ValueError("say hello first")
        if role != "operator" and kind != "hold": raise ValueError(f"role {role} may not ask for {kind}")
        if self.held_by() not in ("", sender) and kind in ("lease", "resume", "clear", "set_outcome", "next"):
            raise ValueError(f"{self.held_by()} holds the lease")
        if self.mode not in ALLOWED.get(kind, [self.mode]): raise ValueError(f"{kind} is not possible in mode {self.mode}")
        if kind == "lease":
            if r.get("release") or (self.held_by(), self.owner) != (sender, peer):  # given anew: what was commanded before is void
                self.holder, self.owner, self.token = ("", b"", "") if r.get("release") else (sender, peer, secrets.token_hex(8))
                self.command, self.command_seq, self.armed, self.needs_neutral = None, -1, False, True
            self.heard = time.monotonic()
            return {"lease": self.token}
        if kind == "start":
            if r["kind"] != "policy": raise ValueError("not supported: this bridge makes policy episodes only")
            if not self.chunk or not self.recorder_lives(): raise ValueError("the actor has no policy yet, or the recorder is silent")
            self.size, self.blocks, self.done = r.get("episodes", 0), self.blocks + 1, 0
            self.change("resetting")
        if kind == "resume" and self.held_by() and not (self.command or r).get("neutral", True): raise ValueError("centre the device first")
        if kind in ("resume", "clear"): self.change("policy" if kind == "resume" else "ready")
        if kind == "hold": self.change("hold", "operator")
        if kind == "finish": self.size = self.done + 1
        if kind == "next" or r.get("now"): self.end = ("aborted", "next")
        if kind == "set_outcome": self.end = (r["outcome"], "operator")
    # --- the robot, its episodes and who drives ---
    def change(self, mode, reason=""):
        if mode == self.mode: return
        self.record("event", kind="mode", source="bridge", text=f"{self.mode} -> {mode} {reason}", seq=self.seq)
        if "hold" in (mode, self.mode): self.armed, self.needs_neutral, self.run_id = False, True, self.run_id + (mode != "hold")
        self.mode, self.reason, self.since, self.flush, self.late = mode, reason, time.monotonic_ns(), True, 0
    def record(self, tag, **fields):
        common = {"type": tag, "session": self.session, "rec_seq": self.rec_seq, "episode_id": self.episode, "t_ns": time.monotonic_ns()}
        self.records.append((self.rec_seq, b"record\0" + msgpack.packb({**common, "wall_ns": time.time_ns(), **fields})))
        self.rec_seq += 1
    def tick(self):
        """Complete step k - 1 with what is seen now, end and begin episodes, ask the policy about step k."""
        seen, reached = [*self.place, *(goal - at for goal, at in zip(self.goal, self.place, strict=True))], math.dist(self.goal, self.place) < 0.01
        if self.step:
            moved, last = self.step["mode"] != "hold", self.steps + 1 >= SPEC["max_steps"]
            if moved: self.end = self.end or (("success", "task") if reached else ("failure", "limit") if last else None)
            ended = bool(self.end) and self.end[1] in ("task", "operator")
            self.record("step", **self.step, next_observation=seen, terminated=ended, truncated=bool(self.end and not ended))
            self.steps, self.step = self.steps + moved, None
        if self.end and self.episode:
            self.record("episode_end", outcome=self.end[0], outcome_source=self.end[1], event_step=max(0, self.steps - 1), steps=self.steps,
                        human_steps=0, takeovers=0, autonomous=False)
            self.done, self.last, self.episode, self.action, self.source = self.done + 1, (self.end[0], self.episode), "", [0.0] * A, 0
            if self.mode != "stopped": self.change("ready" if self.done == self.size else "resetting")
        self.size, self.end = self.size if self.mode not in ("ready", "stopped") else -1, None
        if self.mode == "resetting":
            self.number, self.place, self.goal = self.number + 1, [0.0] * A, [0.2 * math.cos(self.number), 0.2 * math.sin(self.number)]
            seen, self.episode, self.steps, self.run_id = [*self.place, *self.goal], secrets.token_hex(13), 0, 0
            self.record("episode_start", number=self.number - 1, kind="policy", spec=SPEC, station_id="example", operator="", start_seed=0,
                        policy_version=self.chunk["policy_version"], policy_sha256="", config_sha256="")
            self.change("policy")
        self.seq, self.undecided, self.seen, self.seen_ns = self.seq + 1, True, seen, time.monotonic_ns()
        if self.flush: self.flushed_at = self.seq
        self.send("observation", {"type": "observation", "session": self.session, "seq": self.seq, "t_robot_ns": self.seen_ns, "mode": self.mode,
            "episode_id": self.episode, "episode_step": self.steps, "run_id": self.run_id, "observation": seen, "flush": self.flush})
        self.flush = False
    def row(self):
        """What the policy says about this step; None: nothing that counts."""
        if not self.chunk or not self.flushed_at <= self.chunk["from_seq"] <= self.seq: return None
        if self.chunk["fault"]: return "fault"
        i, rows = self.seq - self.chunk["from_seq"], self.chunk["actions"]
        return rows[min(i, len(rows) - 1)] if self.seq <= self.chunk["valid_until_seq"] and i < len(rows) + int(T_CMD / PERIOD) else None
    def decide(self):
        """Who drives this step, and with what."""
        c, policy, self.undecided = self.command, self.row(), False
        age = time.monotonic() - min(self.arrived, self.states.get(c["newest_state_seq"], 0.0)) if c else 1e9
        loss = "command_stale" if age > T_CMD or not c["gui_alive"] else "device_lost" if not c["device_alive"] else \
            "focus_lost" if c["device_kind"] == "keyboard" and not c["focused"] else "human_fault" if faulty(c["action"]) else ""
        if loss in ("command_stale", "device_lost"): self.armed, self.needs_neutral = False, True
        elif not loss and not c["deadman"] and (c["neutral"] or not self.needs_neutral): self.armed, self.needs_neutral = True, False
        if self.mode == "takeover" and (loss or not c["deadman"]): self.change("hold" if loss else "policy", loss)
        elif self.mode in ("policy", "hold") and not loss and c["deadman"] and self.armed:
            self.change("takeover")
            self.armed, self.ramp, self.ramp_from = False, RAMP, self.action
        if self.mode == "policy":
            waits = self.chunk and len(self.chunk["actions"]) > 1 and self.seq - self.flushed_at < HZ  # for a slow actor's first answer
            self.late = self.late + 1 if policy is None and not waits else 0
            loss = "lease_lapsed" if not self.held_by() else "policy_fault" if policy == "fault" else "policy_late" if self.late > 1 else ""
            if loss: self.change("hold", loss)
        if self.mode in ("policy", "takeover") and not self.recorder_lives(): self.change("hold", "recorder_lost")
        policy, asked, who, how = policy if policy != "fault" else None, [0.0] * A, 0, 3 if self.reason == "operator" else 4
        if self.mode == "policy": asked, who, how = policy or asked, int(policy is not None), 0
        if self.mode == "takeover":
            part, how, self.ramp = self.ramp / (RAMP + 1), 2 if self.ramp else 1, max(0, self.ramp - 1)
            asked, who = [(1 - part) * new + part * old for new, old in zip(c["action"], self.ramp_from, strict=True)], 2
        self.action, self.source = [min(max(value, -1.0), 1.0) for value in asked], who
        self.place = [min(max(at + SCALE * value, -TABLE), TABLE) for at, value in zip(self.place, self.action, strict=True)]
        if self.mode not in MOVING: return
        self.step = {"t_observation_ns": self.seen_ns, "t_decision_ns": time.monotonic_ns(), "t_applied_ns": time.monotonic_ns(), "seq": self.seq,
            "episode_step": self.steps, "train_step": -1, "run_id": self.run_id, "kind": "policy", "mode": self.mode, "control_mode": how,
            "hold_reason": self.reason, "observation": self.seen, "source": [who], "policy_action": policy,
            "policy_from_seq": self.chunk["from_seq"] if policy else -1, "policy_version": self.chunk["policy_version"] if policy else 0,
            "human_action": c["action"] if who == 2 else None, "asked_action": asked, "action": self.action}
    def state(self, now):
        self.states[self.state_seq] = now
        self.states.pop(self.state_seq - 128, None)
        self.send("state", {**STATE, "session": self.session, "seq": self.state_seq, "t_ns": time.monotonic_ns(), "mode": self.mode,
            "mode_since_ns": self.since, "hold_reason": self.reason, "hold_detail": "", "step_seq": self.seq, "source": [self.source],
            "observation": [*self.place, *self.goal], "tool_position": [*self.place, 0.0], "action": self.action, "commander": self.held_by(),
            "device_id": (self.command or {}).get("device_id", ""), "command_age_ms": (now - self.arrived) * 1e3 if self.command else -1.0,
            "policy_age_ms": (now - self.chunk_at) * 1e3 if self.chunk else -1.0, "episode_id": self.episode, "episode_step": self.steps,
            "episode_kind": "policy" if self.episode else None, "episode_number": self.number - 1, "block_done": self.done,
            "block_size": max(self.size, 0), "block_number": self.blocks, "block_running": self.size >= 0, "last_outcome": self.last[0],
            "last_outcome_episode": self.last[1], "policy_version": self.chunk["policy_version"] if self.chunk else 0, "steps_total": self.seq,
            "record_backlog": len(self.records), "recorder_age_ms": (now - self.recorder_at) * 1e3 if self.recorder_at else -1.0,
            "disk_free_bytes": self.ack.get("disk_free_bytes", -1), "refused_commands": self.refused,
            "gate": {"recorder": "" if self.recorder_lives() else "no recorder", "command_echo": "" if self.command else "no commands arrive"}})
        self.state_seq += 1
    def run(self):
        state_due = tick_due = time.monotonic()
        while True:
            for socket, _ in self.poller.poll(2): self.receive(socket)
            now = time.monotonic()
            if self.undecided and (self.row() is not None or now >= tick_due - 0.3 * PERIOD): self.decide()
            if now >= tick_due:
                tick_due = max(tick_due + PERIOD, now)
                self.tick()
            if now >= state_due: state_due = now + 0.02 if self.state(now) is None else now
            for rec_seq, frame in list(self.records) if self.recorder else ():
                if rec_seq >= self.next_send:
                    self.sockets["record"].send_multipart([self.recorder, frame])
                    self.next_send = rec_seq + 1

Bridge(sys.argv[1]).run()
