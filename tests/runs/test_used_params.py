"""What describes a run's work, wherever it is trained."""

import pytest

from imgcls.config.keys import Experiment
from imgcls.runs.used_params import work_hash


@pytest.mark.parametrize(
    ("changed", "is_other_work"),
    [
        ({"train.threads": 2}, False),
        ({"train.device": "cuda:1"}, False),
        ({"search.workers": 2}, False),
        ({"search.trials": 99, "search.timeout": 60.0, "search.space.train.lr": [0.1]}, False),
        ({"report.figures": "all"}, False),
        ({"search.metric": "val/loss"}, True),  # which selects the epoch
        ({"train.precision": "bfloat16"}, True),
        ({"train.seed": 1}, True),
        ({"data.folds": 3}, True),
    ],
    ids=str,
)
def test_equal_work_has_an_equal_digest_on_any_machine_and_in_any_sweep(changed, is_other_work):
    plain = Experiment(name="n").replace({"train.threads": 1, "search.workers": 1})
    assert (work_hash(plain) != work_hash(plain.replace(changed))) == is_other_work
