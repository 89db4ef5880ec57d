"""The rules of the house: layers, library fences, no pickle, light packages, pinned requirements."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("app", "policies", "robot_bridge", "data")
SOURCES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]
FENCES = {
    "PySide6": "app/console",
    "pyqtgraph": "app/console",
    "pygame": "app/inputs",
    "hid": "app/inputs",
    "torch": "policies",
    "safetensors": "policies",
    "zmq": "robot_bridge",
    "mujoco": "robot_bridge",
    "h5py": "data",
    "mcap": "data",
    "sqlalchemy": "data",
    "pyarrow": "data",
    "av": "data",
}
MARKER = re.compile(r"^([A-Za-z0-9_.-]+)")


def imports_of(source: str) -> set[str]:
    """Full names of every imported module, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return names


def offences(path: str, source: str) -> list[str]:
    """What a file imports that it may not."""
    found = []
    for name in sorted(imports_of(source)):
        top = name.partition(".")[0]
        if top in FENCES and not path.startswith(FENCES[top] + "/"):
            found.append(f"{path} imports {name}: only {FENCES[top]} may")
        if top in LAYERS:
            found.append(f"{path} imports {name}: write takeover.{name}")
        if top in ("pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal"):
            found.append(f"{path} imports {name}: no pickle anywhere")
    return found


def test_the_rules_find_offences():
    assert offences("app/cli.py", "import torch.nn") == ["app/cli.py imports torch.nn: only policies may"]
    assert offences("app/cli.py", "def f():\n    from data.schema import Step") == [
        "app/cli.py imports data.schema: write takeover.data.schema"
    ]
    assert offences("data/x.py", "import pickle")
    assert offences("policies/x.py", "import torch") == []


def test_libraries_stay_behind_their_fences():
    assert len(SOURCES) > 40
    assert [line for path in SOURCES for line in offences(str(path.relative_to(ROOT)), path.read_text())] == []


def test_import_contracts_are_kept():
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("takeover.robot_bridge.control", ("torch", "PySide6", "pygame", "sqlalchemy")),
        ("takeover.app.processes.bridge", ("torch", "PySide6", "pygame")),
        ("takeover.app.processes.recorder", ("torch", "PySide6", "pygame", "mujoco")),
        ("takeover.app.processes.actor", ("PySide6", "pygame", "mujoco", "h5py")),
        ("takeover.app.launcher", ("torch", "PySide6", "pygame", "mujoco", "h5py")),
        ("takeover.app.commands.options", ("torch", "PySide6", "mujoco")),
        ("takeover.data.schema", ("torch", "PySide6", "pygame", "mujoco", "h5py", "zmq", "sqlalchemy", "numpy")),
    ],
)
def test_importing_it_loads_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_every_requirement_is_pinned():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, exact, version = line.partition("==")
        assert exact, f"constraints.txt: {line!r} is not an exact version"
        assert "+" not in version, f"constraints.txt: {line!r} names a local build"
        pinned[_normalised(name)] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    missing = [item for item in required if _normalised(MARKER.match(item)[1]) not in pinned]
    assert missing == []
    assert pinned["torch"] == "2.13.0"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_is_installed_with_the_wheel():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {"takeover." + ".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES if path.name == "__init__.py"} | {"takeover"}
    assert present == listed


UNSAFE_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "send_pyobj": "pickles",
    "recv_pyobj": "unpickles: whoever reaches the port runs code",
    "torch.load": "unpickles: weights are safetensors",
    "yaml.load": "makes objects",
    "np.load": "may unpickle",
    "numpy.load": "may unpickle",
}


