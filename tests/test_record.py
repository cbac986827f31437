"""One page of public names: what runs leave is on it, nobody else spells it, and the documentation says the same."""

import ast
import re
import runpy
from pathlib import Path

import pytest

from imgcls.record import PUBLIC_NAMES
from imgcls.run_record import RunRecord
from tests.test_architecture import MODULES, name_of

DOCS = Path(__file__).parent.parent / "docs"
WHOLE = "|".join(re.escape(each.name) for each in PUBLIC_NAMES)
SPELT = re.compile(
    rf"^(?:{WHOLE})$"
    r"|(?<![\w./])(?:imgcls\.[a-z_]+(?![\w.])|(?:train|best|best_trial|confirm|test|report|figures|checkpoints|predictions)/\w)"
    r"|(?<![\w./])(?:imgcls\.|(?:train|best|best_trial|confirm|test|report|figures|checkpoints|predictions)/)$"
)
"""A name of the record, alone or within a sentence, or the beginning of one."""


def test_the_page_in_docs_says_the_same():
    page = runpy.run_path(str(DOCS / "record.py"))["page"]
    assert (DOCS / "record.md").read_text() == page(), "run `python docs/record.py`"


def test_each_name_stands_on_the_page_once():
    named = [(each.sort, each.name) for each in PUBLIC_NAMES]
    assert len(named) == len(set(named))


def texts(tree):
    """Every string that a program holds; not the docstrings of its definitions and constants."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name not in ("record.py", "stored_names.py")], ids=name_of
)
def test_no_name_is_spelt_elsewhere(path):
    assert not [text for text in texts(ast.parse(path.read_text())) if SPELT.search(text)]


@pytest.mark.parametrize(
    "text",
    [
        "imgcls.kind",
        "mlflow.parentRunId",
        "best/val/accuracy",
        "imgcls.",
        "figures/",
        "see report/report.md",
        "num_trials",
    ],
)
def test_spelt_names_are_found(text):
    assert SPELT.search(text)


@pytest.mark.parametrize(
    "text", ["imgcls.data.leaks", "mlflow.db", "imgcls", "its test/ folder", "a/best/b.png", "val/accuracy"]
)
def test_other_words_are_not_taken_for_names(text):
    assert not SPELT.search(text)


def record(tags=None, metrics=None, params=None):
    return RunRecord("id", "tiny", "run", "FINISHED", 0, params=params or {}, metrics=metrics or {}, tags=tags or {})


@pytest.mark.parametrize(
    ("tag", "value", "accessor", "expected", "without"),
    [
        ("imgcls.kind", "trial", "kind", "trial", ""),
        ("imgcls.outcome", "pruned", "outcome", "pruned", ""),
        ("imgcls.reason", "Ctrl-C", "reason", "Ctrl-C", ""),
        ("mlflow.parentRunId", "abc", "parent", "abc", ""),
        ("imgcls.study", "tiny-1", "study", "tiny-1", ""),
        ("imgcls.best_run_id", "abc", "best_run_id", "abc", ""),
        ("imgcls.best_trial_run_id", "abc", "best_trial_run_id", "abc", ""),
        ("imgcls.confirmed_run_id", "abc", "confirmed_run_id", "abc", ""),
        ("imgcls.confirmed_trials", "12,0,3", "confirmed_trials", [12, 0, 3], []),
        ("imgcls.data_fingerprint", "f0", "fingerprint", "f0", ""),
        ("imgcls.test_fingerprint", "f0", "test_fingerprint", "f0", ""),
        ("imgcls.evaluated_run_id", "abc", "evaluated_run_id", "abc", ""),
        ("imgcls.device", "cpu, 2 threads", "device", "cpu, 2 threads", ""),
        ("imgcls.versions", '{"torch": "2.9"}', "versions", {"torch": "2.9"}, {}),
        ("imgcls.num_val_groups", "4", "has_groups", True, False),
        ("imgcls.squares", "2", "squares", 2, 1),
        ("imgcls.loss", "2", "loss", 2, 1),
    ],
)
def test_a_record_tells_what_its_tags_say(tag, value, accessor, expected, without):
    assert getattr(record({tag: value}), accessor) == expected
    assert getattr(record(), accessor) == without


@pytest.mark.parametrize(
    ("tag", "accessor"),
    [
        ("imgcls.trial", "trial"),
        ("imgcls.num_val", "num_val"),
        ("imgcls.num_test", "num_test"),
        ("imgcls.test_look", "look"),
    ],
)
def test_a_number_that_a_run_does_not_have_is_never_made_up(tag, accessor):
    assert getattr(record({tag: "7"}), accessor) == 7
    with pytest.raises(KeyError):
        getattr(record(), accessor)


def test_scores_at_the_kept_epoch():
    trained = record(metrics={"best/epoch": 3.0, "best/val/loss": 0.5}, params={"search.metric": "val/loss"})
    assert (trained.best_epoch, trained.metric, trained.best(trained.metric)) == (3, "val/loss", 0.5)
    assert record().metric == "val/accuracy"


def pattern(name):
    """What a name on the page stands for: SCORE, SPLIT and braces stand for others."""
    parts = re.split(r"(SCORE|SPLIT|\{.*?\})", name)
    return "".join(
        {"SCORE": r"[\w/]+", "SPLIT": "(val|test)"}.get(p, r"\w+" if "{" in p else re.escape(p)) for p in parts
    )


def off_the_page(client):
    """(kind, name) of everything in a store that the page does not give for runs of that kind; MLflow reads it."""
    found = set()
    for run in client.search_runs([each.experiment_id for each in client.search_experiments()]):
        kind, folder = run.data.tags["imgcls.kind"], Path(run.info.artifact_uri.removeprefix("file://"))
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        left = {"tag": run.data.tags, "metric": run.data.metrics, "artifact": files}
        for sort, names in left.items():
            page = "|".join(pattern(each.name) for each in PUBLIC_NAMES if each.sort == sort and kind in each.kinds)
            found |= {(kind, name) for name in names if not re.fullmatch(page, name) and name != "mlflow.runName"}
    return found
