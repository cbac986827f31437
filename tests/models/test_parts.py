"""timm's own layer-wise decay is the oracle of its networks' blocks; sets, and counts of blocks, that of the others."""

import pytest
import timm
import torch
import torchvision
from timm.optim import param_groups_layer_decay
from torch import nn

from imgcls.config.keys import ModelConfig
from imgcls.models.parts import NetworkParts, NoFeaturesError, head_features
from imgcls.models.registry import build_model, network_parts, resolve_model
from imgcls.models.resnet import resnet

OURS = {"resnet 10": {"depth": 10}, "resnet 18": {"depth": 18}, "resnet 20": {"depth": 20}, "resnet 50": {"depth": 50}}
SMALL = {
    **{name: {"name": "resnet", "width": 4, **values} for name, values in OURS.items()},
    "resnet32": {"name": "resnet32", "width": 4},
    "random-encoder": {"name": "random-encoder", "width": 4, "patch": 8},
}
"""Networks of this package, narrow."""

TIMM = [
    "tf_efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto", "resnet18", "mobilenetv3_small_050",
    "deit_tiny_distilled_patch16_224", "swin_tiny_patch4_window7_224", "densenet121",
]  # fmt: skip


def built(size=32, **model):
    config = resolve_model(ModelConfig(**model), 3, size)
    network = build_model(config, 5, 3, size, seed=0).eval()
    return network, network_parts(config, network)


def shapes_only(library, name):
    """A network without numbers, because its names are all that is asked for."""
    make = timm.create_model if library == "timm" else torchvision.models.get_model
    with torch.device("meta"):
        network = make(name, num_classes=5)
    return network, network_parts(ModelConfig(name=f"{library}:{name}"), network)


def assert_whole(network: nn.Module, parts: NetworkParts):
    """Each trained parameter is one of the head's, or has a distance from it; no distance is left out."""
    heads = [f"{head}.{name}" for head in parts.heads for name, _ in network.get_submodule(head).named_parameters()]
    trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert sorted([*heads, *parts.distances]) == sorted(trained)
    furthest = max(parts.distances.values())
    assert set(range(1, furthest + 1)) <= set(parts.distances.values()) <= set(range(furthest + 1))


@pytest.mark.parametrize(("name", "blocks"), [
    ("resnet 10", 4), ("resnet 18", 8), ("resnet 20", 9), ("resnet 50", 16), ("resnet32", 16), ("random-encoder", 8),
])  # fmt: skip
def test_our_networks_have_a_stem_and_their_residual_blocks(name, blocks):
    network, parts = built(**SMALL[name])
    assert_whole(network, parts)
    prefix = "resnet." if name == "random-encoder" else ""
    assert parts.heads == (f"{prefix}fc",)
    assert {n for n, d in parts.distances.items() if d == blocks + 1} == {
        f"{prefix}{n}" for n in ("conv1.weight", "bn1.weight", "bn1.bias")
    }
    assert max(parts.distances.values()) == blocks + 1
    assert not [n for n in parts.distances if n.startswith("encoder")]  # never trained


@pytest.mark.parametrize("name", TIMM)
def test_the_blocks_of_timm_are_those_of_its_own_layer_wise_decay(name):
    network, parts = shapes_only("timm", name)
    assert_whole(network, parts)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    theirs = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.5)
        for parameter in group["params"]
    }
    ours = {name: 0.5 ** parts.distances.get(name, 0) for name in theirs}
    assert ours == theirs
    assert len(set(ours.values())) > 4


@pytest.mark.parametrize(
    ("name", "furthest", "stem", "beside_the_head"),
    [
        ("resnet18", 9, {"conv1", "bn1"}, set()),
        ("mobilenet_v3_small", 14, {"features.0.0", "features.0.1"}, set()),
        ("efficientnet_b0", 18, {"features.0.0", "features.0.1"}, set()),
        ("vit_b_16", 13, {"class_token", "conv_proj", "encoder.pos_embedding"}, {"encoder.ln"}),
        ("convnext_tiny", 22, {"features.0.0", "features.0.1"}, {"classifier.0"}),
        ("swin_t", 16, {"features.0.0", "features.0.2"}, {"norm"}),
        ("densenet121", 62, {"features.conv0", "features.norm0"}, {"features.norm5"}),
        ("vgg11_bn", 10, {"features.0", "features.1"}, set()),
        ("squeezenet1_1", 9, {"features.0"}, set()),
        ("maxvit_t", 14, {"stem.0.0", "stem.0.1"}, set()),
        ("shufflenet_v2_x0_5", 18, {"conv1.0", "conv1.1"}, set()),
    ],
)
def test_torchvisions_networks_have_their_blocks(name, furthest, stem, beside_the_head):
    network, parts = shapes_only("torchvision", name)
    assert_whole(network, parts)
    assert max(parts.distances.values()) == furthest

    def owners(distance):
        found = {name for name, at in parts.distances.items() if at == distance}
        return {n if n in ("class_token", "encoder.pos_embedding") else n.rpartition(".")[0] for n in found}

    assert owners(furthest) == stem
    assert owners(0) == beside_the_head


@pytest.mark.parametrize("name", [*SMALL, "torchvision:mobilenet_v3_small", "timm:tf_efficientnet_lite0"])
def test_the_head_makes_the_logits_of_the_features_before_it(name):
    network, parts = built(**SMALL.get(name, {"name": name}))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = head_features(network, parts.heads, images)
        head = network.get_submodule(parts.heads[0])
        assert features.shape == (4, head.in_features)
        torch.testing.assert_close(head(features), network(images))


@pytest.mark.parametrize(("name", "size", "why"), [
    ("torchvision:squeezenet1_1", 32, "not a linear one"), ("timm:deit_tiny_distilled_patch16_224", 224, "2 last"),
])  # fmt: skip
def test_a_network_without_such_features_says_why(name, size, why):
    network, parts = built(size, name=name)
    with pytest.raises(NoFeaturesError, match=why):
        head_features(network, parts.heads, torch.zeros(1, 3, size, size))


def test_more_after_the_head_is_seen():
    network = nn.Sequential(resnet(8, 4, "small", 5), nn.Softmax(dim=1)).eval()
    with torch.no_grad(), pytest.raises(NoFeaturesError, match="more follows"):
        head_features(network, ["0.fc"], torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
