"""`timm:NAME`: the networks of timm, an optional dependency, with its weights or without."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

from imgcls.config.keys import ModelConfig
from imgcls.errors import ConfigError, InputError
from imgcls.models.downloads import asked_where_it_answers, downloaded, why_not_had
from imgcls.models.network import AS_RGB, RANDOM_WEIGHTS, RGB, Library, Listed, Normalisation
from imgcls.models.pretrained_weights import (
    PACKAGE_NORMALISATION,
    PACKAGES,
    find_package,
    packages_as_a_way_out,
    packages_for,
)
from imgcls.text import did_you_mean

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)


class Timm(Library):
    """The networks of timm, as `timm:NAME`."""

    name = "timm:"
    keys = ("weights", "dropout", "depth")
    added_keys = ("depth",)

    def resolve(self, config: ModelConfig, channels: int, image_size: int) -> ModelConfig:
        """Fills in the tag, or the installed package, of the weights of timm that `pretrained` stands for today."""
        del image_size  # seen when the network is built
        name = self.bare(config)
        _check_name(name)
        _check_depth(config, name)
        config = _with_installed_package(config, name)
        if not config.weights or config.weights_are_a_file:
            return config
        if channels != 3:
            raise ConfigError(
                f"model.weights = {config.weights!r} want RGB images, not {channels} channel; {AS_RGB}", RGB
            )
        if config.weights_are_a_package:
            _check_package(config, name)
            return config
        return config.model_copy(update={"weights": _tag(name, config.weights)})

    def construct(
        self, config: ModelConfig, num_classes: int, channels: int, image_size: int, download: bool
    ) -> nn.Module:
        """Constructs a network of timm, for images of another size than its published one where it can.

        Without its weights their tag still decides what little of the shapes it does.

        Raises:
            InputError: the weights could not be downloaded, or the network has no dropout.
        """
        tag = "" if config.weights_are_a_file or config.weights_are_a_package else config.weights
        name = self.bare(config)
        keeps_its_head = not _is_cut(config, name)  # a new head brings its own dropout
        options: dict[str, float] = {"drop_rate": config.dropout} if config.dropout and keeps_its_head else {}
        if self._is_of_one_size(config, image_size):
            options["img_size"] = image_size
        try:
            with asked_where_it_answers() if download else nullcontext():
                model: nn.Module = _timm().create_model(
                    f"{name}.{tag}" if tag else name,
                    pretrained=download,
                    num_classes=num_classes,
                    in_chans=channels,
                    **options,
                )
        except TypeError as error:
            raise InputError(f"{config.name} cannot be built with {options}: {error}") from error
        except (OSError, RuntimeError) as error:
            if not download or "size mismatch" in str(error):  # timm cannot resize these weights' positions
                raise
            raise InputError(
                f"{config.name}: the weights {tag} could not be had: {why_not_had(error)}; set model.weights to a "
                f"file, or to '' for random weights{packages_as_a_way_out()}"
            ) from error
        if not (download and model.pretrained_cfg["num_classes"] == num_classes):  # type: ignore[index]
            _redraw(model, self.heads(model))
        return model

    def _is_of_one_size(self, config: ModelConfig, image_size: int) -> bool:
        """Whether the network takes no images of this size unless it is built for it, as most transformers.

        timm then resizes the positions in its weights. Other networks are built as ever, so that the parameters of runs
        of any size keep their shapes.
        """
        import torch

        published = _timm().get_pretrained_cfg(self.bare(config))
        if published is None or not published.fixed_input_size or image_size == published.input_size[-1]:
            return False
        with torch.device("meta"), torch.no_grad():
            try:
                _timm().create_model(self.bare(config)).eval()(torch.zeros(1, 3, image_size, image_size))
            except Exception:  # by an assert, by a kernel or by arithmetic
                return True
        return False

    def cut(self, config: ModelConfig, model: nn.Module, num_classes: int) -> nn.Module:
        """Cuts a network of timm after the stages that `model.depth` keeps, and gives them a new head."""
        if not _is_cut(config, self.bare(config)):
            return model
        from imgcls.models.first_stages import FirstStages

        return FirstStages(model, config.depth, num_classes, config.dropout)

    def num_stages(self, config: ModelConfig) -> int:
        """Stages of a network of timm, by the maps that timm gives of it."""
        return _num_stages(self.bare(config))

    def usual_side(self, config: ModelConfig) -> int:
        """Side in pixels that timm's weights of the network were trained with; 224 where it has none."""
        published = _timm().get_pretrained_cfg(self.bare(config))
        return int(published.input_size[-1]) if published else 224

    def heads(self, model: nn.Module) -> list[str]:
        """Names of the last layers of a network of timm: distilled ones have two, bare encoders none.

        The first stages of a network have one.
        """
        if _are_first_stages(model):
            return ["head"]
        classifier = model.pretrained_cfg["classifier"]  # type: ignore[index]
        return [classifier] if isinstance(classifier, str) else list(classifier or ())

    def blocks(self, model: nn.Module) -> list[list[str]]:
        """Names of its parameters in blocks, from the stem to the head, as timm groups them for layer-wise decay."""
        if _are_first_stages(model):
            of_backbone = self.blocks(model.get_submodule("backbone"))
            return [*([f"backbone.{name}" for name in names] for names in of_backbone), []]
        if not hasattr(model, "group_matcher"):
            return super().blocks(model)
        groups = _timm().models.group_parameters(model, model.group_matcher(coarse=False))  # type: ignore[operator]
        return [groups[place] for place in sorted(groups)]

    def normalisation(self, config: ModelConfig) -> Normalisation:
        """Mean and std as timm publishes them, or as the package's weights were trained."""
        if config.weights_are_a_package:
            return PACKAGE_NORMALISATION
        name = self.bare(config)
        published = _timm().get_pretrained_cfg(f"{name}.{_tag(name, config.weights)}")
        return tuple(published.mean), tuple(published.std)

    def names(self) -> list[str]:
        """Every network of timm; none where it is not installed."""
        return [f"{self.name}{name}" for name in _timm().list_models()] if is_installed() else []

    def listed(self) -> list[Listed]:
        """Networks of timm, each with its weights, where they are; without timm only those with weights in packages."""
        if not is_installed():
            return [self._listed(package.timm_name, "needs timm") for package in PACKAGES.values()]
        tags = _tags()
        rows = ((name, tags.get(name, [])) for name in _timm().list_models())
        return [self._listed(name, f"weights: {', '.join(known) or 'none'}", known) for name, known in rows]

    def listed_as(self, name: str) -> Listed | None:
        """One network of timm, looked for by its name."""
        bare = name.removeprefix(self.name)
        if not is_installed():
            return next((model for model in self.listed() if model.name == name), None)
        if not _timm().is_model(bare):
            return None
        tags = [tag for _, _, tag in (each.partition(".") for each in _timm().list_pretrained(f"{bare}.*"))]
        return self._listed(bare, f"weights: {', '.join(tags) or 'none'}", tags)

    def _listed(self, name: str, about: str, tags: Sequence[str] = ()) -> Listed:
        here = [tag for tag in tags if downloaded(_timm().get_pretrained_cfg(f"{name}.{tag}"))]
        packages = packages_for(name)
        missing = {key: package for key, package in packages.items() if not (is_installed() and package.files())}
        ready = [key for key in packages if key not in missing]
        needed = [*([] if is_installed() else ["timm"]), *(package.distribution for package in missing.values())]
        install = f"pip install {' '.join(needed)}" if missing else ""
        return Listed(f"{self.name}{name}", about, (*ready, *here), tuple(missing), install)


