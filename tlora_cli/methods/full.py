"""Full fine-tuning, of the attention or of everything: DreamBooth (Ruiz et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlora_cli.methods.base import Reweighting


class Full(Reweighting):
    """W' = W + D for every listed parameter of a module, D = 0 at the start, fp32.

    Training D with Adam is training W, but weight decay draws W to the base, not to zero.

    Args:
        own: name -> parameter of the module.
    """

    def __init__(self, own: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.change = nn.ParameterDict(
            {
                name: nn.Parameter(torch.zeros_like(w, dtype=torch.float32))
                for name, w in own.items()
            }
        )

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the changed parameters."""
        return {name: own[name] + change for name, change in self.change.items()}
