"""Loads a dataset with LeRobot's own classes and writes down what came. Runs where lerobot is installed; needs nothing of ours.

    python lerobot_loader.py OUT DATASET [DATASET ...]    (prints JSON: {name: what it says of the dataset})

OUT/<name>.npz has every column of every frame as the loader gives it (``frame/<key>``), windows of three frames (``delta/<key>``, with
``..._is_pad``) and the statistics (``stats/<key>/<kind>``).
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import dataset_to_policy_features


def arrays(items):
    """{key: stacked values} of frames; texts are left to the caller."""
    numeric = [key for key, value in items[0].items() if not isinstance(value, str)]
    return {key: np.stack([np.asarray(item[key]) for item in items]) for key in numeric}


def opened(root, **options):
    return LeRobotDataset("local/takeover", root=root, video_backend="pyav", **options)


def load(root: Path, out: Path) -> dict:
    dataset = opened(root)
    fps = dataset.fps
    found = {f"frame/{key}": value for key, value in arrays([dataset[i] for i in range(len(dataset))]).items()}
    cameras = list(dataset.meta.camera_keys)
    around = [-1 / fps, 0.0, 1 / fps]
    windows = opened(root, delta_timestamps=dict.fromkeys(("observation.state", "action", *cameras), around))
    found |= {f"delta/{key}": value for key, value in arrays([windows[i] for i in range(len(windows))]).items()}
    found |= {f"stats/{key}/{kind}": np.asarray(value) for key, kinds in dataset.meta.stats.items() for kind, value in kinds.items()}
    np.savez(out, **found)
    batches = list(torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True))
    last = dataset.meta.total_episodes - 1
    chosen = opened(root, episodes=[0, last])
    return {
        "lerobot": version("lerobot"),
        "torch": torch.__version__,
        "frames": len(dataset),
        "episodes": dataset.meta.total_episodes,
        "fps": fps,
        "cameras": cameras,
        "video_keys": list(dataset.meta.video_keys),
        "features": {key: [feature["dtype"], list(feature["shape"])] for key, feature in dataset.meta.features.items()},
        "policy_features": {key: [f.type.value, list(f.shape)] for key, f in dataset_to_policy_features(dataset.meta.features).items()},
        "tasks": [dataset[i]["task"] for i in range(len(dataset))],
        "ranges": [[int(e["dataset_from_index"]), int(e["dataset_to_index"]), int(e["length"])] for e in dataset.meta.episodes],
        "chosen": [len(chosen), sorted({int(chosen[i]["episode_index"]) for i in range(len(chosen))})],
        "batched": sum(len(batch["index"]) for batch in batches),
    }


def main(out: Path, *roots: Path) -> None:
    print(json.dumps({root.name: load(root, out / f"{root.name}.npz") for root in roots}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
