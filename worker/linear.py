"""Linear layers on a processor by oneDNN, each with its weights laid out once for it.

torch multiplies float32 by MKL, which on AMD's processors reaches less than half of what oneDNN does with AVX-512, and
less than it with AVX2; torch brings oneDNN along and uses it itself for models that it compiles. Measured on an EPYC
(`benchmarks/limits.py`; AVX2 by `ONEDNN_MAX_CPU_ISA`), where the bits are also the same whatever the batch and the
threads. Other makers' processors were not measured: they stay as they are.
"""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any, Callable

import torch
from torch.nn.functional import linear

NAME = "oneDNN"
MEASURED = ("AuthenticAMD",)  # makers, as /proc/cpuinfo names them
# The relative difference to torch's own product, on four rows: another order of summing gives 1e-6, a fault far more.
ALIKE, ROWS = 1e-5, 4


class LaidOut:
    """The linear layers of a model, by oneDNN while it is on. The model keeps its weights: they are there twice."""

    def __init__(self, layers: dict[torch.nn.Module, Callable[[Any], Any]], why: str = ""):
        """`layers`: what each is done by; `why`: why there are none."""
        self._layers, self.why = layers, why
        self.on()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._layers)

    def on(self) -> None:
        """Have them computed so."""
        for layer, forward in self._layers.items():
            layer.forward = forward

    def off(self) -> None:
        """Have them computed as torch does."""
        for layer in self._layers:
            vars(layer).pop("forward", None)


@torch.inference_mode()
def laid_out(model: torch.nn.Module) -> LaidOut:
    """Lay out the float32 linear layers of a model on the processor; none where one of them comes out otherwise.

    No thread is started: a process may do it and be forked.
    """
    if why := why_not():
        return LaidOut({}, why)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return LaidOut({layer: _by_onednn(layer) for layer in model.modules() if _fits(layer)})
    except Exception as error:  # whatever it is, torch's own way stays
        return LaidOut({}, f"{NAME}: {type(error).__name__}: {error}"[:300])
    finally:
        torch.set_num_threads(threads)


def why_not() -> str:
    """Why torch's own way stays on this machine; empty where oneDNN is known to be faster."""
    onednn: Any = torch.backends.mkldnn
    if not onednn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return f"this torch has no {NAME}"
    return "" if maker() in MEASURED else f"{NAME} was not measured on a processor of this maker"


def maker() -> str:
    """Who made this processor, as Linux names it; empty where it does not."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("vendor_id"):
                return line.partition(":")[2].strip()
    return ""


def _fits(layer: Any) -> bool:
    """Whether it is a plain linear layer: a class made from it may do more."""
    return type(layer) is torch.nn.Linear and (layer.weight.dtype, layer.weight.device.type) == (torch.float32, "cpu")


def _by_onednn(layer: Any) -> Callable[[Any], Any]:
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight)
    forward = functools.partial(_multiply, weight, layer.bias)
    tried = torch.linspace(-1.0, 1.0, ROWS * layer.in_features).reshape(ROWS, -1)
    expected = linear(tried, layer.weight, layer.bias)
    away = float((forward(tried) - expected).norm() / expected.norm().clamp_min(1e-30))
    if not away <= ALIKE:
        raise ArithmeticError(f"a product comes out {away:.2g} off, expected at most {ALIKE:g}")
    return forward


def _multiply(weight: Any, bias: Any, given: Any) -> Any:
    return torch.ops.mkldnn._linear_pointwise(given, weight, bias, "none", [], "")
