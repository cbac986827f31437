"""What an experiment is: typed, validated, strict about unknown keys.

An experiment is one TOML file. Every key has a default and a docstring here; nothing else in the package
invents a setting. No key is ever "absent": what a run records is the complete, resolved experiment.
"""

from __future__ import annotations

import fractions
import functools
import hashlib
import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from imgcls.config.synonyms import key_called
from imgcls.config.toml import as_toml, toml_key
from imgcls.errors import ConfigError
from imgcls.text import did_you_mean, either, nearest

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


Probability = Annotated[float, Field(ge=0.0, le=1.0)]


PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]


Seed = Annotated[int, Field(ge=0, lt=2**63)]


Fit = Literal["crop", "pad", "squash"]


NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?)$"


CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56)
"""Depths 6n+2 of He et al. 2016, section 4.2 (arXiv 1512.03385): three stages, small stem."""

RESNET_DEPTHS = (10, 18, 34, 50, 101)
"""Depths with four stages; from 50 on with bottleneck blocks."""

MOST_IN_A_FLOAT = 2**53
"""A 64-bit float holds every whole number up to this one; Optuna keeps the values of ranges as floats."""


class Section(BaseModel):
    """A table of the experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the images come from and how they are split."""

    source: str = "folder"
    """`folder`, `elpv`, `fashion-mnist`, `digits` or `torchvision:NAME`."""
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
    """Seed of the carved val split; it moves nothing else."""
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

    @field_validator("channels", mode="before")
    @classmethod
    def _no_equal_of_another_type(cls, channels: object) -> object:
        if isinstance(channels, (bool, float)) or channels not in ("auto", 1, 3):  # true and 1.0 equal 1
            raise ValueError('must be "auto", 1 or 3')
        return channels

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
    """Which network."""

    name: str = "resnet"
    """`resnet`, `resnet32`, `random-encoder`, `torchvision:NAME` or `timm:NAME`; see `imgcls models`."""
    depth: int = Field(default=0, ge=0)
    """Weighted layers: 10, 18, 34, 50, 101; with the small stem also 8, 14, 20, 32, 44, 56. 0: the model's own."""
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


