"""Mutations of the book of episodes, of probes, learned rewards and the policy's pictures, of words and addresses."""

from benchmarks.mutation import Mutation, of

T = "tests/robot_bridge/test_"
BOOK, PEERS, PICTURES, PROBES = f"{T}episode_limits.py", f"{T}peer_limits.py", f"{T}policy_images.py", f"{T}probes.py"
DROPPED = f"{PROBES}::test_an_episode_that_is_dropped_draws_the_same_again"
BAD_PROBES = f"{BOOK} {PROBES}::test_what_cannot_be_drawn_is_refused"
SHARE = "if not 0.0 <= self.share <= 1.0:"
LAST = "if self.block is None or last is None or last.block is not self.block or last.outcome is Outcome.ABORTED:"

DROVE = f"{T}who_drove.py"

EPISODES: list[Mutation] = [
    *of(
        "robot_bridge/episode_book.py",
        DROVE,
        ("who: somebody else is noted", "if driver.name != episode.driver:", "if False:"),
        ("who: noted once", "episode.driver = driver.name\n            t_ns", "t_ns"),
        ("who: the operator", "episode.driver = driver.name\n        if episode.probe", "if episode.probe"),
        ("who: consent", "text=driver.noted", "text=driver.name"),
        (
            "who: another intervention",
            'if episode.intervention_open and episode.intervention_driver not in ("", driver.name):',
            "if False:",
        ),
        ("who: own hold", 'episode.intervention_driver not in ("", driver.name):', 'episode.intervention_driver != "":'),
    ),
    *of(
        "robot_bridge/control_base.py",
        DROVE,
        ("who: lapsed", "lease.person if lease.holder(time.monotonic_ns()) else UNNAMED", "lease.person"),
        ("who: named", "return person if person.name else Driver(", "return Driver("),
        ("who: unnamed", "return person if person.name else Driver(self.config.person, self.config.consent_version)", "return person"),
        ("who: scripts", 'if device_kind == "scripted":\n            return SCRIPT', "if False:\n            return SCRIPT"),
    ),
    *of(
        "robot_bridge/control_desk.py",
        DROVE,
        ("who: pseudonyms", "if value and not is_id(value):", "if False:"),
        ("who: nobody named", "if value and not is_id(value):", "if not is_id(value):"),
        ("who: told in the episode", '{person.name}", **self.where())', '{person.name}")'),
    ),
    *of(
        "robot_bridge/lease.py",
        DROVE,
        ("who: somebody else on the connection", "mine and person == self.person and", "mine and"),
    ),
    *of(
        "robot_bridge/protocol/client.py",
        DROVE,
        ("who: bridges that know no names", "isinstance(request, Lease) and self._names_people and", "isinstance(request, Lease) and"),
    ),
    *of(
        "robot_bridge/episode_book.py",
        BOOK,
        ("block: manual resets", "if kind is EpisodeKind.MANUAL_RESET:", "if False:"),
        ("block: size", "if size < 0:", "if False:"),
        ("block: one", "if self.block is not None:\n            raise", "if False:\n            raise"),
        ("block: needed", "if self.block is None:\n            raise", "if False:\n            raise"),
        ("episode: needed", "if self.episode is None:\n            raise", "if False:\n            raise"),
        ("episode: never opened", "if not episode.recorded:", "if False:"),
        ("episode: recorded, kept", "if self.episode is not None and not self.episode.recorded:", "if self.episode is not None:"),
        ("episode: number again", "self._numbers[self.episode.kind] = self.episode.number", "pass"),
        ("block: discarded not counted", "if self.block is not None and not discarded:", "if self.block is not None:"),
        ("block: failures", "self.block.failures += outcome is not Outcome.SUCCESS", "pass"),
        ("discard: an episode", LAST, LAST.replace("last is None or ", "")),
        ("discard: of this block", LAST, LAST.replace("last.block is not self.block or ", "")),
        ("discard: once", LAST, LAST.replace(" or last.outcome is Outcome.ABORTED", "")),
        ("event: a key's", "self.ended.dated_back() if by_operator", "0 if by_operator"),
        ("event: a classifier's", "1 if source is OutcomeSource.CLASSIFIER else 0", "0"),
        ("event: not before the start", "max(0, last - back)", "last - back"),
        ("probe: version begun with", "episode.probe_version = policy_version  # nothing newer breaks into it", "pass"),
        ("probe: version that is due", "if episode.probe >= 0 and not episode.probe_version:", "if episode.probe >= 0:"),
    ),
    *of(
        "robot_bridge/episode_book.py",
        DROPPED,
        ("probe: not in practice", "kind is EpisodeKind.POLICY and not self.block.max_failures", "kind is EpisodeKind.POLICY"),
        ("probe: of policy episodes", "kind is EpisodeKind.POLICY and not self.block.max_failures", "not self.block.max_failures"),
        ("probe: dropped, drawn again", "self._probes -= self.episode.probe >= 0", "pass"),
    ),
    *of(
        "robot_bridge/ended_episodes.py",
        BOOK,
        ("outcome: known episode", "if found is None:", "if False:"),
        ("outcome: last ones", "deque[EndedEpisode] = deque(maxlen=REMEMBERED_EPISODES)", "deque[EndedEpisode] = deque()"),
        ("outcome: nothing to undo", "if given is None:", "if False:"),
        ("outcome: one's own", "reversed(self._changes) if change.author == author)", "reversed(self._changes))"),
        ("outcome: changed since", "if newest is not given:", "if False:"),
        ("outcome: changed since, of that episode", "reversed(self._changes) if change.ended is given.ended)", "reversed(self._changes))"),
        ("outcome: undone, how far back", "deque(maxlen=REMEMBERED_EPISODES)  # old", "deque()  # old"),
        ("outcome: undone once", "self._changes.remove(given)", "pass"),
        (
            "event: not after the end",
            "max(0, round((self.config.key_delay_s - since_s) * self.control_hz))",
            "round(10.0 - since_s * 20.0)",
        ),
        ("event: later keys", "(self.config.key_delay_s - since_s)", "self.config.key_delay_s"),
        ("event: of a key stays", "if not found.by_operator and outcome", "if outcome"),
        ("event: of the task stays", ' and self.config.reward != "task":', ":"),
    ),
    *of(
        "robot_bridge/probe_schedule.py",
        BAD_PROBES,
        ("probe: share", SHARE, "if False:"),
        ("probe: share a number", SHARE, "if self.share < 0.0 or self.share > 1.0:"),
        ("probe: two versions", "len(self.versions) > MAX_VERSIONS or ", ""),
        ("probe: different versions", "len(set(self.versions)) != len(self.versions) or ", ""),
        ("probe: versions from 1", " or min(self.versions, default=1) < 1:", ":"),
    ),
    *of(
        "robot_bridge/probe_schedule.py",
        f"{PROBES}::test_probes_are_drawn_by_chance_and_the_same_again {PROBES}::test_both_versions_are_in_every_block_in_random_order",
        ("probe: by chance", ".random()) < self.share", ".random() * 0) < self.share"),
        ("probe: of its session", 'f"probe-{self.session}"', '"probe-a"'),
        ("probe: order by chance", "(probe + turned) % 2", "probe % 2"),
        ("probe: both in a block", "(probe + turned) % 2", "int(turned)"),
    ),
    *of(
        "robot_bridge/control_step.py",
        BOOK,
        ("probe: version asked for", "return self.book.probe_version", "return 0"),
    ),
    *of(
        "robot_bridge/control.py",
        BOOK,
        ("learned: where the station says so", 'return self.config.reward == "classifier" and ', "return "),
        ("learned: success", "policy is not None and policy.success and", "policy is not None and"),
        ("learned: of this very state", " and policy.from_seq == step.seq", ""),
        ("learned: at all", "elif self._learned_success(pending):", "elif False:"),
        ("task: silent where keys count", 'self.robot.evaluate() if self.config.reward == "task" else NOT_JUDGED', "self.robot.evaluate()"),
    ),
    *of(
        "robot_bridge/requests.py",
        BOOK,
        ("finish: a block", "if control.book.block is None:\n            raise", "if False:\n            raise"),
        ("next: an episode", 'raise Refused("no episode is running")', "pass"),
        ("start: answered, in lockstep", "control.lockstep and control.acting_policy()[0] == 0:", "False:"),
        ("start: scripted, in lockstep", 'control.lockstep and control.config.operator != "scripted":', "False:"),
    ),
    *of(
        "robot_bridge/policy_images.py",
        f"{PICTURES}::test_every_pixel_is_the_mean_of_those_it_covers_in_the_middle_square {PICTURES}::test_a_smaller_frame_is_enlarged "
        f"{PICTURES}::test_a_missing_camera_is_left_out_and_the_order_is_the_policys",
        ("policy's pictures: the middle", "left, top = (width - side) // 2, (height - side) // 2", "left = top = 0"),
        ("policy's pictures: a square", "side = min(height, width)", "side = max(height, width)"),
        ("policy's pictures: means", "Image.Resampling.BOX if side", "Image.Resampling.NEAREST if side"),
        ("policy's pictures: never another's", "policy_image(found[camera]) for", "policy_image(pictures[0]) for"),
        (
            "policy's pictures: left out",
            "for camera in cameras if camera in found]",
            "for camera in [*found, *cameras] if camera in found]",
        ),
    ),
    *of(
        "robot_bridge/robots/sim_seeing.py",
        f"{PICTURES}::test_an_unknown_camera_is_refused_by_name",
        ("policy's cameras: the simulator's", "if unknown := [camera for camera in cameras if camera not in known]:", "if unknown := []:"),
    ),
    *of(
        "robot_bridge/bridge.py",
        PEERS,
        (
            "policy's cameras: the station's",
            "if unknown := [name for name in spec.policy_cameras if name not in known]:",
            "if unknown := []:",
        ),
        ("lockstep: one computer", "if lockstep and endpoints.link is not None:", "if False:"),
    ),
    *of(
        "robot_bridge/io.py",
        PEERS,
        ("words: backlog", "if self.records.bytes > MAX_EVENT_BACKLOG_BYTES:", "if False:"),
        ("words: text", "text = text[:MAX_EVENT_TEXT]", "pass"),
        ("words: kind", "message.kind[:MAX_EVENT_NAME]", "message.kind"),
        ("words: source", "message.source[:MAX_EVENT_NAME]", "message.source"),
        ("unreadable: counted", "self.bad_messages += 1", "pass"),
    ),
    *of(
        "robot_bridge/record_desk.py",
        PEERS,
        ("records: not taken", "self.records.give_back(len(frames) - sent)", "pass"),
        ("records: recorder gone", "self._recorder = None  # whoever comes back says how far it got", "pass"),
    ),
    *of(
        "robot_bridge/sight.py",
        PEERS,
        ("sight: of people elsewhere", 'if config.line_of_sight == "yes" and config.listen:', "if False:"),
        ("sight: of nobody elsewhere", 'config.line_of_sight == "yes" and config.listen:', "config.listen:"),
    ),
    *of(
        "robot_bridge/protocol/endpoints.py",
        PEERS,
        ("address: keys", "if endpoints.gatekeeper is None:", "if False:"),
        ("address: path's length", "if len(path.encode()) > MAX_IPC_PATH_BYTES:", "if False:"),
        ("address: its owner's folder", "mkdir(mode=0o700, parents=True, exist_ok=True)", "mkdir(parents=True, exist_ok=True)"),
        ("address: open folder", "if status.st_mode & 0o077:", "if False:"),
        ("address: open to the group", "status.st_mode & 0o077:", "status.st_mode & 0o007:"),
        ("address: another's folder", "if status.st_uid != os.geteuid():", "if False:"),
    ),
    *of(
        "robot_bridge/protocol/endpoints.py",
        f"{T}sockets.py::test_a_second_binder_is_refused_by_name_and_the_first_goes_on",
        ("address: one binder", "self._lock = FileLock(self._path.with_suffix(", "FileLock(self._path.with_suffix("),
    ),
    *of(
        "robot_bridge/protocol/endpoints.py",
        f"{T}security.py::test_cameras_whose_names_lead_to_one_port_are_named",
        ("address: ports of cameras", "check_ports(names if", "check_ports(() if"),
        ("address: ports, over a network only", 'names if self.over_network("state") else ()', "names"),
    ),
    *of(
        "robot_bridge/protocol/link.py",
        f"{T}security.py::test_cameras_whose_names_lead_to_one_port_are_named",
        ("address: a port each", "if offset in used:", "if False:"),
    ),
]