def unsafe_calls(source: str) -> list[str]:
    """Calls that run code made of data. A method (``module.eval()`` of PyTorch) is not the builtin."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        short = name.rpartition(".")[2]
        called = name if name in UNSAFE_CALLS else short if short in ("send_pyobj", "recv_pyobj") else ""
        if called:
            found.append(f"line {node.lineno}: {name} {UNSAFE_CALLS[called]}")
        found += [f"line {node.lineno}: {name}(allow_pickle=...)" for keyword in node.keywords if keyword.arg == "allow_pickle"]
    return found


def test_nothing_received_or_read_is_run_as_code():
    assert unsafe_calls("x = socket.recv_pyobj()\neval('1')\ntorch.load(f, weights_only=True)\nf(allow_pickle=True)\nnet.eval()") == [
        "line 1: socket.recv_pyobj unpickles: whoever reaches the port runs code",
        "line 2: eval runs text as code",
        "line 3: torch.load unpickles: weights are safetensors",
        "line 4: f(allow_pickle=...)",
    ]
    assert [f"{path.relative_to(ROOT)} {found}" for path in SOURCES for found in unsafe_calls(path.read_text())] == []


def test_no_assert_guards_the_robot():
    guarded = [path for path in SOURCES if path.is_relative_to(ROOT / "robot_bridge")]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in guarded
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert found == [], "assert vanishes under python -O: raise instead"


def copied_setup(folder: Path) -> Path:
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh", "scripts/reachable.py"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / name, folder / name)
    return folder / "scripts" / "setup.sh"


def as_user_without_packages(folder: Path) -> dict[str, str]:
    """An environment in which no system package is installed and one is not root."""
    tools = folder / "tools"
    tools.mkdir()
    for name, text in (("dpkg-query", "exit 1"), ("id", "echo 1000"), ("apt-get", "exit 99")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    return {"PATH": f"{tools}:/usr/bin:/bin", "PYTHON": sys.executable}


def test_setup_prints_the_exact_line_when_it_may_not_install_system_packages(tmp_path):
    script = copied_setup(tmp_path)
    result = subprocess.run(["sh", script, "test"], env=as_user_without_packages(tmp_path), capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    (line,) = [line.strip() for line in result.stderr.splitlines() if "apt-get" in line]
    assert line.startswith("sudo apt-get install -y --no-install-recommends ")
    for package in ("libegl1", "libxcb-cursor0", "fonts-dejavu-core", "xvfb"):
        assert package in line.split()
    assert not (tmp_path / ".venv").exists()


def test_a_second_setup_does_nothing(tmp_path):
    script = copied_setup(tmp_path)
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    files = b"".join((tmp_path / name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"))
    checksum = subprocess.run(["cksum"], input=files, capture_output=True, check=True).stdout.decode()
    (venv / ".takeover-test").write_text(checksum.strip().replace(" ", "-"))
    environment = as_user_without_packages(tmp_path)
    for kind in ("test", "run"):
        result = subprocess.run(["sh", script, kind], env=environment, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stderr) == (0, "")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    changed = subprocess.run(["sh", script, "run"], env=environment, capture_output=True, text=True, timeout=60)
    assert changed.returncode == 2, "a changed pin means setting up again"


def test_every_mutation_can_be_made() -> None:
    """`make mutation` takes long and is run by hand: code that moved on must not leave a mutation behind unnoticed."""
    stale = [one.name for one in MUTATIONS if (ROOT / one.file).read_text(encoding="utf-8").count(one.text) != 1]
    assert stale == [], "their text is no longer in the file exactly once; see benchmarks/mutations_*.py"


# what these refuse cannot be had in a test, or is no refusal: (file, condition)
NOT_TAKEN_AWAY = {("robot_bridge/protocol/asking.py", "error.errno != errno.EHOSTUNREACH")}


def test_every_refusal_of_the_bridge_is_taken_away_by_a_mutation() -> None:
    """`if ...: raise` without one: nobody would notice were it gone. `raise` in other places (an `except`, a `match`) is not looked for."""
    bare = set()
    for path in sorted((ROOT / "robot_bridge").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if "/conformance/" in name:
            continue
        source = path.read_text(encoding="utf-8")
        begins = [0, *itertools.accumulate(len(line) + 1 for line in source.split("\n"))]
        spans = [(at := source.find(one.text), at + len(one.text)) for one in MUTATIONS if one.file == name]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.If) and any(isinstance(inner, ast.Raise) for inner in node.body):
                first, last = begins[node.lineno - 1], begins[node.body[-1].end_lineno or node.lineno]
                if not any(begin < last and first < end for begin, end in spans):
                    bare.add((name, ast.unparse(node.test)))
    assert bare == NOT_TAKEN_AWAY, "give each new one a mutation in benchmarks/mutations_*.py and a test that notices it"


def test_mutations_have_names_of_their_own() -> None:
    names = [one.name for one in MUTATIONS]
    assert sorted({name for name in names if names.count(name) > 1}) == []
