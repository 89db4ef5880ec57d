"""A reward classifier that sees pictures alone, on camera pictures of the simulator: learned from late keys, judged by the truth.

    python -m benchmarks.reward_pictures --out DIR --episodes 40 --others 30 [--cameras front wrist] [--json out.json]

A clumsy scripted operator picks and lifts the cube of `pick-lift-pictures`; no people were tested. Keys say success and failure, 6 to 20
steps late and 3 % of them wrong. The classifier is trained on ``--episodes`` of them by the real recorder's files, without the
observation's numbers. What it says of ``--others``, made from other starts and never trained on, is compared with what was so. Finished
episodes are kept in DIR; stopped by Ctrl+C the same command goes on.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.late_keys import KeyedLoop
from takeover.data.recorder import Recorder
from takeover.data.schema import EpisodeKind, RunConfig, Step
from takeover.data.statistics import wilson
from takeover.data.workspace import Workspace
from takeover.policies.reward_data import RewardEpisode, read_recorded
from takeover.policies.reward_model import RewardModel, first_success
from takeover.policies.reward_pictures import episode_features
from takeover.policies.reward_settings import RewardSettings
from takeover.policies.reward_store import RewardManifest, load_reward
from takeover.policies.reward_training import RewardRequest, train_reward
from takeover.policies.torch_setup import configure

TASK = "pick-lift-pictures"
EARLY_STEPS = 6  # seen so much before the true success counts as seen wrongly


class RecordedKeys(KeyedLoop):
    """Episodes that go to a recorder, with their pictures."""

    def __init__(self, config: RunConfig, recorder: Recorder) -> None:
        super().__init__(config, date_back_steps=10)
        self._recorder = recorder

    def _feed(self, record_type: type[Any], /, **fields: Any) -> None:
        if record_type is Step:  # the task goes on after its success, until the key: pictures after a step belong to the last one alone
            fields["next_images"] = self.images() if fields["terminated"] or fields["truncated"] else []
        session = self.config.session_id
        fields["episode_id"] = f"{session}-{fields['episode_id']}"  # one that was cut off never shares a name with its repetition
        self._recorder.accept(record_type(session=session, rec_seq=self.records, **fields))
        self.records += 1


@dataclass(frozen=True)
class Judged:
    """Other episodes against the truth. Steps count from the true success on as positive."""

    found: int
    missed: int
    early: int
    false: int
    clean: int
    offsets: list[int]  # steps from the true success to the seen one
    true_steps: int
    false_steps: int
    positive_steps: int
    negative_steps: int

    @property
    def episodes_right(self) -> int:
        return self.found + self.clean

    @property
    def episodes(self) -> int:
        return self.found + self.missed + self.early + self.false + self.clean

    @property
    def majority(self) -> int:
        """Episodes that are right when the more frequent answer is given always."""
        there = self.found + self.missed + self.early
        return max(there, self.episodes - there)


def record(folder: Path, episodes: int, cameras: list[str], seed: int, noise: float = 0.45) -> dict[str, int]:
    """Until there are ``episodes``, each under its name with the step of its true success (-1: none); kept in ``truth.json``."""
    path = folder / "truth.json"
    truth: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    missing = range(len(truth), episodes)
    if not missing:
        return truth
    config = RunConfig(
        session_id=f"seed{seed}-{missing[0]}",
        workspace="",
        sockets="",
        task=TASK,
        clock="lockstep",
        seed=seed,
        operator_parameters={"noise": noise, "keys": 1},
        policy_cameras=cameras,
        reward="keys",
    )
    recorder = Recorder(Workspace(folder).prepare())
    loop = RecordedKeys(config, recorder)
    try:
        for number in missing:
            found = loop.episode(EpisodeKind.DEMONSTRATION, number)
            recorder.sync()
            truth[f"{config.session_id}-demonstration-{number}"] = int(found["first"])
            path.write_text(json.dumps(truth))
    finally:
        recorder.close()
        loop.robot.close()
    return truth


def judge(model: RewardModel, episodes: list[RewardEpisode], truth: dict[str, int]) -> Judged:
    """Of those ``episodes`` of which the truth is known, by the pictures in their files."""
    counts = dict.fromkeys(("found", "missed", "early", "false", "clean"), 0)
    steps = dict.fromkeys(("true_steps", "false_steps", "positive_steps", "negative_steps"), 0)
    offsets = []
    for episode in (episode for episode in episodes if episode.episode_id in truth):
        features = episode_features(model, episode.path, len(episode.states)) if model.config.cameras else None
        probabilities = model.probabilities(episode.states, features)
        real, seen = truth[episode.episode_id], first_success(probabilities, model.config.threshold)
        if real < 0:
            counts["clean" if seen < 0 else "false"] += 1
        elif seen < 0:
            counts["missed"] += 1
        else:
            offsets.append(seen - real)
            counts["early" if seen < real - EARLY_STEPS else "found"] += 1
        positive = np.arange(len(probabilities)) >= (real if real >= 0 else len(probabilities))
        passes = probabilities >= model.config.threshold
        steps["true_steps"] += int((passes & positive).sum())
        steps["false_steps"] += int((passes & ~positive).sum())
        steps["positive_steps"] += int(positive.sum())
        steps["negative_steps"] += int((~positive).sum())
    return Judged(**counts, **steps, offsets=offsets)


def train(folder: Path, cameras: list[str], settings: RewardSettings) -> tuple[RewardModel, RewardManifest]:
    """On what ``folder`` holds, pictures alone."""
    request = RewardRequest(robot_id="sim", task_id=TASK, settings=settings, state=False, cameras=tuple(cameras))
    manifest, problems = train_reward(folder, request, lambda done, total: True)
    for problem in problems:
        print(f"not read: {problem}", file=sys.stderr)
    return load_reward(folder, manifest.version)


def report(found: Judged, manifest: RewardManifest) -> str:
    """For people."""
    there, seen = found.found + found.early + found.missed, found.found + found.early + found.false

    def share(k: int, n: int) -> str:
        low, high = wilson(k, n)
        return f"{k} of {n} ({100 * low:.0f} to {100 * high:.0f} %)"

    data, without = manifest.data, found.episodes - there
    lines = [
        f"trained on {data['positives']} positive and {data['negatives']} negative steps, threshold {manifest.threshold:.2f}",
        f"other episodes: recall {share(found.found, there)}, precision {share(found.found, seen)}, false {share(found.false, without)}",
        f"right in {share(found.episodes_right, found.episodes)}; the more frequent answer always: {found.majority}",
        f"steps: precision {share(found.true_steps, found.true_steps + found.false_steps)}",
        f"steps: recall {share(found.true_steps, found.positive_steps)}",
    ]
    if found.offsets:
        offsets = f"{np.median(found.offsets):.0f} ({min(found.offsets)} to {max(found.offsets)})"
        lines.append(f"seen {offsets} steps after the true success, median and range")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--others", type=int, default=30)
    parser.add_argument("--cameras", nargs="+", default=["front", "wrist"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    configure(1)
    began = time.monotonic()
    record(given.out / "train", given.episodes, given.cameras, seed=0)
    truth = record(given.out / "others", given.others, given.cameras, seed=1)
    model, manifest = train(given.out / "train", given.cameras, RewardSettings())
    others = read_recorded(given.out / "others", "sim", TASK, RewardSettings())
    found = judge(model, others.episodes, truth)
    print(report(found, manifest))
    if given.json:
        about = {"episodes": given.episodes, "cameras": given.cameras, "wall_s": time.monotonic() - began, "data": manifest.data}
        given.json.write_text(json.dumps(about | msgspec.to_builtins(found), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
