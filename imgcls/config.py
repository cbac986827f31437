"""What an experiment is: typed, validated, strict about unknown keys.

An experiment is one TOML file. Every key has a default and a docstring here; nothing else in the package
invents a setting. No key is ever "absent": what a run records is the complete, resolved experiment.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import ErrorDetails

from imgcls.errors import ConfigError

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:(0|[1-9][0-9]?))?)$"

CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56)
"""Depths 6n+2 of He et al. 2016, section 4.2 (arXiv 1512.03385): three stages, small stem."""
RESNET_DEPTHS = (10, 18, 34, 50, 101)
"""Depths with four stages; from 50 on with bottleneck blocks."""


class Section(BaseModel):
    """A table of the experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the images come from and how they are split."""

    source: str = "folder"
    """`folder`, `elpv`, `fashion-mnist`, `digits` or `torchvision:NAME`."""
    path: str = ""
    """The folder of images, or where torchvision keeps its files; relative to the project's root."""
    image_size: int = Field(default=224, ge=4, le=2048)
    """Side of the square that the model sees, in pixels."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 (grey), 3 (RGB), or `auto`: what the source has (3 for a folder)."""
    val_fraction: Fraction = 0.15
    """Share of train that becomes val where the source brings no val."""
    test_fraction: Fraction = 0.25
    """Share that becomes test where the source brings no test; by content, so no seed moves it. 0: no test."""
    seed: Seed = 0
    """Seed of the carved val split; it moves nothing else."""
    skip_unreadable: bool = False
    """Leave unreadable images out (and record how many) instead of stopping."""
    mean: Literal["auto"] | Annotated[tuple[Probability, ...], Field(min_length=1)] = "auto"
    """Mean per channel in [0, 1], or `auto`: measured on train, or what pretrained weights want."""
    std: Literal["auto"] | Annotated[tuple[PositiveShare, ...], Field(min_length=1)] = "auto"
    """Standard deviation per channel in (0, 1], or `auto`, like `mean`."""

    @field_validator("channels", mode="before")
    @classmethod
    def _whole(cls, channels: object) -> object:
        if isinstance(channels, (bool, float)):  # which equal 1 and 3 to Python, and so to a Literal
            raise ValueError('must be "auto", 1 or 3')
        return channels


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
    """Start from these: `pretrained`, a torchvision weights name, or a .pt/.safetensors file. Empty: random."""
    dropout: Fraction = 0.0
    """Dropout before the last layer (`resnet` family and `timm:`)."""
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
    brightness: Probability = 0.0
    """Multiply by a factor from [1 - brightness, 1 + brightness]."""
    contrast: Probability = 0.0
    """Scale the distance to the image's mean by a factor from [1 - contrast, 1 + contrast]."""
    mixup: float = Field(default=0.0, ge=0.0)
    """Alpha of mixup's Beta(alpha, alpha) (Zhang et al. 2018, arXiv 1710.09412). 0: off."""

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
    """Decay per step of an average of the weights that is what gets scored and kept. 0: off."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without a better val score. 0: never."""
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
        if self.step is not None and (_exact(self.high) - _exact(self.low)) % _exact(self.step):
            raise ValueError(f"high = {self.high} must be low = {self.low} and a whole number of steps of {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant: bounds and step are integers."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))


def _exact(number: int | float) -> Decimal:
    """The number as it is written, so that 0.3 is three steps of 0.1."""
    return Decimal(repr(number))


