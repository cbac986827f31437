"""The network that leaves the workbench: raw images in, probabilities out, with all that lies between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imgcls.data.augment import Normalise
from imgcls.data.preprocessing import Preprocessing
from imgcls.inference.resize import Squares


class ImagesToProbs(nn.Module):
    """The whole graph of an exported model: preprocessing, network, temperature and softmax.

    Args:
        network: float32 (B, C, S, S) -> logits (B, K), in evaluation mode, on the CPU.
        preprocessing: how an image becomes its input.
        temperature: T, by which the logits are divided.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, temperature: float) -> None:
        super().__init__()
        how = preprocessing
        self.squares = Squares(how.channels, how.decode_side, how.fit, how.image_size)
        self.normalise = Normalise(how.mean, how.std, torch.device("cpu"))
        self.network = network
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities float32 (B, K) of images uint8 (B, H, W, 1 or 3), upright, of any size."""
        logits = self.network(self.normalise(self.squares(images)))
        return torch.softmax(logits.float() / self.temperature, dim=1)
