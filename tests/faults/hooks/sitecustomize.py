"""Loaded by the interpreter of every process that a fault test starts, and by nothing else: sticks, slows or fails one of its threads.

A test puts this folder on PYTHONPATH and names a folder in TAKEOVER_TEST_HOOKS; each process of a station then listens on a FIFO there,
``<process>-<pid>``, for one JSON object a line: ``do`` (stick: the thread sleeps for ``seconds`` in each of its next ``count`` turns; fail:
it raises; clock: wall time jumps; pad: a virtual gamepad of this process is plugged in, moved, unplugged; disk: ``how`` readonly, slow or
well, for everything below ``folder``), ``where``.
"""

import builtins
import contextlib
import errno
import io
import json
import os
import sys
import threading
import time
from typing import Any

# what a thread calls in every turn: (module, class, method)
WHERE = {
    "control": ("takeover.robot_bridge.control", "ControlLoop", "tick"),
    "io": ("takeover.robot_bridge.io", "BridgeIO", "pump"),
    "camera": ("takeover.robot_bridge.camera_thread", "CameraThread", "_render"),
    "recorder": ("__main__", "RecorderLoop", "turn"),
    "operator": ("__main__", "OperatorLoop", "_read_state"),
    "actor": ("takeover.policies.acting", "Acting", "answer"),
    "learner": ("takeover.policies.learner_run", "LearnerRun", "work"),
    "evaluator": ("__main__", "_Evaluator", "_tell"),
    "gui": ("takeover.app.console.controller", "Controller", "snapshot"),
    "link": ("takeover.app.console.client", "ConsoleClient", "_command"),
    "devices": ("takeover.app.inputs.gamepad", "GamepadHub", "update"),
}


_pads: list[Any] = []


def _pad(calls: list[list[Any]]) -> None:
    for name, *arguments in calls:
        if name == "plug":
            from benchmarks.virtual_pad import VirtualPad

            _pads.append(VirtualPad())
        elif _pads:  # a console that was started anew has none
            getattr(_pads[-1], name)(*arguments)


_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_BY_DESCRIPTOR = ("pwrite", "fdatasync", "fsync", "ftruncate")
_BY_PATH = ("replace", "rename", "unlink", "mkdir", "truncate")
_os = {name: getattr(os, name) for name in (*_BY_DESCRIPTOR, *_BY_PATH, "open")}
_io_open = io.open


def _disk(how: str, folder: str, seconds: float) -> None:
    """What a file system does that was remounted read-only after an error, or one whose flushes take long."""

    def refuse(path: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def below(path: object) -> bool:
        return isinstance(path, str | os.PathLike) and str(path).startswith(folder)

    def by_path(name: str) -> Any:
        return lambda path, *rest, **more: refuse(path) if below(path) else _os[name](path, *rest, **more)

    def os_open(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if below(path) and flags & _WRITES:
            refuse(path)
        return int(_os["open"](path, flags, *rest, **more))

    def file_open(path: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if below(path) and set(mode) & set("wax+"):
            refuse(path)
        return _io_open(path, mode, *rest, **more)

    def flush_slowly(name: str) -> Any:
        return lambda descriptor: (time.sleep(seconds), _os[name](descriptor))[1]

    for name, original in _os.items():
        setattr(os, name, original)
    builtins.open = io.open = _io_open
    if how == "readonly":
        for name in _BY_DESCRIPTOR:
            setattr(os, name, lambda *_: refuse("its file"))
        for name in _BY_PATH:
            setattr(os, name, by_path(name))
        os.open = os_open
        builtins.open = io.open = file_open
    elif how == "slow":
        os.fdatasync, os.fsync = flush_slowly("fdatasync"), flush_slowly("fsync")


def _install(order: dict[str, Any]) -> None:
    if order["do"] == "disk":
        _disk(order["how"], order["folder"], order["seconds"])
        return
    if order["do"] == "pad":
        _pad(order["calls"])
        return
    if order["do"] == "clock":
        offset_ns = int(order["seconds"] * 1e9)
        real, real_ns = time.time, time.time_ns
        time.time = lambda: real() + offset_ns / 1e9
        time.time_ns = lambda: real_ns() + offset_ns
        return
    module, owner, name = WHERE[order["where"]]
    target = getattr(sys.modules[module], owner)
    original = getattr(target, name)
    left = [int(order.get("count", 1))]

    def hooked(*arguments: Any, **keywords: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            setattr(target, name, original)
        if order["do"] == "fail":
            raise RuntimeError(order.get("text", "made to fail"))
        time.sleep(order["seconds"])
        return original(*arguments, **keywords)

    setattr(target, name, hooked)


def _listen(path: str) -> None:
    while True:
        with open(path) as fifo:  # blocks until somebody writes
            for line in fifo:
                with contextlib.suppress(KeyError):  # a thread that this process does not have (any more)
                    _install(json.loads(line))


def _begin() -> None:
    folder = os.environ.get("TAKEOVER_TEST_HOOKS", "")
    entry = next((word for word in sys.orig_argv if word.startswith("takeover.app.processes.")), "")
    if not folder or not entry:
        return
    path = os.path.join(folder, f"{entry.rpartition('.')[2]}-{os.getpid()}")
    os.mkfifo(path)
    threading.Thread(target=_listen, args=(path,), daemon=True, name="test-hooks").start()


_begin()
