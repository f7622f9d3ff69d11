"""Rectified flow over packed latents: patches of 2 x 2 places are the tokens of a transformer."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from tlora_cli.families.facts import Argument, Conditioning
from tlora_cli.families.rectified_flow import RectifiedFlow

if TYPE_CHECKING:
    from torch import Tensor, nn


class PackedFlow(RectifiedFlow):
    """A family whose transformer is given tokens, and answers with as many."""

    latent_patch = 2
    latent_input = Argument("hidden_states", 0)

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent; the transformer is given patches of 2 x 2."""
        return super().latent_channels(denoiser) // self.latent_patch**2

    @abstractmethod
    def inputs(self, noisy: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Return the transformer's inputs beside tokens and timestep.

        Args:
            noisy: latents (B, C, h, w), whose places the tokens have.
            conditioning: a row for each.
        """

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer on packed latents; it takes t / 1000, and no guidance."""
        from tlora_cli.families.patches import pack, unpack

        tokens: Tensor = denoiser(
            hidden_states=pack(noisy),
            timestep=self.told(t),
            **self.inputs(noisy, conditioning),
            return_dict=False,
        )[0]
        return unpack(tokens, *noisy.shape[-2:])

    def unpacked(self, tokens: Tensor, width: int, height: int) -> Tensor:
        """Return the latents (B, C, h, w) of a pipeline's tokens, for a size in pixels."""
        from tlora_cli.families.patches import unpack

        rows, columns = (side // self.pixel_multiple for side in (height, width))
        return unpack(tokens, 2 * rows, 2 * columns)
