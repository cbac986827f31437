"""`model.depth` of timm's networks: timm itself says what the maps of the kept stages are."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from imgcls.cli.models import facts_of
from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models.first_stages import FirstStages
from imgcls.models.grad_cam import NoMapError, grad_cam
from imgcls.models.head import head_shape
from imgcls.models.parts import head_features
from imgcls.models.registry import build_model, describe_model, network_parts, resolve_model
from imgcls.reporting.methods_section import model_words
from imgcls.run_record import RunRecord

SIDE = 64
FAMILIES = [("test_resnet", 4), ("test_efficientnet", 2), ("test_convnext", 2), ("test_byobnet", 4)]
LITE = ModelConfig(name="timm:tf_efficientnet_lite0", weights="package:efficientnet-lite0", depth=4)


def images(side=SIDE):
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


def built(name, depth, num_classes=5, side=SIDE, file=None, **values):
    config = resolve_model(ModelConfig(name=f"timm:{name}", depth=depth, **values), 3, side)
    return config, build_model(config, num_classes, 3, side, seed=3, file=file).eval()


def maps_by_timm(network, depth):
    """What timm gives for one stage of a whole network."""
    with torch.no_grad():
        return network.forward_intermediates(images(), indices=[depth - 1], intermediates_only=True)[0]


@pytest.mark.parametrize(("name", "depth"), FAMILIES)
def test_the_kept_stages_are_those_of_the_whole_network(name, depth, tmp_path):
    whole = timm.create_model(name, num_classes=1000).eval()
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    config, network = built(name, depth, weights="whole.safetensors", file=tmp_path / "whole.safetensors", dropout=0.4)
    assert isinstance(network, FirstStages) and config.depth == depth
    with torch.no_grad():
        maps = network.last_map(images())
        logits = network(images())
    assert torch.equal(maps, maps_by_timm(whole, depth))
    by_hand = maps.mean(dim=(2, 3)) @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(logits, by_hand)
    assert logits.shape == (3, 5)
    theirs = whole.state_dict()
    kept = network.backbone.state_dict()
    assert kept and all(torch.equal(tensor, theirs[tensor_name]) for tensor_name, tensor in kept.items())
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in whole.parameters())


def test_a_transformer_is_cut_after_a_block(tmp_path):
    whole = timm.create_model("test_vit").eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pt")
    _, network = built("test_vit", 2, side=160, weights="whole.pt", file=tmp_path / "whole.pt")
    with torch.no_grad():
        maps = network.last_map(images(160))
        (theirs,) = whole.forward_intermediates(images(160), indices=[1], intermediates_only=True)
    assert torch.equal(maps, theirs)
    with pytest.raises(NoMapError, match="sequence"):
        grad_cam(network, images(160), torch.zeros(3, dtype=torch.int64))


def test_the_weights_of_a_package_are_those_of_timms_own_maps():
    whole = build_model(LITE.model_copy(update={"depth": 0}), 2, 3, SIDE, seed=0).eval()
    network = build_model(LITE, 2, 3, SIDE, seed=0).eval()
    with torch.no_grad():
        assert torch.equal(network.last_map(images()), maps_by_timm(whole, 4))
    assert network.head.in_features == 112


def test_downloaded_weights_are_those_of_the_whole_network(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    whole = timm.create_model("test_resnet", num_classes=1000).eval()
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "f00").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("f00")
    save_file(whole.state_dict(), folder / "snapshots" / "f00" / "model.safetensors")
    config, network = built("test_resnet", 3, weights="pretrained")
    assert config.weights == "r160_in1k"
    with torch.no_grad():
        assert torch.equal(network.last_map(images()), maps_by_timm(whole, 3))


def test_all_stages_are_the_whole_network_with_its_own_head():
    config, network = built("test_efficientnet", 5)
    _, whole = built("test_efficientnet", 0)
    assert config.depth == 5 and type(network) is type(whole)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("name", [name for name, _ in FAMILIES])
def test_every_depth_of_a_network_is_smaller_than_the_next(name):
    sizes = [
        describe_model(ModelConfig(name=f"timm:{name}", depth=depth), 3, SIDE, 10).multiply_adds
        for depth in range(1, len(timm.create_model(name).feature_info))
    ]
    assert sizes == sorted(set(sizes))


def test_the_new_head_is_drawn_from_the_seed():
    config, network = built("test_resnet", 2)
    again, other = (build_model(config, 5, 3, SIDE, seed=seed) for seed in (3, 4))
    assert torch.equal(network.head.weight, again.head.weight)
    assert not torch.equal(network.head.weight, other.head.weight)


def test_dropout_drops_features_before_the_head_and_nothing_else():
    torch.manual_seed(5)
    _, network = built("test_resnet", 2, dropout=0.5)
    network.backbone.eval()
    network.dropout.train()
    with torch.no_grad():
        seen = []
        network.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        network(images())
        features = network.last_map(images()).mean(dim=(2, 3))
    (dropped,) = seen
    torch.testing.assert_close(dropped[dropped != 0], 2 * features[dropped != 0])
    assert 0.2 < (dropped == 0).float().mean() - (features == 0).float().mean() < 0.8


@pytest.mark.parametrize(("name", "depth", "blocks"), [("test_resnet", 3, 3), ("test_efficientnet", 4, 5)])
def test_layers_are_counted_from_the_new_head(name, depth, blocks):
    """The oracle is timm's layer-wise decay of the whole network: the same blocks, less those that were cut."""
    _, network = built(name, depth)
    parts = network_parts(ModelConfig(name=f"timm:{name}", depth=depth), network)
    assert parts.heads == ("head",)
    whole = timm.create_model(name)
    groups = timm.models.group_parameters(whole, whole.group_matcher(coarse=False))
    kept = dict(network.backbone.named_parameters())
    left = [names for place in sorted(groups) if (names := [n for n in groups[place] if n in kept])]
    expected = {f"backbone.{n}": len(left) - place for place, names in enumerate(left) for n in names}
    assert parts.distances == expected
    assert min(expected.values()) == 1 and len(left) == blocks


