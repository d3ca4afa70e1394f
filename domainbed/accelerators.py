"""What an accelerator offers, asked of its own module of torch (`torch.cuda`, also for ROCm; `torch.xpu`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PINNED = ("cuda", "xpu")
"""Devices to which copies from pinned memory are faster."""


def default_device() -> str:
    """Type of this machine's accelerator, or "cpu" if it has none that has float64 (Apple's MPS has not)."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None or accelerator.type == "mps" else str(accelerator.type)


def free_bytes(device: torch.device) -> int:
    """Free memory of an accelerator; 0 for the CPU, and where torch cannot tell."""
    found = _ask(device, "mem_get_info")
    return 0 if found is None else int(found[0])


def total_bytes(device: torch.device) -> int:
    """Memory of an accelerator; 0 for the CPU, and where torch cannot tell."""
    found = _ask(device, "mem_get_info")
    return 0 if found is None else int(found[1])


def reserved_bytes(device: torch.device) -> int:
    """Memory of an accelerator that this process has, used or not; 0 where torch cannot tell."""
    return int(_ask(device, "memory_reserved") or 0)


def peak_bytes(device: torch.device) -> int:
    """Most memory that tensors of this process took on an accelerator; 0 where torch cannot tell."""
    return int(_ask(device, "max_memory_allocated") or 0)


def name_of(device: torch.device) -> str:
    """Name of an accelerator's model, or else the device's type."""
    return str(_ask(device, "get_device_name") or device.type)


def takes_pinned_memory(device: torch.device) -> bool:
    """Whether copies to `device` are faster from pinned memory."""
    return device.type in _PINNED


def _ask(device: torch.device, function: str) -> Any:  # noqa: ANN401 - what that function returns
    """Result of a function of the device's module; None for the CPU, and if there is no such function."""
    import torch

    if device.type == "cpu":
        return None
    asked = getattr(torch.get_device_module(device), function, None)
    return None if asked is None else asked(device)
