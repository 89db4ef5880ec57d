"""Real write errors (a limit on the size of files) while the libraries write: one line, no target, no crash."""

import subprocess
import sys

import pytest

from takeover.app.cli import main

CODE = """
import resource, sys
from takeover.app.cli import main
from takeover.data.exchange import robomimic_export  # before the limit: bytecode is written at imports
import takeover.data.exchange.lerobot_export, takeover.data.exchange.mcap_export, takeover.data.exchange.tables
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        (["lerobot"], 60_000),
        (["lerobot", "--images", "video"], 60_000),
        (["robomimic"], 250_000),  # enough for every part, not for the whole
        (["mcap"], 20_000),
        (["csv"], 1500),
    ],
)
def test_a_write_error_of_the_system_is_one_line(recorded, workspace, tmp_path, arguments, limit):
    target = tmp_path / "out"
    command = ["export", arguments[0], str(target), *arguments[1:], "--workspace", str(workspace.path)]
    done = subprocess.run([sys.executable, "-c", CODE, str(limit), *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not target.exists()
    if arguments == ["robomimic"]:
        assert len((tmp_path / "out.partial/done.jsonl").read_text().splitlines()) == 4
    assert main(command) == 0
    assert target.exists()
