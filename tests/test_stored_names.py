"""Names as MLflow stores them: new runs and those of earlier versions read alike, by the names of `--json`."""

import json

import pytest

from imgcls.stored_names import metrics_of_stored, name_of_stored, process_of, process_tag, stored_name


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("best/val/accuracy", "val/accuracy_best"),
        ("best/val/macro_f1_low", "val/macro_f1_best_low"),
        ("best/val/loss_high", "val/loss_best_high"),
        ("best/epoch", "best_epoch"),
        ("best/temperature_gain", "best_temperature_gain"),
        ("best_trial/val/accuracy", "best_trial/val/accuracy"),
        ("val/accuracy", "val/accuracy"),
        ("test/accuracy_low", "test/accuracy_low"),
        ("epoch_seconds", "epoch_seconds"),
    ],
)
def test_a_name_and_its_stored_form_stand_for_each_other(name, stored):
    assert stored_name(name) == stored and name_of_stored(stored) == name
    assert name_of_stored(name) == name  # as an earlier version stored it


def test_of_both_forms_the_newer_one_holds_whatever_their_order():
    for stored in ({"best/epoch": 2.0, "best_epoch": 3.0}, {"best_epoch": 3.0, "best/epoch": 2.0}):
        assert metrics_of_stored(stored) == {"best/epoch": 3.0}


def test_what_is_said_of_a_process_is_read_from_one_tag_or_from_those_of_an_earlier_version():
    facts = {"versions": {"torch": "2.9"}, "claims": "c1", "heartbeat": 7, "opening": "o1", "identity": "1d"}
    earlier = {f"imgcls.{key}": value for key, value in facts.items() if isinstance(value, str)}
    earlier |= {"imgcls.versions": json.dumps(facts["versions"]), "imgcls.heartbeat": "7"}
    assert process_of(process_tag(facts)) == process_of(earlier) == facts
    # A run that an earlier version began, and that goes on, has both.
    assert process_of(earlier | process_tag({"heartbeat": 9})) == facts | {"heartbeat": 9}
    assert process_of({}) == {}