def test_the_head_can_be_trained_alone():
    shape = head_shape(resolve_model(LITE, 3, SIDE), 3, SIDE)
    assert shape == ("head", 112)
    network = build_model(LITE, 2, 3, SIDE, seed=0).eval()
    with torch.no_grad():
        features = head_features(network, ["head"], images())
        torch.testing.assert_close(network.head(features), network(images()))


def test_grad_cam_finds_a_map_in_the_kept_stages():
    _, network = built("test_resnet", 4)
    cams = grad_cam(network, images(), torch.zeros(3, dtype=torch.int64))
    assert cams.maps.shape[0] == 3 and cams.maps.shape[1] >= 4
    assert cams.layer.startswith("backbone.")


@pytest.mark.parametrize(("name", "depth", "parts"), [
    ("test_resnet", 6, ["model.depth = 6", "timm:test_resnet has 5 stages", "choose 1 to 5", "model.depth=0"]),
    ("tf_efficientnet_lite0", 18, ["model.depth = 18", "has 5 stages", "--set model.depth=0"]),
])  # fmt: skip
def test_a_depth_that_the_network_does_not_have_is_refused(name, depth, parts):
    with pytest.raises(ConfigError) as refusal:
        resolve_model(ModelConfig(name=f"timm:{name}", depth=depth), 3, SIDE)
    assert all(part in str(refusal.value) for part in parts), refusal.value
    assert refusal.value.remedy == {"model.depth": 0}


def test_a_network_that_timm_cannot_cut_is_refused():
    @timm.models.register_model
    def test_of_no_stages(**_options):
        return nn.Linear(2, 2)

    with pytest.raises(
        ConfigError, match=r"(?s)model.depth = 1: timm cannot cut test_of_no_stages .* --set model.depth=0"
    ):
        resolve_model(ModelConfig(name="timm:test_of_no_stages", depth=1), 3, SIDE)


def test_weights_of_another_network_are_still_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"these weights are of another network"):
        built("test_resnet", 2, weights="other.pt", file=tmp_path / "other.pt")


@pytest.mark.parametrize(("name", "shown"), [("timm:test_resnet", {"num_stages": 5}), ("resnet", {})])
def test_a_model_is_shown_with_its_stages(name, shown):
    facts = facts_of(describe_model(ModelConfig(name=name, width=0), 3, 32, 10))
    assert {key: value for key, value in facts.items() if key == "num_stages"} == shown


def test_the_words_for_a_model_name_its_stages():
    params = {"model.name": "timm:test_resnet", "model.depth": "3"}
    record = RunRecord(
        run_id="r", experiment="e", name="n", status="FINISHED", started=0, params=params, metrics={}, tags={}
    )
    assert model_words(record) == "timm:test_resnet, 3 stages"


@pytest.mark.parametrize(("name", "depth"), [("test_resnet", 4), ("test_efficientnet", 2), ("test_vit", 1)])
def test_nothing_is_left_that_the_logits_do_not_need(name, depth):
    side = 160 if name == "test_vit" else SIDE
    _, network = built(name, depth, side=side)
    network(images(side)).sum().backward()
    assert not [parameter_name for parameter_name, p in network.named_parameters() if p.grad is None]
