"""One place that sets up torch for a process: few threads, no denormals."""

import torch

INFERENCE_DTYPE = torch.float32


def configure(threads: int = 1) -> None:
    """Small networks run fastest on one thread, and leave the other cores to the control loop."""
    torch.set_num_threads(max(1, threads))
    torch.set_flush_denormal(True)
