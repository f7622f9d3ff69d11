"""The average of the trained weights over the last steps (EMA), in place of the weights themselves.

After step n the average goes a share of 1 - d(n) of the way to the present weights:

    d(n) = min(decay, (1 + n) / (10 + n))

So it looks back over a tenth of the run at first, and over 1 / (1 - decay) steps at most; of the
start less than 1% is left after four steps.

What is averaged are the method's own tensors, and the update is made of their averages. For all
weights, for singular values and for the vectors of a word, this is the average of the update. For a
product B A it is the product of the averages, which lacks the covariance of B and A over the steps
that the average looks back on: a term of second order in their change, which is small where the
weights change slowly (docs/choosing.md has the figures). The blocks of OFT are averaged as the skew
matrices that are trained, so what is made of them is orthogonal. An orthogonal start stays exact:
the frozen copy that is subtracted is left alone, and the average of tensors that don't change is
these tensors, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from tlora_cli.injection.adapter import Adapter


class Average:
    """The average of an adapter's trained tensors; fp32, beside them on the device.

    Args:
        adapter: whose tensors are averaged; they are as before training.
        decay: d(n) of long runs.
    """

    def __init__(self, adapter: Adapter, decay: float) -> None:
        self.decay = decay
        named = {
            f"{layer}.{name}": tensor
            for layer, change in adapter.layers.items()
            for name, tensor in change.named_parameters()
        }
        self._names = list(named)
        self._trained: list[Tensor] = list(named.values())
        self.tensors = [tensor.detach().clone() for tensor in self._trained]
        """The average of each trained tensor, or the tensor itself inside `shown`."""
        self._switches = [
            place
            for place, name in enumerate(self._names)
            if name.rpartition(".")[2] in adapter.method.switches
        ]

    def update(self, step: int) -> None:
        """Take in the present weights; the host does not wait for the device.

        Args:
            step: finished steps, this one included: d is a function of it alone.
        """
        kept = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self.tensors, self._trained, 1 - kept)
            if self._switches:  # what is off now is off in the average, too
                on = torch._foreach_sign([self._trained[place] for place in self._switches])
                torch._foreach_abs_(on)
                torch._foreach_mul_([self.tensors[place] for place in self._switches], on)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the adapter's tensors are the averages, and nothing may be trained or saved.

        Storages change places, so it costs neither time nor memory.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for place, tensor in enumerate(self._trained):
            tensor.data, self.tensors[place] = self.tensors[place], tensor.data

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages, by `<layer>.<tensor>`."""
        return dict(zip(self._names, self.tensors, strict=True))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy averages in place.

        Raises:
            ValueError: if they are of another adapter.
        """
        if self._names != list(state):
            raise ValueError("the average does not belong to this adapter")
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
