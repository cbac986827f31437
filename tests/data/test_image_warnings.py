"""What is warned of images is said once, and never lost."""

import logging
from dataclasses import replace

import pytest

from imgcls.data.image_warnings import held_warnings
from imgcls.data.image_warnings import log as LEAKS
from imgcls.runs.announce import announce


def test_warnings_are_held_and_other_messages_are_not(caplog):
    caplog.set_level(logging.INFO, "imgcls")
    with held_warnings() as warnings:
        LEAKS.warning("%d pairs", 3)
        LEAKS.info("searched")
        logging.getLogger("imgcls.data.decode_cache").warning("damaged")
    assert warnings == ["3 pairs"]
    assert caplog.messages == ["searched", "damaged"]
    LEAKS.warning("afterwards")
    assert caplog.messages[-1] == "afterwards"


def test_where_reading_fails_the_warnings_are_logged_after_all(caplog):
    def read():
        with held_warnings():
            LEAKS.warning("3 pairs")
            raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        read()
    assert caplog.messages == ["3 pairs"]


def test_a_record_with_a_run_of_these_images_was_told_before(project, leaky, caplog):
    settings = (*leaky, "data.allow_leaks=true")
    prepared = project.prepare(*settings)
    said = prepared.warnings
    assert any(warning.startswith("data.allow_leaks: ") for warning in said)
    assert any(warning.startswith("classes with fewer than 10 images") for warning in said)
    assert not set(said) & set(caplog.messages)
    with caplog.at_level(logging.INFO):
        announce(prepared, project.tracker)
    assert set(said) <= set(caplog.messages)
    run_id = project.train(*settings).run_id
    project.train(*settings, "train.seed=1")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        announce(prepared, project.tracker)
    assert not set(said) & set(caplog.messages)
    assert caplog.messages[-1].endswith(f"given when these images were first used (in run {run_id})")
    caplog.clear()
    announce(replace(prepared, warnings=()), project.tracker)
    assert caplog.messages == []
