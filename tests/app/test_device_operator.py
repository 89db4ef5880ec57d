"""A virtual gamepad in a terminal drives the real bridge."""

from takeover.app.device_operator import DeviceOperator
from takeover.app.launcher import Launcher
from takeover.app.stream import StationLink
from takeover.data.schema import EpisodeKind, HoldReason, Mode, Outcome, Start
from takeover.robot_bridge.protocol import Endpoints


def test_a_demonstration_by_pad_then_unplugged_then_stop(station_config, plug_pad, eventually):
    config = station_config(operator="console", clock="realtime", learner="none")
    with Launcher(config, ["bridge", "recorder"]) as launcher:
        launcher.wait_ready(60)
        link = StationLink(Endpoints(config.sockets), "test", config.workspace)

        def state():
            link.update(0.05)
            return link.state

        try:
            eventually(state)
            with DeviceOperator(Endpoints(config.sockets), frame="base") as operator:
                eventually(lambda: operator.reading is not None)
                pad = plug_pad()
                eventually(lambda: operator.reading.kind == "gamepad" and operator.reading.neutral)
                eventually(lambda: not link.ask(Start(sender="test", kind=EpisodeKind.DEMONSTRATION, episodes=3)), 20)
                eventually(lambda: state().mode == Mode.READY and state().episode_kind == EpisodeKind.DEMONSTRATION, 20)
                height = state().tool_position[2]
                pad.axis("right_y", -1.0)
                pad.button("rb", True)
                eventually(lambda: state().mode == Mode.TAKEOVER)
                eventually(lambda: state().tool_position[2] > height + 0.01)
                pad.button("a", True)  # held: success
                eventually(lambda: state() and link.log.of_kind(EpisodeKind.DEMONSTRATION), 20)
                pad.button("a", False)
                pad.button("rb", False)
                (episode,) = link.log.of_kind(EpisodeKind.DEMONSTRATION)
                assert episode.end.outcome == Outcome.SUCCESS
                assert episode.end.steps == episode.end.human_steps

                eventually(lambda: state().mode == Mode.READY, 20)
                pad.button("rb", True)
                eventually(lambda: state().mode == Mode.TAKEOVER)
                pad.unplug()
                eventually(lambda: state().mode == Mode.HOLD)
                assert state().hold_reason == HoldReason.DEVICE_LOST

                again = plug_pad()
                again.button("back", True)  # STOP counts from any device, also one that does not drive
                eventually(lambda: state().mode == Mode.STOPPED)
        finally:
            link.close()
