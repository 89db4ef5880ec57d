"""What the console does with acts and devices: between the pages and the link, without Qt.

It gives the link its devices (polled on the link thread) and answers acts of the pages (on the GUI thread).
"""

import threading
import time

from takeover.app.console.client import ConsoleClient, Notice
from takeover.app.console.devices import Devices
from takeover.app.console.just_now import JustNow
from takeover.app.console.models.episode import veto_of
from takeover.app.console.models.snapshot import LINK_LOST_MS, Snapshot
from takeover.app.console.sight import PICTURE_DEAD_MS, dead_pictures
from takeover.app.inputs.base import DeviceReading
from takeover.app.inputs.keyboard import Keyboard
from takeover.app.inputs.manager import DeviceManager
from takeover.app.inputs.mapping import FRAMES, Frame, to_canonical
from takeover.data.drivers import Driver
from takeover.data.labels import LabelError, Labels
from takeover.data.schema import Clear, EpisodeKind, Finish, Mark, Mode, Next, Outcome, RobotSpec, RunConfig, SetOutcome, Start, State
from takeover.robot_bridge.protocol import Endpoints

SPEEDS = (0.25, 0.5, 0.75, 1.0)
HALF_SPEED_MS = 200.0
OPEN_SHARE = 0.85


class Controller:
    """Owns the link, the keyboard and the choices a person made (frame, speed, collect)."""

    def __init__(self, config: RunConfig, keyboard: Keyboard | None = None, manager: DeviceManager | None = None) -> None:
        self.config = config
        self.keyboard = keyboard or Keyboard(enabled="keyboard" in config.devices)
        self.devices = Devices(self.keyboard, manager)
        self.frame: Frame = "view"
        self.speed = 1.0
        self.collect = False
        self.scripted = ""  # "", "starting", "asked", "running"
        self._scripted_since_s = 0.0
        self.front_age_ms = 0.0
        self.lost_pictures: tuple[str, ...] = ()  # without which the takeover that has just been held went on here
        self._widest_m = 0.0
        self._felt = ""
        self.just_now = JustNow()
        self.discarded: frozenset[str] = frozenset()  # segments excluded from here
        driver = Driver(config.person, config.consent_version)
        self.client = ConsoleClient(Endpoints.of(config), f"console-{config.person}", self.devices, self.to_action, driver=driver)
        self.client.on_speed = self.step_speed
        self.client.only_on_press = config.operator == "scripted"
        self.devices.seen = self._mode_heard

    def _mode_heard(self) -> tuple[Mode | None, int]:
        state = self.client.state
        return (state.mode if state is not None else None, self.client.state_ns)

    def to_action(self, reading: DeviceReading, spec: RobotSpec) -> list[float]:
        """Canonical action of a reading; half speed on pictures older than 200 ms. Called on the link thread."""
        state = self.client.state
        speed = self.speed * (0.5 if self.front_age_ms > HALF_SPEED_MS else 1.0)
        return to_canonical(reading, spec, self.frame, speed, state.tool_yaw if state is not None else 0.0)

    # --- what the pages show ---

    def snapshot(self) -> Snapshot:
        client, now = self.client, time.monotonic_ns()
        never = float("inf")
        return Snapshot(
            now_ns=now,
            state=client.state,
            state_age_ms=client.state_age_ms(now),
            spec=client.spec,
            learner=client.learner,
            learner_age_ms=(now - client.learner_ns) / 1e6 if client.learner_ns else never,
            actor=client.actor,
            actor_age_ms=(now - client.actor_ns) / 1e6 if client.actor_ns else never,
            evaluator=client.evaluator,
            processes=client.processes,
            reading=client.reading,
            picture_age_ms=self.picture_ages(now),
            sender=client.sender,
            holds_lease=client.holds_lease,
            round_trip_ms=client.round_trip_ms,
            frame=self.frame,
            speed=self.speed,
            collect=self.collect,
            scripted_demonstrations=bool(self.scripted),
            demonstrations_wanted=self.config.demonstrations,
            person=self.config.person,
            focused=client.focused,
            deadman_s=(now - client.deadman_since_ns) / 1e9 if client.deadman_since_ns else 0.0,
            operator=self.config.operator,
            lost_pictures=self.lost_pictures,
            stop_waits_s=(now - client.stop_pressed_ns) / 1e9 if client.stop_pressed_ns else 0.0,
        )

    def picture_ages(self, now_ns: int) -> dict[str, float]:
        """Per camera, since it was taken, by the clock of the bridge's computer as far as it is known here; at least since it arrived."""
        frames, arrived_ns = dict(self.client.frames), dict(self.client.frames_ns)
        spec = self.client.spec
        names = [camera.name for camera in spec.cameras] if spec is not None else list(frames)
        there_ns = now_ns + self.client.clock_offset_ns
        return {
            name: max(there_ns - frames[name].t_source_ns, now_ns - arrived_ns.get(name, now_ns)) / 1e6 for name in names if name in frames
        }

    # --- GUI thread, every tick ---

    def tick(self) -> None:
        """Rules that need the clock: old pictures, the scripted demonstrations' course, the gripper's real state."""
        client = self.client
        state = client.state
        self.just_now.see(state)
        ages = self.picture_ages(time.monotonic_ns())
        self.front_age_ms = next(iter(ages.values()), 0.0)
        in_takeover = state is not None and state.mode is Mode.TAKEOVER
        dead = dead_pictures(self.config, client.spec, ages)
        self.devices.may_start = in_takeover or (not dead and (not ages or max(ages.values()) <= PICTURE_DEAD_MS))
        client.blind = bool(dead)
        if in_takeover:
            self.lost_pictures = dead if client.holds_lease else ()
        elif state is None or state.mode is not Mode.HOLD:
            self.lost_pictures = ()
        if state is not None:
            self._widest_m = max(self._widest_m, state.gripper_width_m)
            self.keyboard.observe_gripper(self.gripper_is_open(state))
        self._rumble()
        self._scripted_course()

    def gripper_is_open(self, state: State) -> bool:
        """Nearly as wide as it ever was: a gripper that holds something is closed, however thick the thing."""
        return state.gripper_width_m > OPEN_SHARE * self._widest_m

    def _rumble(self) -> None:
        """The hand feels a takeover (short) and a hold, a stop or a lost link (long)."""
        state, client = self.client.state, self.client
        feel = "" if state is None else "lost" if client.state_age_ms() > LINK_LOST_MS else str(state.mode)
        before, self._felt = self._felt, feel
        if self.devices.manager is None or feel == before or not before:
            return
        if feel == Mode.TAKEOVER and client.holds_lease:
            self.devices.manager.rumble(0.4, 0.12)
        elif feel in (Mode.HOLD, Mode.STOPPED, "lost"):
            self.devices.manager.rumble(1.0, 0.35)

    def _scripted_course(self) -> None:
        client, now_s = self.client, time.monotonic()
        state, processes = client.state, client.processes
        if not self.scripted or state is None:
            return
        operator = processes.states.get("operator", "") if processes is not None else ""
        asked_s = now_s - self._scripted_since_s
        if operator.startswith("failed") and (self.scripted == "running" or asked_s > 2.0):  # an older failure is shown until it is started
            self._end_scripted(f"the scripted operator: {operator}")
        elif self.scripted == "starting" and operator == "up" and not client.holds_lease:
            if client.state is not None and self.snapshot().demonstration_waits:  # a block is open: go on with it
                self.scripted = "running"
                return
            missing = max(1, self.config.demonstrations - (client.learner.demonstrations if client.learner else 0))
            client.request(Start(sender=client.sender, kind=EpisodeKind.DEMONSTRATION, episodes=missing))
            self.scripted, self._scripted_since_s = "asked", now_s
        elif self.scripted == "asked" and state.episode_id and state.mode in (Mode.TAKEOVER, Mode.RESETTING):
            self.scripted = "running"
        elif state.mode is Mode.STOPPED or (self.scripted == "running" and self._block_over(state)):
            self._end_scripted("")
        elif self.scripted in ("starting", "asked") and asked_s > 20:
            self._end_scripted("the scripted operator did not begin within 20 s")

    @staticmethod
    def _block_over(state: State) -> bool:
        return state.mode is Mode.READY and state.block_size > 0 and state.block_done >= state.block_size

    def _end_scripted(self, problem: str) -> None:
        self.scripted = ""
        self.client.launcher("stop", "operator")
        self.client.want_lease = True
        if problem:
            self.client.notices.append(Notice(time.monotonic_ns(), problem))

    # --- acts ---

    def veto(self) -> None:
        """What a learned reward took for success is none: the last episode's outcome is taken back, or this moment is marked."""
        view = self.snapshot()
        meaning, state, sender = veto_of(view), view.state, self.client.sender
        if meaning == "outcome" and state is not None:
            self.client.request(SetOutcome(sender=sender, outcome=Outcome.UNKNOWN, episode_id=state.last_outcome_episode))
        elif meaning == "mark":
            self.client.request(Mark(sender=sender, text="not success"))
        else:
            self.client.notices.append(Notice(time.monotonic_ns(), "nothing to veto: no learned reward has said success"))

    def act(self, name: str) -> None:
        """Do what a button or key asks. Raises `KeyError` for an unknown act."""
        client, sender = self.client, self.client.sender
        if name in ("success", "failure", "hold", "resume", "mark", "next", "undo"):
            client.press(name)
        elif name == "veto":
            self.veto()
        elif name == "mark_success":
            client.request(Mark(sender=sender, text="success"))
        elif name == "stop":
            client.stop_robot("STOP pressed")
        elif name == "clear":
            client.request(Clear(sender=sender))
        elif name == "start":
            self.collect = False
            client.request(Start(sender=sender, kind=EpisodeKind.POLICY, episodes=0))
        elif name == "collect":
            client.request(Start(sender=sender, kind=EpisodeKind.DEMONSTRATION, episodes=self.config.demonstrations))
        elif name == "record":
            self.collect = True
        elif name == "scripted":
            self.begin_scripted()
        elif name == "redo":
            client.request(Next(sender=sender, discard=True))
        elif name == "finish":
            client.request(Finish(sender=sender))
        elif name == "finish_now":
            client.request(Finish(sender=sender, now=True))
        elif name.startswith("restart:"):
            client.launcher("restart", name.removeprefix("restart:"))
        elif name.startswith("frame:"):
            self.set_frame(name.removeprefix("frame:"))
        elif name == "discard":
            self.discard_last_correction()
        elif name in ("speed_up", "speed_down"):
            self.step_speed(1 if name == "speed_up" else -1)
        else:
            raise KeyError(f"unknown act {name!r}")

    def last_correction(self) -> tuple[str, str] | None:
        """(label such as ``136``, segment id) of the newest correction whose episode is in the store; None before the first."""
        learner = self.client.learner
        finished = {episode.number: episode.episode_id for episode in self.client.episodes if episode.kind == EpisodeKind.POLICY.value}
        for record in reversed(learner.corrections if learner is not None else []):
            number, intervention = record.get("episode_number"), record.get("intervention_id")
            if isinstance(number, int | float) and isinstance(intervention, int | float) and int(number) in finished:
                return f"{int(number)}", f"{finished[int(number)]}:t{int(intervention)}"
        return None

    def discard_last_correction(self) -> None:
        """Exclude the newest correction from training, or take that back; the label is written on a thread of its own."""
        found = self.last_correction()
        if found is not None:
            threading.Thread(target=self._discard, args=found, name="label", daemon=True).start()

    def _discard(self, name: str, segment_id: str) -> None:
        exclude = segment_id not in self.discarded
        labels = Labels(self.config.workspace)
        try:
            labels.add_label(segment_id, "exclude", exclude, self.config.person)
        except (LabelError, OSError) as error:
            self.client.notices.append(Notice(time.monotonic_ns(), f"correction {name} was not discarded: {error}"))
            return
        finally:
            labels.close()
        self.discarded = self.discarded | {segment_id} if exclude else self.discarded - {segment_id}

    def hold_or_resume(self) -> None:
        """P. Pressed while a hold is just beginning it was meant as one: then it holds, which changes nothing."""
        state = self.client.state
        self.just_now.see(state)
        held = state is not None and state.mode is Mode.HOLD
        if held and self.just_now.held:
            held = False
            self.hint("held just now: press P again to resume")
        self.act("resume" if held else "hold")

    def enter_counts(self) -> bool:
        """Whether Enter means what is shown; not while an episode is just over: it may have been meant for that one."""
        self.just_now.see(self.client.state)
        ended = self.just_now.ended
        if ended:
            self.hint("an episode ended just now: press Enter again")
        return not ended

    def hint(self, text: str) -> None:
        """Tell the person, where refusals are told."""
        self.client.notices.append(Notice(time.monotonic_ns(), text, refused=False))

    def begin_scripted(self) -> None:
        """The launcher's operator process demonstrates; this console gives the lease back meanwhile."""
        if not self.scripted:
            self.scripted, self._scripted_since_s = "starting", time.monotonic()
            self.client.want_lease = False
            self.client.launcher("start", "operator")

    def set_frame(self, name: str) -> None:
        if name not in FRAMES:
            raise ValueError(f"unknown control frame {name!r}; known: {', '.join(FRAMES)}")
        self.frame = name

    def step_speed(self, direction: int) -> None:
        nearest = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
        self.speed = SPEEDS[min(len(SPEEDS) - 1, max(0, nearest + direction))]

    def start(self) -> None:
        self.client.start()

    def close(self) -> None:
        self.client.close()
        self.keyboard.close()
        if self.devices.manager is not None:
            self.devices.manager.close()
