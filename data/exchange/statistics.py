"""Statistics of a dataset's features as LeRobot wants them: per episode, and of all together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MAX_PICTURES = 16  # of an episode's pictures are looked at


def numeric_statistics(values: np.ndarray) -> dict[str, list[Any]]:
    """Of (n,) or (n, D): lists of length 1 or D; ``count`` is [n]."""
    table = np.asarray(values, np.float64).reshape(len(values), -1)
    found = {"min": table.min(0), "max": table.max(0), "mean": table.mean(0), "std": table.std(0)}
    quantiles = np.quantile(table, list(QUANTILES.values()), axis=0)
    found |= dict(zip(QUANTILES, quantiles, strict=True))
    return {name: value.tolist() for name, value in found.items()} | {"count": [len(values)]}


def picture_statistics(pictures: Sequence[np.ndarray], count: int) -> dict[str, list[Any]]:
    """Of (H, W, 3) uint8 pictures, per channel as (3, 1, 1) in [0, 1]. ``count``: frames they stand for."""
    sampled = np.concatenate([picture[::4, ::4].reshape(-1, 3) for picture in pictures]).astype(np.float64) / 255.0
    found = numeric_statistics(sampled)
    return {name: np.reshape(value, (3, 1, 1)).tolist() for name, value in found.items() if name != "count"} | {"count": [count]}


def sample(count: int) -> list[int]:
    """Which of ``count`` pictures statistics are made of."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, MAX_PICTURES))})


def combine(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One feature's statistics over several episodes. Exact but for the quantiles, which are means weighted by frames."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    weights = counts / counts.sum()

    def stacked(name: str) -> np.ndarray:
        return np.array([part[name] for part in parts], np.float64)

    def weighted(values: np.ndarray) -> np.ndarray:
        return np.tensordot(weights, values, axes=1)

    mean = weighted(stacked("mean"))
    variance = weighted(stacked("std") ** 2 + (stacked("mean") - mean) ** 2)
    found = {"min": stacked("min").min(0), "max": stacked("max").max(0), "mean": mean, "std": np.sqrt(variance)}
    found |= {name: weighted(stacked(name)) for name in QUANTILES}
    return {name: value.tolist() for name, value in found.items()} | {"count": [int(counts.sum())]}
