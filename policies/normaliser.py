"""Mean and scale of observations, fitted to the demonstrations.

Good demonstrations hardly touch anything: measured on peg-insert, their contact forces spread over 0.1 N while a policy that searches
for the hole feels 10 N. Scaled by the demonstrations alone, every contact would be clipped to the same number and the learner could not
feel. So a quantity is never magnified beyond what matters for its unit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

SMALLEST_SPREAD = {"m": 0.005, "rad": 0.05, "m/s": 0.02, "rad/s": 0.2, "N": 5.0, "N m": 0.05, "feature": 0.2}
"""Spread below which an observation in this unit is not magnified further."""
_CONSTANT = 1e-6


def fit_normaliser(observations: Tensor, units: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Rows (N, D) in ``units`` (D) -> mean (D,) and scale (D,), float32. Constant entries of other units keep scale 1."""
    rows = observations.double()
    spread = rows.std(0, correction=0)
    smallest = torch.tensor([SMALLEST_SPREAD.get(unit, _CONSTANT) for unit in units], dtype=torch.float64)
    scale = torch.where(spread > smallest, 1.0 / spread.clamp_min(_CONSTANT), 1.0 / smallest)
    scale = torch.where((spread <= _CONSTANT) & (smallest <= _CONSTANT), torch.ones_like(scale), scale)
    return rows.mean(0).float(), scale.float()
