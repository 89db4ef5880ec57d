"""The camera interface: usable with any robot."""

from typing import Any, Protocol

from takeover.data.schema import CameraSpec
from takeover.robot_bridge.robots.base import Picture


class CameraSource(Protocol):
    """`capture` runs on the control thread and must be cheap; `pictures` runs on the camera thread, which owns any GL context."""

    @property
    def specs(self) -> list[CameraSpec]: ...

    def capture(self) -> Any:
        """What `pictures` needs to render or read the scene as it is now."""

    def pictures(self, captured: Any) -> list[Picture]: ...

    def close(self) -> None: ...
