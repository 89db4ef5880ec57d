"""The command that makes the documentation's pictures, on a real station."""

import os
import subprocess
import sys

from PIL import Image

NAMES = {
    "operate_first",
    "operate_demonstration",
    "operate_policy",
    "operate",
    "operate_hold",
    "review",
    "insights",
    "setup",
    "keys",
    "operate_stopped",
}


def test_every_page_is_taken_from_a_real_station(tmp_path):
    workspace, out = tmp_path / "workspace", tmp_path / "out"
    workspace.mkdir()
    (workspace / "station.toml").write_text("demonstrations = 3\n[learner_parameters]\nclone_updates = 20\n")
    command = [sys.executable, "-m", "takeover.app.console.screenshots", "--workspace", str(workspace), "--out", str(out)]
    options = ["--episodes", "2", "--width", "1600", "--height", "1000", "--patience-s", "60"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=180, env=os.environ | {"XDG_RUNTIME_DIR": ""})
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.stem for path in out.glob("*.png")} == NAMES
    for path in out.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.size == (1600, 1000)
            colours = picture.convert("RGB").resize((160, 100)).getcolors(16_000)
            assert colours is not None
            assert len(colours) > 50, f"{path.name} shows nothing"
