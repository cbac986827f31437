"""What a model is compared with: predictions of val whose columns say the same."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from imgcls.inference.proof import ProofError, recorded_probs

TEMPERATURE = 0.7
LOGITS = np.random.default_rng(0).normal(0, 3, (6, 3))


def recorded(kinds=("prob", "calibrated")):
    divisors = {"prob": 1.0, "calibrated": TEMPERATURE}
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(len(LOGITS))]})
    table["prediction"] = np.array(["a", "b", "c"])[LOGITS.argmax(axis=1)]
    for kind in kinds:
        table[[f"{kind}/{name}" for name in "abc"]] = softmax(LOGITS / divisors[kind], axis=1)
    return table


@pytest.mark.parametrize("kinds", [("prob", "calibrated"), ("prob",)], ids=["now", "an earlier version"])
def test_it_is_compared_with_the_calibrated_probabilities(kinds):
    assert np.allclose(recorded_probs(recorded(kinds), TEMPERATURE), softmax(LOGITS / TEMPERATURE, axis=1), atol=1e-12)


@pytest.mark.parametrize(
    ("column", "value"), [("prob/b", 0.5), ("calibrated/c", 0.5), ("prediction", "?"), ("calibrated/a", np.nan)]
)
def test_a_table_that_contradicts_itself_proves_nothing(column, value):
    table = recorded()
    table.loc[4, column] = value
    with pytest.raises(ProofError, match=r"val\.csv was changed: in the row of 4\.png.*1 row in all"):
        recorded_probs(table, TEMPERATURE)
