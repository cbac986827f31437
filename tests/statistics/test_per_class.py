import numpy as np
import pytest
from sklearn import metrics as oracle

from imgcls.metrics import score
from imgcls.statistics.per_class import per_class
from imgcls.statistics.predictions import Predictions
from tests.test_metrics import drawn


def test_per_class_agrees_with_scikit_learn_and_with_the_scores():
    logits, labels = drawn(11, 200, 4)
    predictions = logits.argmax(axis=1)
    table = per_class(labels, predictions, ["a", "b", "c", "d"])
    report = oracle.classification_report(labels, predictions, target_names=["a", "b", "c", "d"], output_dict=True)
    assert list(table["class"]) == ["a", "b", "c", "d"]
    for row in table.to_dict("records"):
        assert row["precision"] == pytest.approx(report[row["class"]]["precision"])
        assert row["recall"] == pytest.approx(report[row["class"]]["recall"])
        assert row["f1"] == pytest.approx(report[row["class"]]["f1-score"])
        assert row["num_images"] == 50
    scores = score(Predictions(logits, labels))
    assert table["f1"].mean() == pytest.approx(scores["macro_f1"])
    assert table["recall"].mean() == pytest.approx(scores["balanced_accuracy"])


def test_per_class_gives_0_where_undefined_and_nothing_for_what_is_nowhere():
    table = per_class(np.array([0, 0]), np.array([0, 1]), ["there", "absent", "neither"])
    assert table["precision"].tolist()[:2] == [1, 0]
    assert table["recall"].tolist()[:2] == [0.5, 0]
    assert table["num_images"].tolist() == [2, 0, 0]
    assert table.loc[2, ["precision", "recall", "f1"]].isna().all()


@pytest.mark.parametrize(
    ("labels", "predictions", "complaint"),
    [([0, 1], [0, 3], "predictions reach from 0 to 3: give 0 to 2"), ([0, 3], [0, 1], "labels reach from 0 to 3")],
)
def test_a_class_out_of_range_is_refused(labels, predictions, complaint):
    with pytest.raises(ValueError, match=complaint):
        per_class(np.array(labels), np.array(predictions), ["a", "b", "c"])


def test_confusion_has_truth_in_rows():
    logits = np.eye(3)[[0, 1, 1, 2]]
    matrix = Predictions(logits, np.array([0, 0, 0, 2])).confusion()
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]
