"""Commands that torchrun starts several times at once."""

import sys

import pytest

import imgcls.cli
from tests.shell import typed


@pytest.fixture
def one_of_two(monkeypatch):
    """Makes this process the one with that rank of two."""
    monkeypatch.setattr(sys.modules[imgcls.cli.main.__module__], "SECONDS_TO_SAY_IT", 0.0)

    def become(rank):
        for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}.items():
            monkeypatch.setenv(name, str(value))

    return become


@pytest.mark.parametrize("arguments", [("sweep", "tiny"), ("evaluate", "last"), ("runs",)])
def test_a_verb_that_each_process_would_repeat_is_refused_once(arguments, one_of_two, project):
    one_of_two(0)
    first = typed(*arguments)
    one_of_two(1)
    second = typed(*arguments)
    assert (first.returncode, second.returncode) == (2, 2)
    assert f"start it once, without torchrun: imgcls {arguments[0]}" in first.stderr
    assert (second.stdout, second.stderr) == ("", "")
    assert project.tracker.find({}) == []


@pytest.mark.usefixtures("project")
def test_one_process_of_torchrun_works_as_ever(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert typed("runs").returncode == 0
