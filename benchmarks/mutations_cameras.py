"""Mutations of what judges, makes and keeps pictures."""

from benchmarks.mutation import Mutation, of

T = "tests/robot_bridge/test_"
IO = f"{T}io_limits.py"
MISSING = "if missing := [name for name in names if ages[name] < 0]:"
FROZEN = "if frozen := [name for name in cameras.frozen(now_ns) if name in names]:"

CAMERAS: list[Mutation] = [
    *of(
        "robot_bridge/control_base.py",
        f"{T}realtime.py::test_a_robot_whose_reset_takes_long_does_not_begin_held_for_its_cameras",
        ("picture: reset, told", "self.cameras.robot_reset(begun_ns, time.monotonic_ns())", "pass"),
    ),
    *of(
        "robot_bridge/camera_watch.py",
        f"{T}camera_watch.py",
        ("picture: counter", "picture.counter != view.counter and ", ""),
        ("picture: stamp", " and picture.t_source_ns > view.t_source_ns", ""),
        (
            "picture: stamp of a camera started again",
            "counter=picture.counter, t_source_ns=picture.t_source_ns)",
            "counter=picture.counter)",
        ),
        ("picture: frozen, time", "FROZEN_AFTER_S = 0.115 ", "FROZEN_AFTER_S = 0.5 "),
        ("picture: frozen, slow camera", "FROZEN_AFTER_PERIODS = 2.3 ", "FROZEN_AFTER_PERIODS = 1.0 "),
        ("picture: reset, whole", "max(0, ended_ns - max(begun_ns, view.new_ns))", "0"),
        ("picture: reset, before the newest", "max(begun_ns, view.new_ns)", "begun_ns"),
        ("picture: reset, that is over", "max(0, ended_ns - max(begun_ns, view.new_ns))", "(ended_ns - max(begun_ns, view.new_ns))"),
        ("picture: never one", "view is None or self._silent", "view is not None and self._silent"),
        ("picture: pixels stand", " or view.blind >= BLIND_PICTURES", ""),
        ("picture: pixels, at once", "BLIND_PICTURES = 2 ", "BLIND_PICTURES = 1 "),
        ("picture: pixels of a still scene", "math.dist(at, view.place) >= MOVED_M", "True"),
        ("picture: pixels, how far", "MOVED_M = 0.03 ", "MOVED_M = 0.3 "),
        ("picture: pixels changed", "place=at, blind=0)", "place=at)"),
    ),
    *of(
        "robot_bridge/sight.py",
        IO,
        ("camera: failed", "if cameras.error:", "if False:"),
        ("camera: missing", MISSING, "if missing := []:"),
        ("camera: frozen", FROZEN, "if frozen := []:"),
        (
            "camera: the policy's",
            " if name in names]:\n        return HoldReason.CAMERA_FROZEN",
            "]:\n        return HoldReason.CAMERA_FROZEN",
        ),
        ("sight: said", 'config.line_of_sight == "yes" or (', "("),
        ("sight: in simulation", '(config.line_of_sight == "auto" and spec.simulated)', "spec.simulated"),
        ("sight: on a real robot", '(config.line_of_sight == "auto" and spec.simulated)', 'config.line_of_sight == "auto"'),
    ),
    *of(
        "robot_bridge/camera_thread.py",
        IO,
        ("picture: rate", "if not spec.rate_hz > 0]:", "if False]:"),
        ("picture: frozen", "if self._watch.frozen(spec.name, now_ns)]", "if False]"),
        ("picture: none yet", "if spec.name in self._source_ns else -1.0", "if spec.name in self._source_ns else 0.0"),
        ("picture: same again", "new = self._watch.judge(picture, time.monotonic_ns(), place)", "new = True"),
        ("picture: backlog over a network", "(MAX_PICTURE_BACKLOG_BYTES if self._remote else MAX_BACKLOG_BYTES)", "MAX_BACKLOG_BYTES"),
        ("picture: backlog here", "(MAX_PICTURE_BACKLOG_BYTES if self._remote else MAX_BACKLOG_BYTES)", "MAX_PICTURE_BACKLOG_BYTES"),
        ("picture: left out, counted", "self.pictures_not_recorded += wanted and not fits", "pass"),
        ("picture: of episodes", "wanted = bool(new and episode_id)", "wanted = bool(new)"),
        (
            "picture: newest only",
            "self._slot = (captured, episode_id, seq, place)",
            "self._slot = self._slot or (captured, episode_id, seq, place)",
        ),
        ("picture: error said", 'self.error = f"{type(error).__name__}: {error}"\n                    self.source', "self.source"),
        ("picture: error over", 'self._render(*slot)\n                    self.error = ""', "self._render(*slot)"),
    ),
]
