"""What this machine computes on, decided at run time."""

from pathlib import Path

import psutil
import torch

_SHARE = {"cuda": 0.9, "cpu": 0.5}
"""Of a device's memory, what a training may take; beside it there are engines, and on a CPU everything else."""


def device() -> torch.device:
    """The device of models: the first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """The dtype that models compute in on `device`: bfloat16 where the hardware multiplies it, else
    float32.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.bfloat16 if native else torch.float32


def memory_bytes() -> int:
    """Memory of the device of models that a training may take."""
    target = device()
    if target.type == "cuda":
        total = float(torch.cuda.get_device_properties(target).total_memory)
    else:
        total = min(psutil.virtual_memory().total, _container_bytes())
    return int(total * _SHARE[target.type])


def _container_bytes() -> float:
    """The memory limit of this process's container (cgroup v2); infinite where there is none."""
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return float("inf")
