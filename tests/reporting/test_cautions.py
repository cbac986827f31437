"""What stands beside every score, from a run's tags alone."""

import pytest

from imgcls.reporting.cautions import caution_tags, cautions, flat_cautions

LEAKS, NEAR, OPENED = "imgcls.leaks", "imgcls.num_near_leaked", "imgcls.num_opened_before"


@pytest.mark.parametrize(
    ("tags", "sentences", "values"),
    [
        ({"imgcls.kind": "train"}, (), {}),
        ({NEAR: "0", OPENED: "0"}, (), {NEAR: 0, OPENED: 0}),
        ({NEAR: "unknown"}, (), {}),
        ({LEAKS: "1 group spans splits"}, ("Splits leak: 1 group spans splits.",), {LEAKS: "1 group spans splits"}),
        ({NEAR: "1"}, ("1 val or test image looks like an image of another split.",), {NEAR: 1}),
        ({NEAR: "12"}, ("12 val and test images look like an image of another split.",), {NEAR: 12}),
        (
            {OPENED: "1", NEAR: "0"},
            (
                "1 train or val image was opened as test images by an earlier evaluation in this store, "
                "or looks like one.",
            ),
            {OPENED: 1, NEAR: 0},
        ),
        (
            {OPENED: "30", NEAR: "2"},
            (
                "2 val and test images look like an image of another split.",
                "30 train and val images were opened as test images by an earlier evaluation in this store, "
                "or look like one.",
            ),
            {OPENED: 30, NEAR: 2},
        ),
    ],
)
def test_a_run_says_in_words_and_in_numbers_what_its_tags_hold(tags, sentences, values):
    assert cautions(tags) == sentences
    assert flat_cautions(tags) == values
    assert caution_tags(tags | {"imgcls.kind": "train"}) == {k: v for k, v in tags.items() if k != "imgcls.kind"}