Space = dict[str, Range | Annotated[tuple[Scalar, ...], Field(min_length=1)]]


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
    metric: Literal["val/accuracy", "val/loss"] = "val/accuracy"
    """What selects the epoch, the checkpoint and the winner. Ties: lower val/loss, then earlier."""
    seed: Seed = 0
    """Seed of the sampler; trials share `train.seed`."""
    space: Space = Field(default_factory=dict)
    """Dotted config key -> list of values, or { low, high, log, step }."""


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
        searchable = [key for key in _known_keys() if key.partition(".")[0] in ("model", "augment", "train")]
        searchable.append("data.image_size")
        for key, options in self.search.space.items():
            if key.startswith(("data.", "search.")) and key not in searchable and key in _known_keys():
                raise ValueError(f"search.space.{key}: of [data] and [search], only data.image_size can be searched")
            if key not in searchable:
                raise ValueError(f"search.space.{key}: unknown key{_hint(key, searchable)}")
            self.search.space[key] = _of_its_type(key, options)
        return self

    def keys(self) -> Iterator[str]:
        """Every dotted key, in the order of the file."""
        yield from _flatten(self.model_dump())

    def params(self) -> dict[str, str]:
        """Every value under its dotted name, as MLflow stores it: a string, TOML's spelling for lists and flags."""
        return {key: value if isinstance(value, str) else _toml(value) for key, value in self._values().items()}

    def _values(self) -> dict[str, Any]:
        return _flatten(self.model_dump(exclude_none=True))

    def config_hash(self, *, without: Sequence[str] = ()) -> str:
        """Sixteen hex digits of SHA-256 over the values, less the dotted keys in `without`."""
        values = {key: value for key, value in self._values().items() if key not in without}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def to_toml(self) -> str:
        """The complete experiment as a file that loads into an equal one."""
        lines = [f"name = {_toml(self.name)}"]
        for section, table in self.model_dump(exclude_none=True).items():
            if not isinstance(table, dict):
                continue
            space = table.pop("space", None)
            lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
            if space:
                lines += ["", f"[{section}.space]", *(f"{_toml(k)} = {_toml(v)}" for k, v in space.items())]
        return "\n".join(lines) + "\n"

    def replace(self, values: Mapping[str, Any], *, origin: str = "override") -> Experiment:
        """A copy with dotted keys set to new values, validated like a file.

        Raises:
            ConfigError: for an unknown key or an impossible value.
        """
        tree = self.model_dump(exclude_none=True)
        known = list(self.keys())
        for key, value in values.items():
            in_space = key.startswith("search.space.")
            if key not in known and not in_space:
                raise ConfigError(f"{origin}: {key}: unknown key{_hint(key, known)}")
            *tables, last = ("search", "space", key.removeprefix("search.space.")) if in_space else key.split(".")
            table = tree
            for part in tables:
                table = table[part]
            table[last] = value
        return _validate(tree, origin)


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads an experiment file and applies `KEY=VALUE` overrides.

    Args:
        path: the TOML file.
        overrides: such as `train.lr=3e-3`; the value is TOML, or a bare word for a string.

    Raises:
        ConfigError: naming the file, the key, the value and what would be right.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    tree.setdefault("name", path.stem)
    experiment = _validate(tree, str(path))
    if not overrides:
        return experiment
    return experiment.replace(dict(parse_override(text) for text in overrides), origin="--set")


def find_experiment(name: str, cwd: Path) -> tuple[Path, Path]:
    """Resolves what the user typed to (file, project root).

    Args:
        name: a name in `experiments/`, or a path to a TOML file.
        cwd: the working directory.

    Returns:
        The file, and the folder that `data.path` and the stores are relative to: the one that holds the file's
        `experiments/` folder, else the working directory.

    Raises:
        ConfigError: where there is no such file, naming those that there are.
    """
    as_path = Path(name)
    if as_path.suffix == ".toml" or as_path.is_file():
        path = (cwd / as_path).resolve()
    else:
        path = project_root(cwd) / "experiments" / f"{name}.toml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        there = f"; there are: {', '.join(known)}" if known else f"; there is no experiment in {path.parent}"
        raise ConfigError(f"no experiment {name!r}{_hint(name, known)}{there}")
    return path, path.parent.parent if path.parent.name == "experiments" else cwd.resolve()


def project_root(cwd: Path) -> Path:
    """The nearest folder at or above `cwd` that holds an `experiments/` folder, else `cwd` itself."""
    cwd = cwd.resolve()
    return next((folder for folder in (cwd, *cwd.parents) if (folder / "experiments").is_dir()), cwd)


def config_table() -> list[tuple[str, str, str]]:
    """(dotted key, default as in a file, what it means) of every key, for the README and `--help`."""
    rows = []
    for section, field in Experiment.model_fields.items():
        if not isinstance(field.default, Section):
            continue
        for key, sub in type(field.default).model_fields.items():
            default = sub.get_default(call_default_factory=True)
            rows.append((f"{section}.{key}", _toml(default), sub.description or ""))
    return rows


def _validate(tree: Mapping[str, Any], origin: str) -> Experiment:
    try:
        # By way of JSON, because strict mode then takes lists and tables as TOML has them, and still
        # refuses "15" for 15 or 1 for true.
        return Experiment.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {_explain(e)}" for e in error.errors())) from None


def _explain(error: Any) -> str:
    """One pydantic error as `key = value: what is wrong`."""
    loc = [str(part) for part in error["loc"]]
    key = ".".join(loc)
    if error["type"] == "extra_forbidden":
        known = _known_keys(loc[:-1])
        return f"{key}: unknown key{_hint(loc[-1], known)}"
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    value = error["input"]
    shown = "" if isinstance(value, Mapping) or error["type"] == "missing" else f" = {_shorten(value)}"
    return f"{key}{shown}: {message}"


def _known_keys(section: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Experiment
    for part in section:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.default, BaseModel):
            return []
        model = type(field.default)
    return list(model.model_fields)


def _hint(word: str, known: Sequence[str] | set[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_override(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` -> (key, value); the value is TOML, or a bare word for a string."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: expected KEY=VALUE, such as train.lr=3e-3")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys; a range of the search space is one value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and not prefix.startswith("search.space."):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        assert math.isfinite(value)
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, BaseModel):
        return _toml(value.model_dump(exclude_none=True))
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }" if value else "{}"
    return "[" + ", ".join(_toml(item) for item in value) + "]"
