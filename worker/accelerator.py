"""What only torch knows of a device that is no processor: its name, its memory, whether it multiplies right."""

from __future__ import annotations

import torch

from . import device as devices
from .chip import apple_chip

# Of the memory that the driver recommends: above it the machine swaps. What an Apple GPU keeps for each new shape is
# not given back by `empty_cache`, so the worker starts anew.
FULL_SHARE = 0.8


def name(device: str) -> str:
    """The device in words, for the record of a part."""
    kind = devices.kind(device)
    if kind == "cuda":
        return torch.cuda.get_device_name()
    if kind == "xpu":
        return str(torch.xpu.get_device_name())
    if kind == "mps":
        return apple_chip() or "Apple GPU"
    return torch.backends.cpu.get_cpu_capability()


def release(device: str) -> None:
    """Give back what torch keeps of the device's memory for later."""
    kind = devices.kind(device)
    if kind == "mps":
        torch.mps.empty_cache()
    elif kind == "xpu":
        torch.xpu.empty_cache()
    elif torch.cuda.is_available():
        torch.cuda.empty_cache()


def most_bytes(device: str) -> int:
    """The most of the device's memory that torch has held in this process; 0 where it cannot say."""
    kind = devices.kind(device)
    if kind == "cuda":
        return int(torch.cuda.max_memory_reserved())
    if kind == "xpu":
        return int(torch.xpu.max_memory_reserved())
    return int(torch.mps.driver_allocated_memory()) if kind == "mps" else 0


def too_full() -> str:
    """Why a worker on an Apple GPU is to be started anew; empty where its driver holds little memory."""
    if not torch.backends.mps.is_available():
        return ""
    return fullness(torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory())


def fullness(held: int, recommended: int) -> str:
    """The same, from both numbers of bytes: what is held, and what the system recommends as the most."""
    if not recommended or held <= FULL_SHARE * recommended:
        return ""
    return (
        f"nearly out of memory: the GPU's driver holds {held / 1e9:.1f} GB of the {recommended / 1e9:.1f} GB that it "
        "recommends, and gives them back only to a new process"
    )


def product(device: str) -> str:
    """What is wrong with a matrix product on a device; empty where it came out right."""
    try:
        ones = torch.ones((256, 256), device=device)
        # A sum of ones is exact in any precision that a card may choose: 256 in every place, or it is broken.
        return "" if bool(((ones @ ones) == 256).all()) else "a matrix product came out wrong"
    except Exception as error:  # whatever the driver says is what a person has to know
        return (str(error).splitlines() or [type(error).__name__])[0][:300]
