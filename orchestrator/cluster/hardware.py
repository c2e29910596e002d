"""What the workers of this machine compute on, and what a run names as its hardware."""

import os

from orchestrator.errors import UsageError
from tasks.hardware import cpu_name, gpu_names


def visible_gpus() -> list[str]:
    """The GPUs that workers are pinned to: those in CUDA_VISIBLE_DEVICES if it is set, otherwise all."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    # set but empty means none, as CUDA reads it
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu]
    return [str(number) for number in range(len(gpu_names()))]


def hardware(device: str, *, local: bool) -> str:
    """The CPU or GPU model that latencies are planned for; ``local``: workers run on this machine."""
    if device == "cpu":
        return cpu_name()
    names = gpu_names()
    if not names and local:
        raise UsageError("device 'cuda': this machine has no NVIDIA GPU. Use --set device=cpu.")
    return names[0] if names else "cuda"
