import io
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib._pylab_helpers import Gcf
from PIL import Image
from scipy.special import softmax

from imgcls.metrics import metric_named
from imgcls.reporting.drawing import save_png
from imgcls.reporting.image_figures import near_duplicates, worst_mistakes
from imgcls.reporting.prediction_figures import confusion_matrix, reliability_diagram
from imgcls.reporting.training_figures import (
    importances,
    leaderboard_intervals,
    learning_curves,
    overlaid_curves,
    search_history,
)
from imgcls.statistics.calibration import expected_calibration_error, reliability
from imgcls.statistics.intervals import Interval, wilson
from imgcls.statistics.predictions import Predictions


def texts(figure):
    """Every string of a figure, as drawn."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")) if text.get_text()]


def rendered(figure):
    image = Image.open(io.BytesIO(save_png(figure)))
    image.load()
    assert image.format == "PNG"
    return image


def overlaps(labels):
    """Pairs of neighbouring labels of a drawn figure whose boxes overlap."""
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return sum(first.overlaps(second) for first, second in pairwise(boxes))


def mistaken(num_images, num_classes, side=8, channels=1, seed=0):
    """Images of which every second is predicted wrong, with confidence falling from row to row."""
    pixels = np.random.default_rng(seed).integers(0, 256, (num_images, channels, side, side), dtype=np.uint8)
    labels = np.arange(num_images) % num_classes
    predictions = np.where(np.arange(num_images) % 2, (labels + 1) % num_classes, labels)
    confidence = np.linspace(0.95, 0.6, num_images)
    probs = np.repeat((1 - confidence[:, None]) / (num_classes - 1), num_classes, axis=1)
    probs[np.arange(num_images), predictions] = confidence
    return pixels, labels, probs, [f"folder/{i}.png" for i in range(num_images)]


HISTORY = [
    {"epoch": 1, "train/loss": 1.2, "val/loss": 1.3, "val/accuracy": 0.5},
    {"epoch": 2, "train/loss": 0.9, "val/loss": 1.1, "val/accuracy": 0.6},
    {"epoch": 3, "train/loss": 0.7, "val/loss": 1.2, "val/accuracy": 0.58},
]


def test_confusion_matrix_shows_counts_and_row_shares():
    shown = texts(confusion_matrix(np.array([[30, 10], [0, 5]]), ["cat", "dog"]))
    assert {"30\n75%", "10\n25%", "5\n100%", "cat", "dog", "35 of 45 images right"} <= set(shown)
    assert "0\n0%" not in shown


def test_confusion_matrix_of_a_class_without_images():
    shown = texts(confusion_matrix(np.array([[3, 0], [0, 0]]), ["cat", "dog"]))
    assert not any("nan" in text for text in shown)


@pytest.mark.parametrize("num_classes", [2, 10, 21, 100])
def test_confusion_matrix_is_readable_at_any_size(num_classes):
    matrix = np.diag(np.full(num_classes, 9)) + np.ones((num_classes, num_classes), np.int64)
    figure = confusion_matrix(matrix, [f"class {i}" for i in range(num_classes)])
    axes = figure.axes[0]
    assert bool(axes.texts) == (num_classes <= 20)
    figure.draw_without_rendering()
    assert not overlaps(axes.get_yticklabels())
    # Labels turned by 45 degrees have boxes that overlap while the letters do not.
    assert num_classes == 10 or not overlaps(axes.get_xticklabels())
    width, height = figure.get_size_inches()
    assert 3 < height <= width + 1 < 20


def test_confusion_matrix_names_100_classes_at_most():
    axes = confusion_matrix(np.eye(130, dtype=np.int64), [str(i) for i in range(130)]).axes[0]
    assert axes.get_xticks().tolist() == axes.get_yticks().tolist() == list(range(0, 130, 2))


def test_confusion_matrix_shortens_long_names_in_the_middle():
    shown = texts(confusion_matrix(np.eye(2, dtype=np.int64), ["a very long name of a class, first", "b"]))
    assert "a very long…ass, first" in shown


def test_confusion_matrix_refuses_other_shapes():
    with pytest.raises(ValueError, match="3 class names"):
        confusion_matrix(np.eye(2, dtype=np.int64), ["a", "b", "c"])


def test_reliability_diagram_shows_the_filled_bins():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    labels = np.array([0, 0, 1, 0])
    bins = reliability(probs.max(axis=1), probs.argmax(axis=1) == labels)
    figure = reliability_diagram(Predictions(np.log(probs), labels))
    upper, lower = figure.axes
    assert len(upper.patches) == np.count_nonzero(bins.counts)
    assert sum(bar.get_height() for bar in lower.patches) == 4
    assert {f"Temperature 1: {expected_calibration_error(bins):.3f}", "Calibration error (ECE) on 4 images"} < {
        *texts(figure)
    }
    diagonal = upper.lines[0]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())


def test_reliability_diagram_of_one_image():
    assert rendered(reliability_diagram(Predictions(np.array([[1e3, 0.0]]), np.array([0])))).width > 200


def test_reliability_diagram_shows_both_beside_each_other():
    rng = np.random.default_rng(0)
    logits, labels = 6 * rng.normal(size=(300, 4)), rng.integers(0, 4, 300)
    figure = reliability_diagram(Predictions(logits, labels), temperature=5.0)
    probs = softmax(logits, axis=1), softmax(logits / 5, axis=1)
    errors = [expected_calibration_error(reliability(p.max(axis=1), p.argmax(axis=1) == labels)) for p in probs]
    raw, calibrated = figure.axes[:2]
    assert raw.get_title() == f"Without temperature: {errors[0]:.3f}"
    assert calibrated.get_title() == f"Temperature 5: {errors[1]:.3f}"
    assert figure.get_suptitle() == "Calibration error (ECE) on 300 images"
    assert rendered(figure).width > 450


def test_reliability_diagram_of_groups_has_no_intervals():
    logits, labels = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), np.array([0, 0, 1])
    alone, grouped = (reliability_diagram(Predictions(logits, labels, groups)) for groups in ((), ("a", "a", "b")))
    assert "accuracy, 95% interval" in texts(alone) and "accuracy, 95% interval" not in texts(grouped)


def test_worst_mistakes_come_by_falling_confidence():
    pixels, labels, probs, keys = mistaken(20, 2)
    figure = worst_mistakes(pixels, labels, probs, keys, ["cat", "dog"], num=3)
    titles = [axes.get_title() for axes in figure.axes]
    wrong = np.flatnonzero(probs.argmax(axis=1) != labels)[:3]
    assert titles == [f"dog →\ncat ({probs[row].max():.1%})" for row in wrong]
    assert [axes.texts[0].get_text() for axes in figure.axes] == [keys[row] for row in wrong]
    assert figure.get_suptitle() == "Mistakes of highest confidence: 3 of 10"
    for axes, row in zip(figure.axes, wrong, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), pixels[row, 0])


@pytest.mark.parametrize(("side", "channels", "num"), [(8, 1, 13), (8, 3, 7), (300, 3, 2), (300, 1, 1)])
def test_worst_mistakes_of_any_image(side, channels, num):
    pixels, labels, probs, keys = mistaken(60, 3, side, channels)
    figure = worst_mistakes(pixels, labels, probs, keys, ["a", "b", "c"], num)
    assert sum(bool(axes.images) for axes in figure.axes) == num
    image = rendered(figure)
    assert 100 < image.width < 800
    assert 100 < image.height < 800


def test_titles_of_worst_mistakes_keep_clear_of_their_neighbours():
    pixels, labels, probs, keys = mistaken(60, 2)
    figure = worst_mistakes(pixels, labels, probs, keys, ["the first long class name", "the second long class name"], 6)
    figure.draw_without_rendering()
    assert not overlaps([axes.title for axes in figure.axes])


def test_worst_mistakes_without_any_is_a_sentence():
    pixels, labels, probs, keys = mistaken(1, 2)
    figure = worst_mistakes(pixels, labels, probs, keys, ["a", "b"])
    assert texts(figure) == ["No mistakes: all 1 images were predicted right."]
    assert rendered(figure).width > 100


def test_names_are_shown_as_they_are():
    pixels, labels, probs, _ = mistaken(4, 2)
    # Two dollars would be mathematics, and this one malformed; the other name has no glyphs in the font.
    figure = worst_mistakes(pixels, labels, probs, [r"$\frac$.png"] * 4, ["$a_{$", "中文\n名"])
    assert rendered(figure).width > 100


@pytest.mark.parametrize(("num", "channels"), [(1, 3), (4, 1), (10, 1)])
def test_near_duplicates_stand_above_each_other(num, channels):
    train = np.random.default_rng(0).integers(0, 256, (num, channels, 12, 12), np.uint8)
    val = np.random.default_rng(1).integers(0, 256, (num, channels, 8, 8), np.uint8)
    keys = [(f"train/{i}.png", f"val/{i}.png") for i in range(num)]
    figure = near_duplicates(train, val, keys, 33)
    assert figure.get_suptitle() == f"Near duplicates, train above val: {num} of 33"
    assert len(figure.axes) == 2 * num
    figure.draw_without_rendering()
    for i, (above, below) in enumerate(zip(figure.axes[::2], figure.axes[1::2], strict=True)):
        for axes, images in ((above, train), (below, val)):
            shown = np.asarray(axes.images[0].get_array())
            np.testing.assert_array_equal(shown, images[i, 0] if channels == 1 else images[i].transpose(1, 2, 0))
        assert (above.texts[0].get_text(), below.texts[0].get_text()) == keys[i]
        upper, lower = above.get_window_extent(), below.get_window_extent()
        assert upper.y0 > lower.y1 and abs(upper.x0 - lower.x0) < 1
        assert above.texts[0].get_window_extent().y0 > lower.y1
    assert rendered(figure).width < 800


def test_learning_curves_show_history_and_best_epoch():
    figure = learning_curves(HISTORY, best_epoch=2)
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["train/loss", "val/loss", "best epoch (2)"]
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [1.3, 1.1, 1.2])
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), [0.5, 0.6, 0.58])
    assert accuracy.lines[1].get_xdata() == [2, 2]
    assert {"loss (nats)", "accuracy", "epoch"} <= set(texts(figure))


@pytest.mark.parametrize("metric", ["val/macro_f1", "val/auroc"])
def test_curves_and_trials_show_the_metric_that_selects(metric):
    selecting = metric_named(metric)
    rows = [row | {metric: 0.1 * row["epoch"]} for row in HISTORY]
    for figure in (learning_curves(rows, metric=selecting), overlaid_curves({"run": rows}, selecting)):
        (axes,) = [axes for axes in figure.axes if selecting.words in axes.get_ylabel()]
        np.testing.assert_allclose(axes.lines[0].get_ydata(), [0.1, 0.2, 0.3])
    assert search_history(*TRIALS, selecting).axes[0].get_ylabel() == metric
    assert (
        leaderboard_intervals(["a"], [0.5], [wilson(5, 10)], selecting).axes[0].get_xlabel()
        == f"{metric}, 95% interval"
    )


def test_learning_curves_take_a_table_as_well():
    of_table, of_list = learning_curves(pd.DataFrame(HISTORY)), learning_curves(HISTORY)
    for first, second in zip(of_table.axes, of_list.axes, strict=True):
        np.testing.assert_array_equal(first.lines[0].get_xydata(), second.lines[0].get_xydata())


@pytest.mark.parametrize("num_epochs", [1, 2, 300])
def test_learning_curves_of_any_length_have_whole_epochs(num_epochs):
    rows = [HISTORY[i % 3] | {"epoch": i + 1} for i in range(num_epochs)]
    figure = learning_curves(rows)
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
    assert rendered(figure).width > 400


def test_learning_curves_without_an_epoch_is_a_sentence():
    assert texts(learning_curves([])) == ["No epoch was completed."]


def test_a_figure_renders_to_the_same_bytes_twice():
    figure = learning_curves(HISTORY)
    assert save_png(figure) == save_png(figure)


def test_figures_leave_matplotlibs_global_state_alone():
    settings, windows = dict(matplotlib.rcParams), Gcf.get_all_fig_managers()
    rendered(learning_curves(HISTORY))
    assert dict(matplotlib.rcParams) == settings
    assert Gcf.get_all_fig_managers() == windows


def test_overlaid_curves_show_each_run_in_its_own_look():
    figure = overlaid_curves({f"run {i}": HISTORY for i in range(10)} | {"$a_{$": HISTORY[:1], "none": []})
    for axes, metric in zip(figure.axes, ("val/accuracy", "val/loss"), strict=True):
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), [row[metric] for row in HISTORY])
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == len(axes.lines) == 11
    assert {"run 0", "run 9", "accuracy on val", "loss (nats) on val"} <= set(texts(figure))
    assert "none" not in texts(figure)
    assert rendered(figure).width > 400


def test_overlaid_curves_keep_clear_of_their_legend():
    figure = overlaid_curves({f"a long name of a run, number {i}": HISTORY for i in range(12)})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert box.width <= figure.bbox.width


def test_overlaid_curves_without_an_epoch_is_a_sentence():
    assert texts(overlaid_curves({"a": []})) == ["No epoch was completed."]


TRIALS = ([4, 0, 1, 2, 3], [0.75, 0.5, 0.9, 0.7, np.nan], ["completed", "completed", "pruned", "completed", "failed"])


@pytest.mark.parametrize(
    ("metric", "best"), [("val/accuracy", [0.5, 0.7, 0.75]), ("val/loss", [0.5, 0.5, 0.5])], ids=["accuracy", "loss"]
)
def test_search_history_runs_the_best_over_completed_trials_alone(metric, best):
    (axes,) = search_history(*TRIALS, metric_named(metric)).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["pruned"].get_xydata().tolist() == [[1, 0.9]]
    assert lines["completed"].get_xydata().tolist() == [[0, 0.5], [2, 0.7], [4, 0.75]]
    assert lines["best so far"].get_xydata().tolist() == [[0, best[0]], [2, best[1]], [4, best[2]]]
    assert lines["no score"].get_xdata().tolist() == [3]


@pytest.mark.parametrize("outcome", ["completed", "pruned", "failed"])
def test_search_history_of_one_trial(outcome):
    value = np.nan if outcome == "failed" else 0.5
    assert rendered(search_history([0], [value], [outcome])).width > 300


def test_importances_stand_in_order():
    shares = {"train.lr": (0.3, Interval(0.1, 0.5)), "model.depth": (0.6, Interval(0.2, 0.9))}
    (axes,) = importances(shares).axes
    assert [bar.get_width() for bar in axes.patches] == [0.3, 0.6]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["train.lr  30%", "model.depth  60%"]
    ranges = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    assert ranges == [[0.1, 0.5], [0.2, 0.9]]


def test_leaderboard_shows_the_best_with_their_intervals():
    intervals = [wilson(num_right, 100) for num_right in (90, 88, 80)]
    figure = leaderboard_intervals(["trial 3", "trial 0", "trial 1"], [0.9, 0.88, 0.8], intervals, num=2)
    (axes,) = figure.axes
    assert axes.lines[0].get_xydata().tolist() == [[0.9, 0], [0.88, 1]]
    whiskers = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    assert whiskers == [[interval.low, interval.high] for interval in intervals[:2]]
    assert axes.get_title() == "The best 2 of 3 trials"
    assert axes.yaxis_inverted()  # the best one on top


@pytest.mark.parametrize(
    "figure",
    [search_history([], [], []), importances({}), leaderboard_intervals([], [], [])],
    ids=["history", "importances", "leaderboard"],
)
def test_figures_of_a_sweep_without_trials_are_sentences(figure):
    (sentence,) = texts(figure)
    assert sentence.endswith(".")


@pytest.mark.parametrize("num", [1, 20])
def test_figures_of_a_sweep_are_readable_at_any_size(num):
    names = [f"a key of the experiment, number {i}" for i in range(num)]
    for figure in (
        importances(dict.fromkeys(names, (1 / num, Interval(0, 1)))),
        leaderboard_intervals(names, [0.5] * num, [wilson(50, 100)] * num),
    ):
        figure.draw_without_rendering()
        assert not overlaps(figure.axes[0].get_yticklabels())
        assert rendered(figure).width < 600
