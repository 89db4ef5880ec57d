"""Composes `State`, the 50 Hz heartbeat, from what the control thread last knew and what the I/O side knows now."""

from takeover.data.schema import Mode, State
from takeover.robot_bridge.control import ControlLoop
from takeover.robot_bridge.inbox import StateShown

MIN_FREE_BYTES = 1 << 30
LEARNER_SILENT_S = 3.0
COMMAND_GATE_MS = 200.0


class StatusBoard:
    """Reads attributes that the control thread replaces whole; called by the thread that owns the sockets."""

    def __init__(self, control: ControlLoop) -> None:
        self._control = control

    def compose(self, seq: int, now_ns: int) -> State | None:
        """The state message number ``seq``; None before the robot was read for the first time."""
        control = self._control
        holds = control.holds  # before the mode: a state that shows a hold too early is no harm, one that counts it too early is
        io, book, reading, mode = control.io, control.book, control.reading, control.mode
        if reading is None:
            return None
        stopped = io.inbox.stop_reason is not None
        episode = book.episode
        received = io.inbox.command
        records = io.records
        last = book.ended.last
        chunk = io.inbox.chunk
        policy_ns = chunk.arrival_ns if chunk is not None else 0
        newest_policy = chunk.answer if chunk is not None else None
        steps = episode.steps if episode is not None else 0
        recorder_ns = records.heartbeat_age_ns(now_ns)
        command_age_ms = min(received.age_s(now_ns), 3600.0) * 1000.0 if received is not None else -1.0
        running = episode.id if episode is not None and episode.recorded else ""
        io.states_shown[seq] = StateShown(running, last.id if last is not None else "", io.inbox.stops, holds)
        return State(
            session=io.session,
            seq=seq,
            t_ns=now_ns,
            mode=Mode.STOPPED if stopped else mode.mode,
            mode_since_ns=mode.since_ns,
            hold_reason=mode.reason,
            hold_detail=mode.detail,
            step_seq=control.seq,
            source=[int(source) for source in control.last_source],
            observation=reading.observation.tolist(),
            tool_position=reading.tool_position.tolist(),
            tool_velocity=reading.tool_velocity.tolist(),
            tool_yaw=reading.tool_yaw,
            gripper_width_m=reading.gripper_width_m,
            force_n=reading.force_n.tolist(),
            action=control.last_action.tolist(),
            human_action=control.last_human,
            policy_action=control.last_policy,
            commander=io.lease.holder(now_ns),
            device_id=received.command.device_id if received is not None else "",
            command_age_ms=command_age_ms,
            policy_age_ms=(now_ns - policy_ns) / 1e6 if policy_ns else -1.0,
            picture_age_ms=control.cameras.ages_ms(now_ns) if control.cameras is not None else {},
            speed_scale=control.active_speed_scale(),
            episode_id=episode.id if episode is not None else "",
            episode_kind=episode.kind if episode is not None else None,
            episode_number=episode.number if episode is not None else -1,
            episode_step=steps,
            episode_max_steps=control.max_steps,
            episode_time_s=steps * control.period_s,
            intervention_id=episode.intervention_id if episode is not None and episode.intervention_open else -1,
            takeovers=episode.takeovers if episode is not None else 0,
            human_steps=episode.human_steps if episode is not None else 0,
            block_done=book.block_done,
            block_size=book.block_size,
            last_outcome=last.outcome if last is not None else None,
            last_outcome_episode=last.id if last is not None else "",
            last_outcome_source=last.source.value if last is not None else "",
            policy_version=newest_policy.policy_version if newest_policy is not None else 0,
            train_steps=book.train_steps,
            steps_total=control.steps_total,
            steps_dropped=control.steps_dropped,
            steps_late=control.steps_late,
            lateness_p99_ms=control.lateness_p99_ms,
            safety_counts=dict(control.changed.counts),
            record_backlog=records.backlog,
            recorder_age_ms=recorder_ns / 1e6 if recorder_ns >= 0 else -1.0,
            disk_free_bytes=records.disk_free_bytes,
            resumes=control.resumes,
            block_number=book.block_number,
            block_running=book.block is not None,
            scores=newest_policy.scores if newest_policy is not None else {},
            policy_latency_ms=control.latency.latest_s * 1000.0 if control.latency.latest_s >= 0 else -1.0,
            refused_commands=io.refused_commands,
            unattended=control.unattended,
            probe=episode.probe if episode is not None else -1,
            probe_version=episode.probe_version if episode is not None else 0,
            failures=book.block.failures if book.block is not None else 0,
            max_failures=book.block.max_failures if book.block is not None else 0,
            bad_messages=io.bad_messages,
            refused_connections=io.refused_connections,
            refused_requests=io.refused_requests,
            last_refusal=io.refusals.last,
            last_refusal_age_ms=(now_ns - io.refusals.last_ns) / 1e6 if io.refusals.last else -1.0,
            recorder_notice=records.notice,
            gate=self._gate(now_ns, command_age_ms),
        )

    def _gate(self, now_ns: int, command_age_ms: float) -> dict[str, str]:
        """Start gate: item -> "" when passed, else what is missing."""
        control = self._control
        io = control.io
        records = io.records
        received = io.inbox.command
        gate = {"cameras": self._cameras(now_ns)}
        if control.config.operator != "none":
            if received is None or command_age_ms < 0:
                gate["command_echo"] = "no commands arrive"
            else:
                late = command_age_ms > COMMAND_GATE_MS and not control.lockstep
                gate["command_echo"] = f"the newest command is {command_age_ms:.0f} ms old" if late else ""
            gate["device_neutral"] = "" if received is None or received.command.neutral else "let the device come to rest"
        low = 0 <= records.disk_free_bytes < MIN_FREE_BYTES
        gate["disk"] = f"only {records.disk_free_bytes >> 20} MB free" if low else ""
        gate["recorder"] = records.error or records.trouble(now_ns)
        if control.config.learner != "none":
            silent = not io.inbox.learner_arrival_ns or now_ns - io.inbox.learner_arrival_ns > LEARNER_SILENT_S * 1e9
            gate["learner"] = "the learner is silent" if silent else ""
        if not control.policy_present():
            gate["policy"] = "no policy yet"
        else:
            gate["policy"] = "the actor is silent" if control.actor_silent(now_ns) else ""
        gate["watchdog"] = ""  # a robot without one of its own is driven slowly, not refused; the console says so
        return gate

    def _cameras(self, now_ns: int) -> str:
        cameras = self._control.cameras
        if cameras is None:
            return ""
        if cameras.error:
            return cameras.error
        if self._control.lockstep:
            return ""
        frozen = cameras.frozen(now_ns)
        return f"no new picture: {', '.join(frozen)}" if frozen else ""