def is_installed() -> bool:
    """Whether timm, whose models these are, can be imported."""
    try:
        _timm()
    except InputError:
        return False
    return True


def _tags() -> dict[str, list[str]]:
    """Tags of the weights that timm publishes: network -> its tags."""
    tags: dict[str, list[str]] = {}
    for tagged in _timm().list_pretrained():
        name, _, tag = tagged.partition(".")
        tags.setdefault(name, []).append(tag)
    return tags


def _check_name(name: str) -> None:
    known = list(_timm().list_models())
    network, dot, tag = name.partition(".")
    if dot and network in known:
        raise ConfigError(
            f"model.name = 'timm:{name}' names weights too; set model.name = 'timm:{network}' and "
            f"model.weights = {tag!r}, or leave model.weights empty for random ones"
        )
    if name not in known:
        raise ConfigError(
            f"model.name = 'timm:{name}': timm has no such network, see `imgcls models`{did_you_mean(network, known)}"
        )


def _check_depth(config: ModelConfig, name: str) -> None:
    if not config.depth or config.depth <= (known := _num_stages(name)):
        return
    if known:
        why = f"timm:{name} has {known} stages; choose 1 to {known}, or 0 for the whole network"
    else:
        why = f"timm cannot cut {name} after a stage; 0 takes the whole network"
    raise ConfigError(f"model.depth = {config.depth}: {why}", {"model.depth": 0})


