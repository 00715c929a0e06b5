"""Linear weights laid out as oneDNN reads them fastest, in place of the plain ones; for answering, not for training.

A CPU multiplies few rows by a matrix at the speed at which it reads the matrix, so the layout is what a token costs.
"""

import torch
from torch import Tensor

from memgen.errors import ConfigError

_ROWS = 8
"""Tokens in a pass that oneDNN lays weights out for; any other number works."""


class PackedWeights:
    """Weights by the tensors that they replace."""

    def __init__(self) -> None:
        self._packed: dict[int, Tensor] = {}

    def take(self, weight: Tensor, *, keep: bool = False) -> None:
        """Pack `(out, in)` and free it, unless something else still reads it.

        Raises:
            ConfigError: it can't be packed here.
        """
        if obstacle := packing_obstacle(weight.dtype, weight.device):
            raise ConfigError(f"pack_weights {obstacle}. Leave it off.")
        # Not inference tensors: who packs first may be in inference mode, and readers need not be.
        with torch.inference_mode(False), torch.no_grad():
            self._packed[id(weight)] = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), _ROWS)
            if not keep:
                # The tensor stays as the name of what it was; its memory goes.
                weight.data = weight.new_empty(0)

    def multiply(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`(..., out)` of inputs `(..., in)`.

        Raises:
            ConfigError: a gradient is wanted, which packed weights have not.
        """
        if torch.is_grad_enabled():
            raise ConfigError("these weights are packed for answering; load the base without pack_weights to train")
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs.contiguous(), self._packed[id(weight)], bias, "none", [], ""
        )
        return outputs


def packing_obstacle(dtype: torch.dtype, device: torch.device) -> str:
    """Why weights can't be packed, as the end of a sentence; empty if they can."""
    one_dnn = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.bfloat16 and device.type == "cpu" and one_dnn:
        return ""
    lacks = "" if one_dnn else ", which does not"
    return f"needs bfloat16 weights on a CPU that multiplies them in hardware; these are {dtype} on {device}{lacks}"
