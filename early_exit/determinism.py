"""One switch that makes torch compute the same bits from the same inputs in any process."""

from __future__ import annotations

import os

import torch
import torch.utils.deterministic


def set_deterministic(threads: int) -> None:
    """Compute with ``threads`` CPU threads and deterministic full-precision kernels from now on.

    The thread count is part of a result: one thread and two add up in different orders. On CUDA, TF32 is
    switched off, so that vectors agree with a CPU's to about 1e-4. Process-wide; call it before
    computing. Raises ``ValueError`` for fewer than one thread.
    """
    if threads < 1:
        raise ValueError(f"{threads} threads; give at least 1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)  # raises where torch has only a kernel that is not
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a tenth faster
    torch.backends.cudnn.benchmark = False  # it would choose kernels by speed, others in each process
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
