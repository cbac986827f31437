"""The keys of [train]: how the network is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from imgcls.config.key_names import Section
from imgcls.config.key_types import Device, Fraction, PositiveShare, Seed
from imgcls.config.toml import as_options


class TrainConfig(Section):
    """The keys of [train]: how the network is trained."""

    epochs: int = Field(default=30, ge=1)
    """Passes over train."""
    batch_size: int = Field(default=64, ge=2)
    """Images per step."""
    eval_batch_size: int = Field(default=256, ge=1)
    """Images per forward pass on val and test; moves no score beyond rounding."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd` with Nesterov momentum, which needs another `lr` (about 0.03) and `weight_decay` (1e-4)."""
    momentum: Fraction = 0.9
    """Nesterov momentum; used with `optimizer = "sgd"`. 0: none."""
    lr: float = Field(default=1e-3, gt=0.0)
    """Highest learning rate, reached at the end of the warm-up; with the next two keys, that of the last layer."""
    backbone_lr_scale: PositiveShare = 1.0
    """Learning rate of everything before the last layer, as a share of `lr`."""
    layer_decay: PositiveShare = 1.0
    """Factor of the learning rate from each block to the one before it, the last layer first. 1: equal rates."""
    freeze_epochs: int = Field(default=0, ge=0, validate_default=True)
    """First epochs, fewer than `epochs`, in which the last layer alone is trained; needs `model.weights`. 0: none."""
    warmup_epochs: int = Field(default=1, ge=0)
    """Epochs over which the learning rate rises in a line; must be less than `epochs`. Default 0 where `epochs` = 1."""
    weight_decay: float = Field(default=0.05, ge=0.0)
    """Decay of weight matrices: AdamW's, or with `sgd` the L2 penalty's; norms and biases have none."""
    label_smoothing: Fraction = 0.05
    """Share of each label spread over the classes: evenly, or with `logit_adjusted` by their shares of train."""
    class_weights: Literal["none", "auto"] = "none"
    """`auto` weighs each class by N / (K * its images in train), as scikit-learn's "balanced" does."""
    sampling: Literal["natural", "balanced"] = "natural"
    """Images of an epoch: each of train once (`natural`), or as many with each class equally often (`balanced`)."""
    loss: Literal["cross_entropy", "focal", "logit_adjusted"] = "cross_entropy"
    """Loss on train: `focal` gives images that are not right yet more weight, `logit_adjusted` rare classes."""
    focal_gamma: float = Field(default=2.0, ge=0.0)
    """Exponent of `focal`, the gamma of Lin et al. 2017 (arXiv 1708.02002). 0: the cross-entropy."""
    logit_adjustment: float = Field(default=1.0, ge=0.0)
    """Strength of `logit_adjusted`, the tau of Menon et al. 2021 (arXiv 2007.07314). 0: the cross-entropy."""
    ema_decay: Fraction = 0.0
    """Decay per step of an average of the weights that is what gets scored and kept; it rises to this. 0: off."""
    average_epochs: int = Field(default=1, ge=1)
    """Score and keep the mean of the weights at the ends of this many epochs, the current one included. 1: no mean."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many epochs without a better val score. 0: never."""
    head_only: bool = False
    """Train the last layer alone, on features of the rest, which keeps its weights; they are computed once and kept."""
    score_epoch: int = Field(default=0, ge=0, validate_default=True)
    """Train up to this epoch of the schedule and keep it, whatever val says. 0: val chooses the epoch."""
    folds_epoch: Literal["last", "best"] = "last"
    """With `data.folds` and no `score_epoch`, keep in all folds the `last` epoch or the `best` of their mean curve."""
    save_from_epoch: int = Field(default=0, ge=0)
    """Also keep each epoch's checkpoint from this epoch on. 0: best and last only."""
    checkpoint_epochs: int = Field(default=1, ge=1)
    """Epochs after which the last checkpoint is written. A killed run trains again what came after it."""
    seed: Seed = 0
    """Fixes the weights, the order and every random draw of training."""
    device: Device = "auto"
    """`auto` (cuda, then mps, then cpu), `cpu`, `cuda`, `cuda:N` or `mps`."""
    threads: Literal["auto"] | Annotated[int, Field(ge=0, le=1024)] = "auto"
    """CPU threads of torch. `auto`: the fastest for a few steps. 0: as torch chooses. Other numbers give other bits."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto`: bfloat16 autocast on CUDA, float32 elsewhere."""
    deterministic: bool = True
    """Ask torch for deterministic kernels, which cost a little on CUDA and nothing on the CPU."""

    @field_validator("warmup_epochs", "freeze_epochs")
    @classmethod
    def _ends_within_epochs(cls, num_epochs: int, fields: ValidationInfo) -> int:
        epochs = fields.data.get("epochs")
        if epochs is not None and num_epochs >= epochs:
            most = epochs - 1 if fields.field_name == "freeze_epochs" else min(1, epochs - 1)
            shorter = as_options({f"train.{fields.field_name}": most})
            raise ValueError(f"does not end within train.epochs = {epochs}; train for longer, or add {shorter}")
        return num_epochs

    @field_validator("average_epochs")
    @classmethod
    def _are_trained(cls, average_epochs: int, fields: ValidationInfo) -> int:
        epochs = fields.data.get("epochs")
        if epochs is not None and average_epochs > epochs:
            fewer = as_options({"train.average_epochs": epochs})
            raise ValueError(f"is more than train.epochs = {epochs}; train for longer, or add {fewer}")
        return average_epochs

    @field_validator("head_only")
    @classmethod
    def _has_a_use_for_the_rest(cls, head_only: bool, fields: ValidationInfo) -> bool:
        off = {"backbone_lr_scale": 1.0, "layer_decay": 1.0, "freeze_epochs": 0}
        given = {key: fields.data[key] for key in off if fields.data.get(key, off[key]) != off[key]}
        if head_only and given:
            keys = " and ".join(f"train.{key} = {value}" for key, value in given.items())
            remedy = as_options({f"train.{key}": off[key] for key in given})
            raise ValueError(f"trains nothing before the last layer, so {keys} would do nothing; add {remedy}")
        return head_only

    @field_validator("score_epoch")
    @classmethod
    def _epoch_is_reached(cls, score_epoch: int, fields: ValidationInfo) -> int:
        epochs, patience = fields.data.get("epochs"), fields.data.get("patience")
        if epochs is not None and score_epoch > epochs:
            lower = as_options({"train.score_epoch": epochs})
            raise ValueError(f"lies beyond train.epochs = {epochs}; train for longer, or add {lower}")
        if score_epoch and patience:
            raise ValueError(
                f"fixes the epoch, which train.patience = {patience} lets val choose; set one of them to 0"
            )
        return score_epoch

    @field_validator("sampling")
    @classmethod
    def _even_once(cls, sampling: str, fields: ValidationInfo) -> str:
        if sampling == "balanced" and fields.data.get("class_weights") == "auto":
            raise ValueError(_twice("train.class_weights", "auto", "none"))
        return sampling

    @field_validator("loss")
    @classmethod
    def _adjusted_once(cls, loss: str, fields: ValidationInfo) -> str:
        if loss == "logit_adjusted" and fields.data.get("class_weights") == "auto":
            raise ValueError(_twice("train.class_weights", "auto", "none"))
        if loss == "logit_adjusted" and fields.data.get("sampling") == "balanced":
            raise ValueError(_twice("train.sampling", "balanced", "natural"))
        return loss

    @model_validator(mode="after")
    def _default_warmup_ends(self) -> Self:
        if "warmup_epochs" not in self.model_fields_set:
            self.__dict__["warmup_epochs"] = min(self.warmup_epochs, self.epochs - 1)  # it stays a default
        return self

    @property
    def last_epoch(self) -> int:
        """Where training ends if nothing ends it before."""
        return self.score_epoch or self.epochs


def _twice(other: str, value: str, off: str) -> str:
    """Why a key cannot correct uneven classes where another one does."""
    return (
        f'makes up for uneven classes, and so does {other} = "{value}"; together they would favour rare classes twice. '
        f"Use one of them: add {as_options({other: off})} to keep this one"
    )
