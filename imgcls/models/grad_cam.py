"""Grad-CAM: which places of an image made a convolutional network answer as it did."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgcls.errors import InputError
from imgcls.models.views import MeanOverViews

SMALLEST_MAP = 4
"""Side in cells of the smallest map that is shown: a smaller one does not say where in the image something lies."""


class NoMapError(InputError):
    """A network has no map from which Grad-CAM could tell a place in the image."""


@dataclass(frozen=True)
class Cams:
    """Grad-CAM's maps.

    Attributes:
        maps: float32 (B, h, w), at least 0; the larger, the more the place speaks for the class.
        layer: name of the layer whose output they weigh.
    """

    maps: Tensor
    layer: str


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor) -> Cams:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) on the last map of at least 4 x 4 cells.

    Each channel of the map is weighed by the mean of its gradient; the sum is cut off at 0. Of a network that is shown
    several views, it is the mean of their maps, each turned back to the image as it is.

    Args:
        network: in evaluation mode: (B, C, S, S) -> logits (B, K).
        images: float32 (B, C, S, S), normalised, on the network's device.
        classes: int64 (B,), for which the maps are to speak.

    Raises:
        NoMapError: it has no such map, or places in its maps are not places in the image.
    """
    if isinstance(network, MeanOverViews):
        of_views = [grad_cam(network.network, view.of(images), classes) for view in network.views]
        turned_back = [view.undone(cams.maps) for view, cams in zip(network.views, of_views, strict=True)]
        return Cams(torch.stack(turned_back).mean(dim=0), of_views[0].layer)
    for module in network.modules():
        if reason := getattr(module, "why_no_map", ""):
            raise NoMapError(f"Grad-CAM has nothing to show: {reason}")
    outputs: list[tuple[str, Any]] = []
    with ExitStack() as hooks, torch.enable_grad():
        for name, module in network.named_modules():
            hook = module.register_forward_hook(lambda _module, _args, out, name=name: outputs.append((name, out)))
            hooks.callback(hook.remove)
        logits = network(images.detach().requires_grad_())  # so that a frozen network has gradients as well
        layer, features = _last_map(outputs)
        chosen = logits.float().gather(1, classes[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return Cams(F.relu((weights * features).sum(dim=1)).detach().float(), layer)


def _last_map(outputs: list[tuple[str, Any]]) -> tuple[str, Tensor]:
    """The last square map (B, C, h, h) that is large enough, unless the network goes on with a sequence (B, N, C)."""
    num_dims = [out.ndim if isinstance(out, Tensor) else 0 for _, out in outputs]
    maps = [place for place, (_, out) in enumerate(outputs) if num_dims[place] == 4 and _is_large(out)]
    if not maps:
        raise NoMapError(
            f"Grad-CAM has nothing to show: the network has no map of {SMALLEST_MAP} x {SMALLEST_MAP} cells or more at "
            "this image size; a larger data.image_size gives larger maps"
        )
    if 3 in num_dims[maps[-1] :]:
        raise NoMapError(
            "Grad-CAM has nothing to show: the network turns the image into a sequence of patches and ends without a "
            "map, as vision transformers do"
        )
    return outputs[maps[-1]]


def _is_large(out: Tensor) -> bool:
    return out.shape[2] == out.shape[3] >= SMALLEST_MAP and out.requires_grad
