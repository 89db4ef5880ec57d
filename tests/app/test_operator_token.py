"""The operator process gives way: a person takes the lease from it and gives it back, on real sockets."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

from takeover.app.processes.operator import OperatorLoop
from takeover.data.schema import Lease, Mode
from tests.robot_bridge.station import station


def test_a_script_that_lost_the_lease_sends_no_commands_until_it_has_it_again(tmp_path: Path) -> None:
    with station(tmp_path, operator="scripted") as made:
        made.recorder()
        made.actor()
        context = SimpleNamespace(stop=threading.Event(), ready=lambda: None)
        loop = OperatorLoop(made.config)
        thread = threading.Thread(target=lambda: (loop.run(context), loop.close()), daemon=True)
        thread.start()
        try:
            made.until(lambda state: state.commander == "operator")
            person = made.operator("console")
            made.start(person)
            made.until_mode(Mode.POLICY)
            assert person.take_lease().error == ""
            time.sleep(0.5)  # it asks five times a second, and hears then that it is refused
            refused = made.state().refused_commands
            time.sleep(0.6)
            assert made.state().refused_commands == refused
            assert person.ask(Lease(sender="console", release=True)).error == ""
            person.sending = False
            made.until(lambda state: state.commander == "operator" and 0.0 <= state.command_age_ms < 200.0)
        finally:
            context.stop.set()
            thread.join(5.0)
        assert not thread.is_alive()
