"""The hardware of this machine: its GPUs and its CPU model."""

import os
import platform
import subprocess
from pathlib import Path

from orchestrator.errors import UsageError


def visible_gpus() -> list[str]:
    """The GPUs that workers are pinned to: those in CUDA_VISIBLE_DEVICES if it is set, otherwise all."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    # set but empty means none, as CUDA reads it
    if chosen is not None:
        return [gpu for gpu in chosen.split(",") if gpu]
    return [str(number) for number in range(len(gpu_names()))]


def gpu_names() -> list[str]:
    """Models of this machine's NVIDIA GPUs, from nvidia-smi; empty if there are none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        # a subprocess, since commands do without torch; limited, as a broken driver may never answer
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def hardware(device: str, *, local: bool) -> str:
    """The CPU or GPU model that latencies are measured on; ``local``: workers run on this machine."""
    if device == "cuda":
        names = gpu_names()
        if not names and local:
            raise UsageError("device 'cuda': this machine has no NVIDIA GPU. Use --set device=cpu.")
        return names[0] if names else "cuda"
    try:
        # on Linux platform.processor() names no model
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
