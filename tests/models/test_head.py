"""The head of a network: which networks have one that can be trained alone, and what tells two backbones apart."""

import pytest
import torch

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError
from imgcls.models.head import Head, backbone_digest, head_shape
from imgcls.models.registry import build_model, resolve_model


def network(**config):
    return build_model(resolve_model(ModelConfig(**config), 3, 32), 4, 3, 32, seed=0).eval()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision:mobilenet_v3_small", ("classifier.3", 1024)),
        ("torchvision:resnet18", ("fc", 512)),
        ("timm:tf_efficientnet_lite0", ("classifier", 1280)),
    ],
)
def test_the_head_is_the_last_linear_layer(name, shape):
    assert head_shape(ModelConfig(name=name, weights="a.pt"), 3, 32) == shape


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torchvision:squeezenet1_1", "its last layer is not a linear one"),
        ("timm:deit_tiny_distilled_patch16_224", "it has 2 last layers"),
    ],
)
def test_a_network_without_one_such_layer_is_refused(name, why):
    with pytest.raises(ConfigError, match=f"{why}; .* --set train.head_only=false"):
        head_shape(ModelConfig(name=name, weights="a.pt"), 3, 224)


def test_a_backbone_is_known_by_its_tensors_and_not_by_its_head():
    model = network(depth=8, width=8)
    shape = head_shape(ModelConfig(depth=8, width=8, weights="a.pt", stem="small"), 3, 32)
    head = Head(model, shape, dropout=0.0)
    before = backbone_digest(head)
    with torch.no_grad():
        model.fc.weight.add_(1)
    assert backbone_digest(head) == before
    with torch.no_grad():
        model.bn1.running_mean.add_(1e-6)
    assert backbone_digest(head) != before


def test_only_the_head_has_parameters_and_several_views_give_their_mean():
    model = network(depth=8, width=8, dropout=0.5)
    head = Head(model, head_shape(ModelConfig(depth=8, width=8, weights="a.pt", stem="small"), 3, 32), dropout=0.5)
    assert [tuple(p.shape) for p in head.parameters()] == [(4, 32), (4,)]
    features = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    head.eval()
    each = torch.stack([torch.softmax(model.fc(features[:, view]), dim=1) for view in range(3)])
    torch.testing.assert_close(head(features).exp(), each.mean(dim=0))
    head.train()
    dropped = head.dropout(torch.ones(1000))
    assert 0.4 < float((dropped == 0).float().mean()) < 0.6
