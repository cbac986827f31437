"""The examples of `--help` are commands that run as they stand."""

import inspect
import re

import pytest
from typer.testing import CliRunner

from imgcls.cli import app
from tests.data.make import write_classes
from tests.photographs import save_photograph

VERBS = {
    command.callback.__name__: command.callback
    for command in app.registered_commands
    # They serve until Ctrl-C; tests/cli/test_ui.py and tests/search/test_shared_storage.py run them.
    if command.callback.__name__ not in ("ui", "storage_proxy")
}


@pytest.mark.slow
def test_every_example_runs_in_the_order_of_the_verbs(project):
    text = (project.root / "experiments" / "tiny.toml").read_text().replace("epochs = 3", "epochs = 2")
    (project.root / "experiments" / "digits.toml").write_text(text.replace('name = "tiny"', 'name = "digits"'))
    for seed in range(3):
        save_photograph(project.root / "photos", seed)
    write_classes(project.root / "photographs", {"cat": 20, "dog": 20})
    for verb, function in VERBS.items():
        (example,) = re.findall(r"^Example: imgcls (.*)$", inspect.getdoc(function), re.MULTILINE)
        done = CliRunner().invoke(app, example.split(), catch_exceptions=False)
        assert done.exit_code == 0, (verb, done.output)
        assert done.stdout
    assert (project.root / "comparison.html").is_file()
    looks = project.runs(kind="evaluation")
    (sweep,) = project.runs(kind="sweep")
    assert [look.tags["imgcls.evaluated_run_id"] for look in looks] == [sweep.tags["imgcls.best_run_id"]]


@pytest.mark.slow
def test_every_verb_takes_the_beginning_of_an_id(project):
    """Named by position or as an option, by six characters or more."""
    first, second = (project.train("train.epochs=1", "train.warmup_epochs=0", f"train.seed={s}").run_id for s in (0, 1))
    shell = CliRunner()
    for arguments in (
        ("evaluate", first[:6]),
        ("evaluate", "--run-id", first[:9]),
        ("compare", first[:8], second[:8]),
        ("rerun", first[:31]),
    ):
        done = shell.invoke(app, [*arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert first in done.stdout
    assert "takes one run" in str(shell.invoke(app, ["evaluate", first, "--run-id", first]).exception)
    assert "takes one run" in str(shell.invoke(app, ["evaluate"]).exception)