class AugmentConfig(Section):
    """What happens to train images, a batch at a time; val and test are never augmented."""

    random_resized_crop: tuple[float, float] = (1.0, 1.0)
    """Range of the crop's area, as a share of the image. [1, 1]: no crop."""
    aspect_ratio: tuple[float, float] = (0.75, 4 / 3)
    """Range of the crop's width / height, drawn evenly in log; used where there is a crop."""
    horizontal_flip: bool = True
    """Mirror left and right in half of the images."""
    vertical_flip: bool = False
    """Mirror top and bottom in half of the images."""
    quarter_turns: bool = False
    """Turn by 0, 90, 180 or 270 degrees, each as often."""
    rotation: float = Field(default=0.0, ge=0.0, le=180.0)
    """Turn by an angle drawn evenly from [-rotation, rotation] degrees; corners repeat the border."""
    shift: Probability = 0.0
    """Move across and down by shares of the side drawn evenly from [-shift, shift]; borders are repeated."""
    brightness: Probability = 0.0
    """Multiply by a factor from [1 - brightness, 1 + brightness]."""
    contrast: Probability = 0.0
    """Scale the distance to the image's mean by a factor from [1 - contrast, 1 + contrast]."""
    saturation: Probability = 0.0
    """Scale the distance to the grey image by a factor from [1 - saturation, 1 + saturation]; RGB only."""
    hue: float = Field(default=0.0, ge=0.0, le=0.5)
    """Turn the hue by a share of the colour circle drawn evenly from [-hue, hue]; RGB only."""
    cutout: Probability = 0.0
    """Blank a square of this share of the side with the mean (DeVries & Taylor 2017, arXiv 1708.04552). 0: off."""
    mixup: float = Field(default=0.0, ge=0.0)
    """Alpha of mixup's Beta(alpha, alpha) (Zhang et al. 2018, arXiv 1710.09412). 0: off."""
    cutmix: float = Field(default=0.0, ge=0.0)
    """Alpha of cutmix's Beta(alpha, alpha) (Yun et al. 2019, arXiv 1905.04899). With mixup: half the batches each."""

    @field_validator("random_resized_crop")
    @classmethod
    def _share_of_area(cls, area: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < area[0] <= area[1] <= 1.0:
            raise ValueError("must be [low, high] with 0 < low <= high <= 1")
        return area

    @field_validator("aspect_ratio")
    @classmethod
    def _positive_range(cls, ratio: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < ratio[0] <= ratio[1]:
            raise ValueError("must be [low, high] with 0 < low <= high")
        return ratio


class TrainConfig(Section):
    """How the network is trained."""

    epochs: int = Field(default=30, ge=1)
    """Passes over train."""
    batch_size: int = Field(default=64, ge=2)
    """Images per step."""
    eval_batch_size: int = Field(default=256, ge=1)
    """Images per forward pass on val and test; moves no score beyond rounding."""
    lr: float = Field(default=1e-3, gt=0.0)
    """Highest learning rate, reached at the end of the warm-up."""
    warmup_epochs: int = Field(default=1, ge=0, validate_default=True)
    """Epochs over which the learning rate rises in a line; must be less than `epochs`."""
    weight_decay: float = Field(default=0.05, ge=0.0)
    """AdamW's decay of weight matrices; norms and biases have none."""
    label_smoothing: Fraction = 0.05
    """Share of each label spread evenly over the classes."""
    class_weights: Literal["none", "auto"] = "none"
    """`auto` weighs each class by N / (K * its images in train), as scikit-learn's "balanced" does."""
    ema_decay: Fraction = 0.0
    """Decay per step of an average of the weights that is what gets scored and kept; it rises to this. 0: off."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without a better val score. 0: never."""
    score_epoch: int = Field(default=0, ge=0, validate_default=True)
    """Train up to this epoch of the schedule and keep it, whatever val says. 0: val chooses the epoch."""
    save_from_epoch: int = Field(default=0, ge=0)
    """Also keep each epoch's checkpoint from this epoch on. 0: best and last only."""
    seed: Seed = 0
    """Fixes the weights, the order and every random draw of training."""
    device: str = Field(default="auto", pattern=DEVICE_PATTERN)
    """`auto` (cuda, then mps, then cpu), `cpu`, `cuda`, `cuda:N` or `mps`."""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads of torch. 0: as torch chooses. Another number gives other bits, so it is recorded as resolved."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast on CUDA, float32 elsewhere."""
    deterministic: bool = True
    """Ask torch for deterministic kernels, which cost a little on CUDA and nothing on the CPU."""

    @field_validator("warmup_epochs")
    @classmethod
    def _warmup_ends(cls, warmup_epochs: int, fields: ValidationInfo) -> int:
        epochs = fields.data.get("epochs")
        if epochs is not None and warmup_epochs >= epochs:
            raise ValueError(f"does not end within train.epochs = {epochs}; lower it, or train for longer")
        return warmup_epochs

    @field_validator("score_epoch")
    @classmethod
    def _epoch_is_reached(cls, score_epoch: int, fields: ValidationInfo) -> int:
        epochs, patience = fields.data.get("epochs"), fields.data.get("patience")
        if epochs is not None and score_epoch > epochs:
            raise ValueError(f"lies beyond train.epochs = {epochs}; lower it, or train for longer")
        if score_epoch and patience:
            raise ValueError(
                f"fixes the epoch, which train.patience = {patience} lets val choose; set one of them to 0"
            )
        return score_epoch

    @property
    def last_epoch(self) -> int:
        """Where training ends if nothing ends it before."""
        return self.score_epoch or self.epochs


Scalar = bool | int | float | str


class Range(Section):
    """A numeric range to search."""

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value, included."""
    log: bool = False
    """Draw evenly in the logarithm."""
    step: int | float | None = None
    """Distance between values; without it, every value (1 for whole numbers)."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low} must be less than high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log = true needs low > 0 and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step = {self.step} must be positive")
        if self.step is not None and self._steps_to(self.high).denominator != 1:
            raise ValueError(f"high = {self.high} must be low = {self.low} and a whole number of steps of {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant: bounds and step are integers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    @property
    def num_values(self) -> int | None:
        """Values that the range holds; None for a continuous or a logarithmic one."""
        if self.log or not (self.whole or self.step):
            return None
        return int(self._steps_to(self.high)) + 1

    def value(self, index: int) -> int | float:
        """`low + index * step`, reckoned in the decimals as they are written and rounded once: 0.3, not 0.1 + 0.2."""
        exact = _as_written(self.low) + index * _as_written(self.step or 1)
        return int(exact) if self.whole else float(exact)

    def nearest_index(self, value: int | float) -> int:
        """Index of the value that lies nearest."""
        return round(self._steps_to(value))

    def __contains__(self, value: int | float) -> bool:
        if not self.low <= value <= self.high:
            return False
        return self.num_values is None or self._steps_to(value).denominator == 1

    def _steps_to(self, value: int | float) -> fractions.Fraction:
        return (_as_written(value) - _as_written(self.low)) / _as_written(self.step or 1)


def _as_written(number: int | float) -> fractions.Fraction:
    """So that 0.3 is three steps of 0.1."""
    return fractions.Fraction(repr(number))


Space = dict[str, Range | Annotated[tuple[Scalar, ...], Field(min_length=1)]]


class ConfirmConfig(Section):
    """Whether a sweep ends by training its best configurations again with fresh seeds; see `imgcls confirm`."""

    top: int = Field(default=3, ge=1)
    """Configurations that are trained again, the best first."""
    seeds: int = Field(default=0, ge=0, le=1000)
    """Fresh seeds for each of them. 0: the sweep ends without a confirmation."""


class SearchConfig(Section):
    """How a sweep searches; a single `imgcls train` uses `metric` alone."""

    trials: int = Field(default=20, ge=1)
    """Trials in all, earlier sittings of the same sweep included."""
    timeout: float = Field(default=0.0, ge=0.0)
    """Seconds after which no further trial starts. 0: no limit."""
    workers: int = Field(default=1, ge=1)
    """Trials side by side on this machine; threads are divided among them."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """Who proposes the next values."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Who stops a trial that looks hopeless."""
    pruner_warmup_epochs: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """No trial is judged before this many epochs; `auto`: one more than the longest warm-up searched."""
    keep_pruned: bool = False
    """Keep the checkpoints of pruned trials, which are removed otherwise."""
    metric: Literal["val/accuracy", "val/loss"] = "val/accuracy"
    """What selects the epoch, the checkpoint and the winner. Ties: lower val/loss, then earlier."""
    seed: Seed = 0
    """Seed of the sampler; trials share `train.seed`."""
    space: Space = Field(default_factory=dict)
    """Dotted config key -> list of values, or { low, high, log, step }."""
    confirm: ConfirmConfig = ConfirmConfig()
    """Training the best configurations again."""


class Experiment(Section):
    """One experiment: the whole file."""

    name: str = Field(pattern=NAME_PATTERN)
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

    @model_validator(mode="after")
    def _space_is_sound(self) -> Experiment:
        for key, options in self.search.space.items():
            if why := _why_not_searched(key):
                raise ValueError(f"search.space.{key}: {why}")
            self.search.space[key] = _of_its_type(key, options)
        return self

    def params(self) -> dict[str, str]:
        """Every value under its dotted name, as MLflow stores it: a string, TOML's spelling for lists and flags."""
        return {key: value if isinstance(value, str) else as_toml(value) for key, value in self._values().items()}

    def _values(self) -> dict[str, Any]:
        return _flatten(self.model_dump(exclude_none=True))

    def config_hash(self, *, without: Sequence[str] = ()) -> str:
        """Sixteen hex digits of SHA-256 over the values, less the dotted keys in `without`."""
        values = {key: value for key, value in self._values().items() if key not in without}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def to_toml(self) -> str:
        """The complete experiment as a file that loads into an equal one."""
        lines = [f"name = {as_toml(self.name)}"]
        for section, table in self.model_dump(exclude_none=True).items():
            if not isinstance(table, dict):
                continue
            tables = {key: table.pop(key) for key, value in list(table.items()) if isinstance(value, dict)}
            lines += ["", f"[{section}]", *(f"{key} = {as_toml(value)}" for key, value in table.items())]
            for name, inner in tables.items():
                if inner:
                    lines += ["", f"[{section}.{name}]", *(f"{toml_key(k)} = {as_toml(v)}" for k, v in inner.items())]
        return "\n".join(lines) + "\n"

    def replace(self, values: Mapping[str, Any], *, origin: str = "override") -> Experiment:
        """A copy with dotted keys set to new values, validated like a file.

        Raises:
            ConfigError: for an unknown key or an impossible value.
        """
        tree = self.model_dump(exclude_none=True)
        for key, value in _leaves_of_tables(values):
            if key.startswith("search.space."):
                if isinstance(space := tree["search"]["space"], dict):  # whatever else it was set to is refused below
                    space[key.removeprefix("search.space.")] = value
                continue
            if reason := _why_no_key(key, value):
                raise ConfigError(f"{origin}: {_spelt(key)} = {shown(value)}: {reason}")
            *tables, last = key.split(".")
            table = tree
            for part in tables:
                table = table[part]
            table[last] = value
        return validate(tree, origin)


def fields_of(section: type[Section], table: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, default, description) of every table and every key in it, in the order of the file."""
    for name, field in section.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        yield f"{table}{name}", default, field.description or ""
        if isinstance(default, Section):
            yield from fields_of(type(default), f"{table}{name}.")


def validate(tree: Mapping[str, Any], origin: str) -> Experiment:
    """An experiment from the tables of a file; mistakes are told with where they came from, `origin`."""
    try:
        leaves = list(_leaves(tree))
    except RecursionError:
        raise ConfigError(f"{origin}: {_RULES['json_invalid']}") from None
    for key, leaf in leaves:
        if not isinstance(leaf, (bool, int, float, str)):
            raise ConfigError(
                f"{origin}: {_spelt(key)} = {leaf}: no key takes a {type(leaf).__name__}; put text in quotes"
            )
        if not _is_text(key) or not _is_text(leaf):
            raise ConfigError(f"{origin}: {_spelt(key)} = {leaf!r}: must be valid UTF-8")
    try:
        # By way of JSON, because strict mode then takes lists and tables as TOML has them, and still
        # refuses "15" for 15 or 1 for true.
        return Experiment.model_validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(f"{origin}: {mistake}" for mistake in dict.fromkeys(_mistakes(error, tree)))
        ) from None


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of whatever is neither a table nor a list."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _leaves(item, key)
    else:
        yield key, node


def _is_text(leaf: object) -> bool:
    """False for a string with half of a surrogate pair, which a command line that is not UTF-8 gives."""
    return not isinstance(leaf, str) or leaf.encode("utf-8", "replace").decode() == leaf


def _of_its_type(key: str, options: Range | tuple[Scalar, ...]) -> Range | tuple[Scalar, ...]:
    """What a key of the search space may be, in the key's own type: `low = 0` for a share is 0.0.

    Raises:
        ValueError: a value that the key itself would refuse.
    """

    def typed(value: Scalar, part: str = "") -> Any:
        try:
            return _adapter(key).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            wrong = "; ".join(_mistakes(error, value))
            raise ValueError(f"search.space.{key}{part} = {shown(value)}: {wrong}") from None

    if not isinstance(options, Range):
        values = tuple(typed(value) for value in options)
        if len(set(values)) < len(values):
            raise ValueError(f"search.space.{key} = {shown(options)}: names a value twice")
        return values
    low, high, step = typed(options.low, ".low"), typed(options.high, ".high"), options.step
    if isinstance(low, float):
        step = None if step is None else float(step)
    elif isinstance(step, float):
        raise ValueError(f"search.space.{key}.step = {step}: must be a whole number")
    elif high > MOST_IN_A_FLOAT:
        raise ValueError(f"search.space.{key}.high = {high}: a range must end at 2^53 or before; list what lies beyond")
    return Range(low=low, high=high, log=options.log, step=step)


@functools.cache
def _adapter(key: str) -> TypeAdapter[Any]:
    """Validates a value of a key of one of the sections."""
    section, _, name = key.partition(".")
    field = type(Experiment.model_fields[section].default).model_fields[name]
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(kind)


_KINDS = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text in quotes",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}
"""Pydantic's types of error for a value of the wrong kind -> the right kind."""

_RULES = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "finite_number": "must be finite",
    "too_short": "must not be empty",
    "too_long": "must have {max_length} items",
    "missing": "is missing",
    "json_invalid": "is nested more deeply than any experiment",
    "value_error": "{error}",
}
"""Pydantic's further types of error -> what would be right."""

_PATTERNS = {
    NAME_PATTERN: "must be up to 100 letters, digits, dots, underscores and hyphens, the first a letter or digit",
    DEVICE_PATTERN: 'must be "auto", "cpu", "cuda", "cuda:N" or "mps"',
}


Place = tuple[int | str, ...]


def _mistakes(error: ValidationError, tree: Any) -> Iterator[str]:
    """Pydantic's errors as one line a mistake: `key = value: what would be right`."""
    groups: dict[Place, list[tuple[Place, ErrorDetails]]] = defaultdict(list)
    for details in error.errors():
        place, union = _place(details, tree)
        groups[place if union is None else union].append((place, details))
    for group in groups.values():
        # Every member of a union complains; those that looked furthest into the value are the ones that were meant.
        depth = max(len(place) for place, _ in group)
        meant: dict[Place, list[ErrorDetails]] = defaultdict(list)
        for place, details in group:
            if len(place) == depth:
                meant[place].append(details)
        unknown = [place for place, same in meant.items() if same[0]["type"] == "extra_forbidden"]
        for place in unknown or meant:  # a key that is missing is most likely the unknown one, misspelt
            yield _mistake(place, meant[place], tree)


def _place(details: ErrorDetails, tree: Any) -> tuple[Place, Place | None]:
    """Where in the user's text an error is, and the place of the union that it comes from, if it comes from one."""
    place: Place = ()
    union: Place | None = None
    node = tree
    for part in details["loc"]:
        is_missing = details["type"] == "missing" and part == details["loc"][-1]
        if _is_inside(part, node):
            place, node = (*place, part), node[part]
        elif is_missing or _dotted((*place, part)) in known_keys():
            place, node = (*place, part), None
        elif union is None:  # the part is pydantic's name for a member of the union
            union = place
    return place, union


def _is_inside(part: int | str, node: Any) -> bool:
    if isinstance(node, Mapping):
        return part in node
    return isinstance(node, (list, tuple)) and isinstance(part, int) and part < len(node)


def _dotted(place: Place) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _mistake(place: Place, errors: Sequence[ErrorDetails], tree: Any) -> str:
    key, value = _dotted(place), tree
    for part in place:
        if isinstance(part, str):
            value = value.get(part, errors[0]["input"])
    item = f"item {place[-1] + 1} " if place and isinstance(place[-1], int) else ""
    what = _of_lists(key) or item + _remedy(key, value, errors)
    if not key:
        return what
    spelt = _spelt(key)
    return f"{spelt}: {what}" if isinstance(value, Mapping) else f"{spelt} = {shown(value)}: {what}"


def _remedy(key: str, value: Any, errors: Sequence[ErrorDetails]) -> str:
    """What would be right, given all that the members of a union have against one value."""
    kinds = []
    for details in errors:
        kind, context = details["type"], details.get("ctx", {})
        if kind == "extra_forbidden":
            return _unknown(key)
        if kind in _RULES:
            return _RULES[kind].format(**context)
        if kind == "string_pattern_mismatch":
            return _PATTERNS[context["pattern"]]
        if kind not in _KINDS and kind != "literal_error":
            return details["msg"]
        kinds.append(_KINDS.get(kind) or context["expected"].replace("'", '"'))
    if "a number" in kinds and "a whole number" in kinds:
        kinds.remove("a whole number")
    words = re.findall('"(.*?)"', " ".join(kinds))
    close = nearest(value, words) if isinstance(value, str) else ""
    return f"must be {either(kinds)}{did_you_mean(close)}"


def _unknown(key: str) -> str:
    table, _, name = key.rpartition(".")
    if key in known_keys():
        return "write it without quotes, or under its table"
    if table.startswith("search.space."):
        searched = table.removeprefix("search.space.")
        if any(known.startswith(f"{searched}.") for known in known_keys()):
            return f'one key of [search.space], so write it in quotes: "{searched}.{name}" = …'
        return f"unknown key{hint(key, [f'{table}.{field}' for field in Range.model_fields])}"
    return f"unknown key{hint(key, known_keys())}"


def _why_no_key(key: str, value: Any) -> str:
    """Why an override cannot set `key` to `value`; "" for a key that holds a value."""
    if key not in known_keys():
        return f"unknown key{hint(key, known_keys() if isinstance(value, Mapping) else _keys_of_values())}"
    if key not in _keys_of_values():
        inner = next(other for other in _keys_of_values() if other.startswith(f"{key}."))
        return f"is a section; name a key of it, such as {inner}"
    return ""


@functools.cache
def known_keys() -> tuple[str, ...]:
    """Every section and every dotted key, in the order of the file."""
    return tuple(key for key, _, _ in fields_of(Experiment))


SEARCHABLE = ("data.image_size", "model.", "augment.", "train.")
"""How the keys begin whose values can be searched."""


def _why_not_searched(key: str) -> str:
    """Why no search space may name a key, with the remedy; "" where it may."""
    searchable = [known for known in known_keys() if known.startswith(SEARCHABLE)]
    if key in searchable:
        return _of_lists(f"search.space.{key}")
    if key in known_keys():
        return "cannot be searched; data.image_size and what is in [model], [augment] and [train] can"
    return f"unknown key{hint(key, searchable)}"


def _of_lists(place: str) -> str:
    """What is wrong with a search space, or a part of it, that names a key whose values are lists; "" elsewhere."""
    for key, default, _ in fields_of(Experiment):
        if key.startswith(SEARCHABLE) and isinstance(default, tuple) and f"{place}.".startswith(f"search.space.{key}."):
            return f"cannot be searched, because each of its values is a list; sweep once for each, with --set {key}=…"
    return ""


@functools.cache
def _keys_of_values() -> tuple[str, ...]:
    """Every dotted key that is not a section, in the order of the file."""
    return tuple(key for key, default, _ in fields_of(Experiment) if not isinstance(default, Section))


def hint(key: str, known: Sequence[str]) -> str:
    """Suggests keys for an unknown one: what other tools' names stand for, then what is alike in its table, then all.

    Args:
        key: dotted.
        known: keys that may be suggested.
    """
    table, _, name = key.rpartition(".")
    if (meant := key_called(name)) in known:
        return did_you_mean(meant)
    names: dict[str, list[str]] = defaultdict(list)
    for candidate in known:
        names[candidate.rpartition(".")[2]].append(candidate)
    siblings = [last for last, keys in names.items() if any(k.rpartition(".")[0] == table for k in keys)]
    if close := nearest(name, siblings):
        return did_you_mean(f"{table}.{close}" if table else close)
    return did_you_mean(*names.get(nearest(name, names, cutoff=0.8), []))


def _spelt(key: str) -> str:
    """A key as an error shows it: on one line, not too long."""
    text = key if key.isprintable() else json.dumps(key)
    return text if len(text) <= 80 else text[:77] + "..."


def shown(value: object) -> str:
    """A value as it stands in a file, not too long."""
    try:
        text = repr(value) if value is None else as_toml(value)
    except RecursionError:
        return "..."
    return text if len(text) <= 80 else text[:77] + "..."


def _leaves_of_tables(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Whole sections key by key; the search space is one value, and so is a table of unknown name, which is refused."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key in known_keys() and key not in _keys_of_values():
            yield from _leaves_of_tables({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            yield key, value


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys; a range of the search space is one value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and not prefix.startswith("search.space."):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
