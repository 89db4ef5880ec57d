"""Whether the tests notice when a limit, a refusal or a timeout is taken away: one small change at a time, and its tests must go red.

python -m benchmarks.mutation_check --out docs/results/mutation.txt

The repository's tracked files are copied once; the changes of `benchmarks.mutations` are made there, never here. What is done already is
remembered (``--done``) by file, change and tests, so that an interrupted check goes on where it was.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.mutation import Mutation
from benchmarks.mutations import MUTATIONS
from benchmarks.result_text import commit, machine

ROOT = Path(__file__).resolve().parents[1]
TESTS_RED = 1  # pytest's exit status when tests failed; others mean that none ran
TIMEOUT_S = 300.0
_RED = re.compile(r"^(?:FAILED|ERROR) (\S+?::[^\n]+?)(?: - .*)?$", re.MULTILINE)


class BadMutation(ValueError):
    """A mutation that cannot be made, or tests that are red without it; says which."""


def copy_tracked(folder: Path) -> None:
    """Every tracked file as it is in the working tree; links stay links."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target, follow_symlinks=False)


def mutated(mutation: Mutation, source: str) -> str:
    """``source`` with the change. Raises `BadMutation` when its text is not there exactly once or the result is no Python."""
    found = source.count(mutation.text)
    if found != 1:
        raise BadMutation(f"{mutation.name}: {mutation.file} has {found} of {mutation.text!r}, expected 1")
    changed = source.replace(mutation.text, mutation.replacement)
    try:
        compile(changed, mutation.file, "exec")
    except SyntaxError as error:
        raise BadMutation(f"{mutation.name}: the result is no Python: {error}") from error
    return changed


class Worker:
    """`benchmarks.mutation_worker` in the copy: one at a time, so that no two mutations meet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # plugins cost more time than most of these tests; none is needed but the one that ends a test that hangs
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, str(folder / "benchmarks" / "mutation_worker.py")]
        self._process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def pytest(self, tests: tuple[str, ...], *, compiled: bool = False) -> tuple[int, str]:
        """Exit status and output. ``compiled``: what is imported is kept compiled for the runs after it."""
        output = self.folder / "output.txt"
        arguments = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--timeout", "60", *tests]
        asked = {"arguments": arguments, "output": str(output), "compiled": compiled, "timeout_s": TIMEOUT_S}
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        status = int(json.loads(self._process.stdout.readline())["status"])
        return status, output.read_text(errors="replace")

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)


def killed_by(worker: Worker, mutation: Mutation) -> str:
    """The test that went red; "" when all stayed green. Raises `BadMutation` when they did not run."""
    path = worker.folder / mutation.file
    source, times = path.read_text(), path.stat()
    path.write_text(mutated(mutation, source))
    os.utime(path, (times.st_atime, times.st_mtime + 1000))  # never taken for the compiled one
    try:
        status, output = worker.pytest(mutation.tests)
    finally:
        path.write_text(source)
        os.utime(path, (times.st_atime, times.st_mtime))
    if status == 0:
        return ""
    red = _RED.search(output)
    if status != TESTS_RED or red is None:
        raise BadMutation(f"{mutation.name}: the tests did not run (pytest: {status})\n{output[-2000:]}")
    return red[1]


def key_of(mutation: Mutation, root: Path) -> str:
    """Changes with the mutated file, the mutation and the tests' files."""
    files = sorted({mutation.file, *(test.partition("::")[0] for test in mutation.tests if not test.startswith("-"))})
    parts = [mutation.file, mutation.text, mutation.replacement, *mutation.tests, *((root / file).read_text() for file in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def check_green(worker: Worker, mutations: list[Mutation]) -> None:
    """Without any mutation every named test is green. Raises `BadMutation`."""
    status, output = worker.pytest(tuple(sorted({test for mutation in mutations for test in mutation.tests})), compiled=True)
    if status != 0:
        raise BadMutation(f"red without any mutation:\n{output[-3000:]}")


def report(killed: dict[str, str], survived: list[str], seconds: float) -> str:
    width = max(len(mutation.name) for mutation in MUTATIONS)
    lines = [
        "command   python -m benchmarks.mutation_check --out docs/results/mutation.txt",
        f"commit    {commit()}",
        f"machine   {machine()}",
        "what      one limit, refusal or timeout taken away at a time; the named tests ran on a copy and had to go red",
        f"time      {seconds:.0f} s of tests",
        "",
        f"{'mutation':<{width}}  {'file':<32}  went red",
    ]
    for mutation in MUTATIONS:
        if mutation.name in killed or mutation.name in survived:
            lines.append(f"{mutation.name:<{width}}  {mutation.file:<32}  {killed.get(mutation.name, 'NOTHING: it survived')}")
    lines += ["", f"total     {len(killed) + len(survived)} mutations, {len(killed)} noticed, {len(survived)} survived"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="mutations whose name or file contains TEXT")
    parser.add_argument("--list", action="store_true", help="name them and do nothing")
    parser.add_argument("--out", type=Path, help="write the table here")
    parser.add_argument("--done", type=Path, default=ROOT / "build" / "mutation-done.json", help="what is done already")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.only or any(part in m.name or part in m.file for part in arguments.only)]
    if not chosen:
        parser.error("no mutation has that name")
    if arguments.list:
        for mutation in chosen:
            print(f"{mutation.name}  {mutation.file}  {' '.join(mutation.tests)}")
        return 0
    try:
        return _check(chosen, arguments.done, arguments.out)
    except BadMutation as error:
        print(error, file=sys.stderr)
        return 1


def _check(chosen: list[Mutation], done_path: Path, out: Path | None) -> int:
    for mutation in chosen:
        mutated(mutation, (ROOT / mutation.file).read_text())
    done: dict[str, list[object]] = json.loads(done_path.read_text()) if done_path.exists() else {}
    survived: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as name:
        copy_tracked(Path(name))
        keys = {mutation.name: key_of(mutation, Path(name)) for mutation in chosen}
        todo = [mutation for mutation in chosen if keys[mutation.name] not in done]
        killed = {m.name: str(done[keys[m.name]][0]) for m in chosen if keys[m.name] in done}
        seconds = sum(float(str(done[keys[m.name]][1])) for m in chosen if keys[m.name] in done)
        worker = Worker(Path(name))
        if todo:
            check_green(worker, todo)
        for i, mutation in enumerate(todo):
            began = time.monotonic()
            red = killed_by(worker, mutation)
            took = time.monotonic() - began
            seconds += took
            print(f"{i + 1}/{len(todo)}  {took:5.1f} s  {mutation.name}: {red or 'SURVIVED'}", flush=True)
            if not red:
                survived.append(mutation.name)
                continue
            killed[mutation.name] = red
            done[keys[mutation.name]] = [red, round(took, 1)]
            done_path.parent.mkdir(parents=True, exist_ok=True)
            done_path.write_text(json.dumps(done, indent=1))
        worker.close()
    text = report(killed, survived, seconds)
    if out is not None:
        out.write_text(text)
    print(text.splitlines()[-1])
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
