"""What tests over a network need of it: free ports, and a bridge and a desk that know each other's keys."""

import random
import socket
from pathlib import Path

from takeover.data.schema import Role
from takeover.robot_bridge.protocol import KeyFolder


def unused_port(host: str = "127.0.0.1") -> int:
    """The first of 128 free ports, below those that the system hands out."""
    for _ in range(50):
        port = random.randrange(10000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex((host, port)) != 0:
                return port
    raise AssertionError("no free port")


def introduced(folder: Path, roles: list[Role]) -> tuple[KeyFolder, KeyFolder]:
    """The keys of a bridge, ``robot``, and those of a ``desk`` that it admits with ``roles``."""
    robot, desk = KeyFolder(folder / "robot"), KeyFolder(folder / "desk")
    for keys, name in ((robot, "robot"), (desk, "desk")):
        keys.new(name)
        (folder / f"{name}.json").write_text(keys.card())
    robot.allow(folder / "desk.json", roles)
    desk.trust(folder / "robot.json")
    return robot, desk
