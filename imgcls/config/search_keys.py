"""The keys of [search]: how a sweep searches, and whether it ends by training its best again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from imgcls.config.key_names import Section
from imgcls.config.key_types import Seed
from imgcls.config.ranges import Options
from imgcls.metrics import ACCURACY, BY_NAME, LOSS
from imgcls.text import either

if TYPE_CHECKING:
    SelectingMetric = str
else:
    SelectingMetric = Literal[*BY_NAME]


class ConfirmConfig(Section):
    """The keys of [search.confirm]: whether a sweep ends by training its best again; see `imgcls confirm`."""

    top: int = Field(default=3, ge=1)
    """Configurations that are trained again, the best first."""
    seeds: int = Field(default=0, ge=0, le=1000)
    """Fresh seeds for each of them. 0: the sweep ends without a confirmation."""


class SearchConfig(Section):
    """The keys of [search]: how a sweep searches; a single `imgcls train` uses `metric` alone."""

    trials: int = Field(default=20, ge=1)
    """Trials in all, earlier sittings of the same sweep included."""
    timeout: float = Field(default=0.0, ge=0.0)
    """Seconds after which no further trial starts. 0: no limit."""
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Trials side by side on this machine, which share its threads; `auto`: as many as end the sweep soonest."""
    processes_per_trial: int = Field(default=1, ge=1)
    """Processes of this machine that train each trial together, each on a GPU, or a share of the cores, of its own."""
    storage: str = "auto"
    """Where the study is: `postgresql://…`, `grpc://…`, `journal`; `auto`: IMGCLS_STUDY_STORAGE, else a journal."""
    lease: float = Field(default=45.0, ge=1.0, le=3600.0)
    """Seconds of silence after which the other processes of a sweep take over what a process works on."""
    sampler: Literal["auto", "gp", "tpe", "random", "qmc", "cmaes", "grid"] = "auto"
    """Who proposes the next values; `auto` decides by pruner, trials and space; `cmaes` learns of ranges alone."""
    warm_start: str = "off"
    """Earlier sweep whose best configurations come first: `off`, `auto` (one that fits) or the id of a sweep."""
    pruner: Literal["median", "hyperband", "halving", "wilcoxon", "none"] = "halving"
    """Who stops a trial that looks hopeless. `halving` pauses trials; `wilcoxon` is the default with `data.folds`."""
    pruner_warmup_epochs: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    """Epochs before any judgement; `auto`: longest warm-up or freeze plus 1, or with `halving` a third of all."""
    max_paused: int = Field(default=50, ge=1)
    """`halving`: paused trials that keep their checkpoints; of more, the worst ones of the lowest rung are pruned."""
    keep_pruned: bool = False
    """Keep the checkpoints of pruned trials, which are removed otherwise."""
    metric: SelectingMetric = Field(
        default=ACCURACY.on_val,
        description="What selects the epoch, the checkpoint and the winner: "
        f"{either([f'`{name}`' for name in BY_NAME])}. Ties: lower {LOSS.on_val}, then earlier.",
    )
    seed: Seed = 0
    """Seed of the sampler; trials share `train.seed`."""
    space: dict[str, Options] = Field(default_factory=dict)
    """Dotted config key -> list of values, or { low, high, log, step }."""
    confirm: ConfirmConfig = ConfirmConfig()
    """Training the best configurations again."""

    @property
    def num_workers(self) -> int:
        """Trials side by side; 1 as long as `auto` is not resolved."""
        return 1 if self.workers == "auto" else self.workers
