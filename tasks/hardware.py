"""The hardware of this machine: its GPUs and its CPU model."""

import platform
import subprocess
from pathlib import Path


def gpu_names() -> list[str]:
    """Models of this machine's NVIDIA GPUs, from nvidia-smi; empty if there are none."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        # a subprocess, since commands do without torch; limited, as a broken driver may never answer
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def cpu_name() -> str:
    """Model of this machine's CPU."""
    try:
        # on Linux platform.processor() names no model
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
