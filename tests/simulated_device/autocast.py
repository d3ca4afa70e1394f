"""Autocast on the simulated device, with the lists of operations that CUDA has."""

from __future__ import annotations

from typing import Any

import torch
from device import NAME
from torch.utils._pytree import tree_map_only

_KEY = "AutocastPrivateUse1"
_LOW_PRECISION = """
    conv1d conv2d conv3d linear matmul mm bmm addmm baddbmm addbmm mv addmv prelu scaled_dot_product_attention
"""
_FLOAT32 = """
    layer_norm group_norm norm.Scalar norm.ScalarOpt_dim linalg_vector_norm cosine_similarity softmax.int
    log_softmax.int cdist exp log pow.Tensor_Scalar rsqrt reciprocal sum sum.dim_IntList prod cumsum nll_loss
    cross_entropy_loss mse_loss kl_div smooth_l1_loss binary_cross_entropy_with_logits softplus
"""


def install() -> torch.library.Library:
    """Add autocast's rules; they last as long as what is returned."""
    rest = torch.library.Library("_", "IMPL", _KEY)
    rest.fallback(torch.library.fallthrough_kernel)
    rules = torch.library.Library("aten", "IMPL", _KEY)
    for names, low in ((_LOW_PRECISION, True), (_FLOAT32, False)):
        for name in names.split():
            rules.impl(name, _rule(name, low))
    rules.rest = rest  # type: ignore[attr-defined] # kept with it
    return rules


def _rule(name: str, low: bool) -> Any:
    packet, _, overload = name.partition(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
    excluded = torch._C.DispatchKeySet(torch._C._parse_dispatch_key(_KEY))

    def run(*args: Any, **kwargs: Any) -> Any:
        dtype = torch.get_autocast_dtype(NAME) if low else torch.float32

        def cast(tensor: torch.Tensor) -> torch.Tensor:
            lower = tensor.dtype in (torch.float16, torch.bfloat16, torch.float32)
            return tensor.to(dtype) if lower and tensor.device.type == NAME else tensor

        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return operation(
                *tree_map_only(torch.Tensor, cast, args), **tree_map_only(torch.Tensor, cast, kwargs)
            )

    return run
