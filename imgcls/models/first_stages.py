"""The first stages of a network of timm, with a head of their own: what `model.depth` makes of `timm:NAME`."""

from __future__ import annotations

from torch import Tensor, nn


class FirstStages(nn.Module):
    """The first stages of a network of timm, and a linear layer on the mean of their last map over its places.

    The stages keep their weights. timm says where a stage ends: in `feature_info`, which has the map of each. It is cut
    as timm does for `features_only`.

    Args:
        network: of timm, which is changed: what lies behind the kept stages is taken away.
        num_stages: that are kept, at least 1.
        num_classes: K of the logits.
        dropout: probability of dropping a feature before the last layer.
    """

    def __init__(self, network: nn.Module, num_stages: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.last = num_stages - 1
        width: int = network.feature_info[self.last]["num_chs"]  # type: ignore[index, assignment]
        network.prune_intermediate_layers([self.last], prune_norm=True, prune_head=True)  # type: ignore[operator]
        self.backbone = network
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float images (B, C, S, S) -> logits (B, K)."""
        logits: Tensor = self.head(self.dropout(self.last_map(images).mean(dim=(2, 3))))
        return logits

    def last_map(self, images: Tensor) -> Tensor:
        """Float images (B, C, S, S) -> the map of the last kept stage, (B, F, h, w)."""
        (features,) = self.backbone.forward_intermediates(  # type: ignore[operator]
            images, indices=[self.last], stop_early=True, intermediates_only=True
        )
        return features  # type: ignore[no-any-return]


def count_stages(network: nn.Module) -> int:
    """Stages of a network of timm after which it can be cut; 0 where timm does not say where they end."""
    is_cut_by_timm = hasattr(network, "prune_intermediate_layers") and hasattr(network, "forward_intermediates")
    return len(network.feature_info) if is_cut_by_timm else 0  # type: ignore[arg-type]
