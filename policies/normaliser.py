"""Mean and scale of observations, fitted to the demonstrations.

Good demonstrations hardly touch anything: measured on peg-insert, their contact forces spread over 0.1 N while a policy that searches
for the hole feels 10 N. Scaled by the demonstrations alone, every contact would be clipped to the same number and the learner could not
feel. So a quantity is never magnified beyond what matters for its unit. Nor is it made nothing of: one reading that is far off everything
else would stretch the scale until the others are all the same number, so it is no part of the fit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_SPREAD = {"m": 0.005, "rad": 0.05, "m/s": 0.02, "rad/s": 0.2, "N": 5.0, "N m": 0.05, "feature": 0.2}
"""Spread below which an observation in this unit is not magnified further."""
_CONSTANT = 1e-6
_WILD = 1000.0  # times as far from the middle reading as the others go, and as what matters
_OTHERS = 0.98  # the share of the readings, those in the middle
_MATTERS = 1.0  # in other units


def fit_normaliser(observations: Tensor, units: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Rows (N, D) in ``units`` (D) -> mean (D,) and scale (D,), float32. Constant entries of other units keep scale 1."""
    rows = observations.double()
    mean, spread = _moments(rows, units)
    smallest = torch.tensor([SMALLEST_SPREAD.get(unit, _CONSTANT) for unit in units], dtype=torch.float64)
    scale = torch.where(spread > smallest, 1.0 / spread.clamp_min(_CONSTANT), 1.0 / smallest)
    scale = torch.where((spread <= _CONSTANT) & (smallest <= _CONSTANT), torch.ones_like(scale), scale)
    return mean.float(), scale.float()


def _moments(rows: Tensor, units: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of rows (N, D), wild readings left out."""
    n, outside = len(rows), int(len(rows) * (1.0 - _OTHERS) / 2.0)
    low, middle, high = (rows.kthvalue(1 + k, dim=0).values for k in (outside, (n - 1) // 2, n - 1 - outside))
    matters = torch.tensor([SMALLEST_SPREAD.get(unit, _MATTERS) for unit in units], dtype=torch.float64)
    wild = (rows - middle).abs() > _WILD * torch.maximum(high - low, matters)
    if not bool(wild.any()):
        return rows.mean(0), rows.std(0, correction=0)
    kept = torch.where(wild, torch.nan, rows)
    mean = kept.nanmean(0)
    return mean, (kept - mean).square().nanmean(0).sqrt()