@lru_cache
def _num_stages(name: str) -> int:
    import torch

    from imgcls.models.first_stages import count_stages

    with torch.device("meta"):
        return count_stages(_timm().create_model(name))


def _is_cut(config: ModelConfig, name: str) -> bool:
    """Whether `model.depth` keeps some stages alone: all of them are the network as it is, with its own head."""
    return 0 < config.depth < _num_stages(name)


def _are_first_stages(model: nn.Module) -> bool:
    from imgcls.models.first_stages import FirstStages

    return isinstance(model, FirstStages)


def _with_installed_package(config: ModelConfig, name: str) -> ModelConfig:
    """Takes `pretrained` for the weights of an installed package, if there is one, because it needs no download."""
    package = next((key for key, package in packages_for(name).items() if package.files()), "")
    if config.weights != "pretrained" or not package:
        return config
    _say_once(f"model.weights = 'pretrained': the weights of the installed package, model.weights = '{package}'")
    return config.model_copy(update={"weights": package})


@lru_cache
def _say_once(line: str) -> None:
    log.info(line)


def _check_package(config: ModelConfig, name: str) -> None:
    package = find_package(config.weights)
    if name != package.timm_name:
        raise ConfigError(
            f"model.weights = {config.weights!r}: with model.name = {config.name!r} they would compute something "
            f"else than they were trained for; set model.name = 'timm:{package.timm_name}'",
            {"model.weights": next((key for key, other in packages_for(name).items() if other.files()), "")},
        )
    package.file()


def _tag(name: str, wanted: str) -> str:
    """The tag of the weights that `pretrained`, or a tag itself, stands for today.

    Raises:
        ConfigError: listing the tags there are.
    """
    known = _tags().get(name, [])
    if wanted in known:
        return wanted
    if wanted == "pretrained" and known:
        return str(_timm().get_pretrained_cfg(name).tag)
    choice = ", ".join((*known, *packages_for(name))) or "no weights of its own"
    raise ConfigError(
        f"model.weights = {wanted!r}: timm:{name} has {choice}; choose one, or a .pt, .pth or .safetensors "
        f"file{did_you_mean(wanted, known)}",
        RANDOM_WEIGHTS,
    )


def _redraw(model: nn.Module, heads: list[str]) -> None:
    """Initialises last layers that came without weights as torch initialises a Linear.

    timm scales some by their outputs: EfficientNet's two-class head spans +-0.7, and its first loss is near 3 nats.
    """
    from torch import nn

    for name, module in model.named_modules():
        if name in heads and isinstance(module, nn.Linear):
            module.reset_parameters()


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise InputError("model.name = 'timm:...' needs timm; run: pip install timm") from error
    module: ModuleType = timm
    return module
