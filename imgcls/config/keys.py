"""The keys of an experiment: typed, with a default, a meaning and limits.

An experiment is one TOML file. Nothing else in the package has settings of its own, and a run records every key with
the value that it had. An unknown key is refused.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from imgcls.config.key_names import ADDED, NOT_COUNTED, NOT_RECORDED, Reported, Section, by_key
from imgcls.config.key_types import (
    AreaRange,
    Fit,
    Fraction,
    Name,
    PositiveShare,
    Probability,
    RatioRange,
    Seed,
    TestViews,
)
from imgcls.config.mistakes import key_text, mistakes, value_text, why_given_twice, why_not_a_value, why_not_set
from imgcls.config.ranges import checked_options
from imgcls.config.search_keys import SearchConfig
from imgcls.config.toml import as_options, as_toml, toml_key
from imgcls.config.train_keys import TrainConfig
from imgcls.errors import ConfigError


class DataConfig(Section):
    """The keys of [data]: where the images come from and how they are split."""

    source: str = "folder"
    """`folder`, `torchvision:NAME`, or a known data set such as `digits`; a name that is not known lists them."""
    path: str = ""
    """The folder of images, or where torchvision keeps its files; relative to the project's root."""
    follow_symlinks: bool = False
    """Also use images that links in the folder lead to outside of it; without it, such links are refused."""
    image_size: int = Field(default=224, ge=4, le=2048)
    """Side of the square that the model sees, in pixels."""
    fit: Fit = "crop"
    """How it becomes that square: `crop` cuts off the ends, `pad` adds grey bars, `squash` changes the proportions."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 (grey), 3 (RGB), or `auto`: what the source has (3 for a folder)."""
    val_fraction: Fraction = 0.15
    """Share of train that becomes val where the source brings no val."""
    test_fraction: Fraction = 0.25
    """Share that becomes test where the source brings no test; by content, so no seed moves it. 0: no test."""
    seed: Seed = 0
    """Seed of the carved val split, or of the folds; it moves nothing else."""
    folds: int = Field(default=0, ge=0, le=100)
    """Train and val are dealt to so many folds; each is val of a model trained on the others. 0: one val split."""
    fold: int = Field(default=0, ge=0, validate_default=True)
    """Train one model of `folds` alone: that of which this fold, counted from 1, is val. 0: all of them."""
    groups: str = ""
    """Images that stay in one split: a regular expression on their path, or a .csv (`image`, `group`). Empty: none."""
    allow_leaks: bool = False
    """Go on where splits share images or groups; every score of the run then says so."""
    skip_unreadable: bool = False
    """Leave unreadable images out (and record how many) instead of stopping."""
    mean: Literal["auto"] | Annotated[tuple[Probability, ...], Field(min_length=1)] = "auto"
    """Mean per channel in [0, 1], or `auto`: measured on train, or what pretrained weights want."""
    std: Literal["auto"] | Annotated[tuple[PositiveShare, ...], Field(min_length=1)] = "auto"
    """Standard deviation per channel in (0, 1], or `auto`, like `mean`."""
    test_views: TestViews = "one"
    """Views of an image whose mean is the answer: as it is (`one`), also mirrored (`flips`), all 8 `orientations`."""

    @property
    def num_models(self) -> int:
        """Networks that a run of these keys is made of: one, or one for each fold."""
        return self.folds if self.folds and not self.fold else 1

    @field_validator("channels", mode="before")
    @classmethod
    def _no_equal_of_another_type(cls, channels: object) -> object:
        if isinstance(channels, (bool, float)) or channels not in ("auto", 1, 3):  # true and 1.0 equal 1
            raise ValueError('must be "auto", 1 or 3')
        return channels

    @field_validator("folds")
    @classmethod
    def _two_folds_at_least(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("would leave nothing to train on; 0 means one val split, and folds are 2 or more")
        return folds

    @field_validator("fold")
    @classmethod
    def _is_one_of_the_folds(cls, fold: int, fields: ValidationInfo) -> int:
        folds = fields.data.get("folds")
        if folds is not None and fold > folds:
            raise ValueError(f"is not one of data.folds = {folds}, which are counted from 1; 0 means all of them")
        return fold

    @field_validator("groups")
    @classmethod
    def _expression_or_file(cls, groups: str) -> str:
        if not groups.endswith(".csv"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # such as "possible nested set": it compiles, and that will do
                    re.compile(groups)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"is neither the name of a .csv nor a regular expression: {error}") from error
        return groups


class ModelConfig(Section):
    """The keys of [model]: which network."""

    name: str = "resnet"
    """`resnet`, `resnet32`, `random-encoder`, `torchvision:NAME` or `timm:NAME`; see `imgcls models`."""
    depth: int = Field(default=0, ge=0)
    """Layers: 10, 18, 34, 50, 101; with the small stem also 8, 14, 20, 32, 44, 56. `timm:`: stages. 0: its own."""
    width: int = Field(default=0, ge=0, le=1024)
    """Channels of the first stage. 0: the model's own (64; 16 for the depths 6n+2)."""
    stem: Literal["auto", "standard", "small"] = "auto"
    """`standard` (7x7 stride 2, max-pool), `small` (3x3 stride 1), or `auto`: what the depth calls for."""
    weights: str = ""
    """Start from these: `pretrained`, a name of torchvision's or timm's, `package:NAME`, or a file. Empty: random."""
    dropout: Fraction = 0.0
    """Dropout before the last layer (`resnet` family, `random-encoder` and `timm:`)."""
    patch: int = Field(default=64, ge=1)
    """`random-encoder`: side of a patch in pixels; it must divide `data.image_size`."""
    encoder_seed: Seed = 0
    """`random-encoder`: seed of its frozen weights, which are drawn again instead of being stored."""

    @property
    def weights_are_a_file(self) -> bool:
        """Whether `weights` names a file, by how it ends."""
        return self.weights.endswith((".pt", ".pth", ".safetensors"))

    @property
    def weights_are_a_package(self) -> bool:
        """Whether `weights` names an installed package."""
        return self.weights.startswith("package:")


class AugmentConfig(Section):
    """The keys of [augment]: what happens to train images, a batch at a time; val and test are never augmented.

    A key whose value is false or 0 is off. `imgcls.data.augment` applies the keys, and reports name those that are on.
    """

    random_resized_crop: AreaRange = (1.0, 1.0)
    """Range of the crop's area, as a share of the image. [1, 1]: no crop."""
    aspect_ratio: RatioRange = (0.75, 4 / 3)
    """Range of the crop's width / height, drawn evenly in log; used where there is a crop."""
    horizontal_flip: Annotated[bool, Reported("horizontal flips")] = True
    """Mirror left and right in half of the images."""
    vertical_flip: Annotated[bool, Reported("vertical flips")] = False
    """Mirror top and bottom in half of the images."""
    quarter_turns: Annotated[bool, Reported("quarter turns")] = False
    """Turn by 0, 90, 180 or 270 degrees, each as often."""
    rotation: Annotated[float, Reported("rotations by up to {:g} degrees")] = Field(default=0.0, ge=0.0, le=180.0)
    """Turn by an angle drawn evenly from [-rotation, rotation] degrees; corners repeat the border."""
    shift: Annotated[Probability, Reported("shifts by up to {:g} of the side")] = 0.0
    """Move across and down by shares of the side drawn evenly from [-shift, shift]; borders are repeated."""
    brightness: Annotated[Probability, Reported("brightness varied by up to {:g}")] = 0.0
    """Multiply by a factor from [1 - brightness, 1 + brightness]."""
    contrast: Annotated[Probability, Reported("contrast varied by up to {:g}")] = 0.0
    """Scale the distance to the image's mean by a factor from [1 - contrast, 1 + contrast]."""
    saturation: Annotated[Probability, Reported("saturation varied by up to {:g}")] = 0.0
    """Scale the distance to the grey image by a factor from [1 - saturation, 1 + saturation]; RGB only."""
    hue: Annotated[float, Reported("hue varied by up to {:g}")] = Field(default=0.0, ge=0.0, le=0.5)
    """Turn the hue by a share of the colour circle drawn evenly from [-hue, hue]; RGB only."""
    cutout: Annotated[Probability, Reported("cutout of {:g} of the side")] = 0.0
    """Blank a square of this share of the side with the mean (DeVries & Taylor 2017, arXiv 1708.04552). 0: off."""
    mixup: Annotated[float, Reported("mixup (alpha {:g})")] = Field(default=0.0, ge=0.0)
    """Alpha of mixup's Beta(alpha, alpha) (Zhang et al. 2018, arXiv 1710.09412). 0: off."""
    cutmix: Annotated[float, Reported("cutmix (alpha {:g})")] = Field(default=0.0, ge=0.0)
    """Alpha of cutmix's Beta(alpha, alpha) (Yun et al. 2019, arXiv 1905.04899). With mixup: half the batches each."""

    def of_stored_images(self) -> AugmentConfig:
        """The keys that decide how train images are stored; the others change each batch."""
        return AugmentConfig(random_resized_crop=self.random_resized_crop)


class ReportConfig(Section):
    """The keys of [report]: which runs leave pictures; no score depends on them."""

    figures: Literal["winner", "all", "none"] = "winner"
    """Runs whose pictures of val are drawn: `winner` (a sweep's, and single runs), `all` completed ones, or `none`."""


class Experiment(Section):
    """All keys of one experiment: the whole file."""

    name: Name
    """Letters, digits, `.`, `_`, `-`; the experiment's name in MLflow."""
    data: DataConfig = DataConfig()
    """Where the images come from."""
    model: ModelConfig = ModelConfig()
    """Which network."""
    augment: AugmentConfig = AugmentConfig()
    """What happens to train images."""
    train: TrainConfig = TrainConfig()
    """How it is trained."""
    search: SearchConfig = SearchConfig()
    """How a sweep searches."""
    report: ReportConfig = ReportConfig()
    """Which runs leave pictures."""

    @model_validator(mode="after")
    def _space_is_sound(self) -> Experiment:
        for key, options in self.search.space.items():
            self.search.space[key] = checked_options(key, options, Experiment)
        return self

    @model_validator(mode="after")
    def _frozen_weights_are_trained(self) -> Experiment:
        if (epochs := self.train.freeze_epochs) and not self.model.weights:
            raise ValueError(
                f"train.freeze_epochs = {epochs} would freeze random weights, because model.weights is empty; name the "
                f"weights to start from, or add {as_options({'train.freeze_epochs': 0})}"
            )
        return self

    @model_validator(mode="after")
    def _default_pruner_of_folds(self) -> Experiment:
        if self.data.num_models > 1 and "pruner" not in self.search.model_fields_set:
            self.search.__dict__["pruner"] = "wilcoxon"  # it stays a default
        return self

    @classmethod
    def from_tables(cls, tree: Mapping[str, Any], origin: str, given: Sequence[str] = ()) -> Self:
        """An experiment from the tables of a file, as TOML gives them.

        Args:
            tree: the tables.
            origin: of the values, for the text of an error.
            given: keys that come from there, where others come from an experiment.

        Raises:
            ConfigError: naming `origin`, and every mistake with its key, its value and what would be right.
        """
        if why := why_not_a_value(tree):
            raise ConfigError(f"{origin}: {why}")
        try:
            # By way of JSON, because strict mode then takes lists and tables as TOML has them, and still
            # refuses "15" for 15 or 1 for true.
            return cls.model_validate_json(json.dumps(tree), strict=True)
        except ValidationError as error:
            found = dict.fromkeys(mistakes(error, tree, cls))
            other = f"{origin} contradicts the experiment" if given else origin
            lines = (f"{origin if mistake.startswith(tuple(given)) else other}: {mistake}" for mistake in found)
            raise ConfigError("\n".join(lines)) from None

    def replace(self, values: Mapping[str, Any], *, origin: str = "override") -> Self:
        """A copy with dotted keys set to new values, validated like a file.

        Raises:
            ConfigError: for an unknown key, one given twice, or an impossible value.
        """
        tree = self.model_dump(exclude_none=True)
        if "warmup_epochs" not in self.train.model_fields_set:
            del tree["train"]["warmup_epochs"]  # its default follows another key
        if "pruner" not in self.search.model_fields_set:
            del tree["search"]["pruner"]
        pairs = list(by_key(values, Experiment))
        if why := why_given_twice(pairs):
            raise ConfigError(f"{origin}: {why}")
        for key, value in pairs:
            if key.startswith("search.space."):
                if isinstance(space := tree["search"]["space"], dict):  # whatever else it was set to is refused below
                    space[key.removeprefix("search.space.")] = value
                continue
            if why := why_not_set(key, value, Experiment):
                raise ConfigError(f"{origin}: {key_text(key)} = {value_text(value)}: {why}")
            *tables, last = key.split(".")
            functools.reduce(dict.__getitem__, tables, tree)[last] = value
        return self.from_tables(tree, origin, [key for key, _ in pairs])

    def params(self) -> dict[str, str]:
        """Every recorded value under its dotted name, as MLflow stores it: a string, TOML's for lists and flags."""
        return {key: value if isinstance(value, str) else as_toml(value) for key, value in self._values().items()}

    def config_hash(self, *, without: Sequence[str] = ()) -> str:
        """Sixteen hex digits of SHA-256 over the values, less NOT_COUNTED, `without`, and ADDED at their defaults."""
        values, default = self._values(), Experiment(name=self.name)._values()
        left_out = {*without, *NOT_COUNTED, *(key for key in ADDED if values[key] == default[key])}
        values = {key: value for key, value in values.items() if key not in left_out}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def _values(self) -> dict[str, Any]:
        """By dotted key, also of the search space, whose values are lists and ranges; less NOT_RECORDED."""
        values: dict[str, Any] = {}
        for key, value in by_key(self.model_dump(exclude_none=True), Experiment):
            if key == "search.space":
                values |= {f"{key}.{searched}": options for searched, options in value.items()}
            elif key not in NOT_RECORDED:
                values[key] = value
        return values

    def to_toml(self) -> str:
        """The complete experiment as a file that loads into an equal one, without NOT_RECORDED."""
        tables: dict[str, list[str]] = {"": []}
        for key, value in self._values().items():
            table, _, name = key.rpartition(".")
            if key.startswith("search.space."):
                table, name = "search.space", toml_key(key.removeprefix("search.space."))
            tables.setdefault(table, []).append(f"{name} = {as_toml(value)}")
        sections = (["", f"[{table}]", *lines] if table else lines for table, lines in tables.items())
        return "\n".join(line for lines in sections for line in lines) + "\n"
