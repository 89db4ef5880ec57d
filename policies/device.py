"""Where a learner computes, and how batches get there."""

import torch
from torch import Tensor

from takeover.policies.base import LearnerError


def choose_device(wanted: str) -> torch.device:
    """``auto``: the first CUDA device, the CPU where there is none; else ``cpu``, ``cuda`` or ``cuda:N``.

    Raises `LearnerError` when that device is not there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise LearnerError(f"device = {wanted!r}, but this machine has {count} CUDA devices; set device=auto or device=cpu")
    return device


def sent(batch: Tensor, device: torch.device) -> Tensor:
    """A batch from the CPU on ``device``, where it is itself; to a GPU through page-locked memory, without waiting."""
    if batch.device == device or device.type == "cpu":
        return batch
    return batch.pin_memory().to(device, non_blocking=True)


def device_name(device: torch.device) -> str:
    """For reports: ``cpu``, or the GPU's name."""
    return "cpu" if device.type == "cpu" else f"{device} ({torch.cuda.get_device_name(device)})"
