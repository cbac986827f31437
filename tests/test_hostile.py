"""What somebody may type, or call a folder, to do harm: shown as it is, and obeyed nowhere."""

import csv
import io
import logging
from html.parser import HTMLParser

import pytest

from imgcls import cli
from imgcls.errors import InputError
from imgcls.evaluation.judge import evaluate
from imgcls.text import printable
from tests.data.make import write_classes


@pytest.fixture
def shell(project, monkeypatch, capsys):
    """The command line in this process: arguments -> (exit code, stdout, stderr)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["imgcls", *arguments])
        monkeypatch.chdir(project.root)
        factory = logging.getLogRecordFactory()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code
        finally:
            logging.setLogRecordFactory(factory)
        return code, *capsys.readouterr()

    return run


RUN_IDS = [
    "../../etc/passwd", "' or '1'='1", "`id`", '"', "$(id)", "%2e%2e%2f", "new\nline", "\x1b[31mred\x07",
    "latin-\udce9", "x" * 5000, "\u202eturned", "0" * 32 + "\n", "<script>", "é漢😀",
]  # fmt: skip


def test_a_hostile_run_id_is_a_run_that_is_not_there(project, shell):
    verbs = [("evaluate", "--run-id"), ("compare", "x"), ("confirm",), ("rerun",)]
    for number, run_id in enumerate(RUN_IDS):
        with pytest.raises(InputError, match="no run"):
            project.tracker.get(run_id)
        code, out, err = shell(*verbs[number % len(verbs)], run_id)
        assert (code, out) == (2, "")
        assert err.startswith("error: no run ") and err.endswith("lists the runs of this store\n")
        assert err.count("\n") == 1 and err.rstrip("\n").isprintable()
    with pytest.raises(InputError, match="no run"):
        project.tracker.get("a\0b")


def test_a_hostile_experiment_is_answered_in_one_printable_error(shell):
    for arguments in [
        *(("train", name) for name in ("../../etc/passwd", "\x1b[31m", "'; --", "latin-\udce9", "x" * 5000)),
        *(("train", "tiny", "--set", text) for text in ("\x1b[31m=1", "train.lr=\x1b[31m", "data.path=~nobody-here/x")),
        *(
            ("train", "tiny", "--set", "data.source=folder", "--set", f"data.path={name}")
            for name in ("\x1b", "\udce9")
        ),
        ("runs", "\x1b[31m' or 1"),
    ]:
        code, out, err = shell(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert all(line.isprintable() for line in err.splitlines())


def test_control_characters_are_spelt_out_and_nothing_else_is():
    assert printable("a\x1b[2J\x07b\r\u202e\x85\x7f\udce9") == "a\\x1b[2J\\x07b\\r\\u202e\\x85\\x7f\\udce9"
    plain = "two\nlines\tand é漢😀 – “quotes” \\x1b"
    assert printable(plain) == plain


NAMES = ["<script>alert(1)<", "a|b*c_d", "$\\alpha$", '"it\'s", `x`', "[a](javascript:b)", "![x](y)", "-1", "x" * 180]
"""Names that folders may have, as the classes of somebody else's data."""


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.addresses = set(), "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags |= {tag}
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.text += data


@pytest.mark.slow
def test_hostile_classes_are_trained_judged_and_reported_under_their_names(project):
    write_classes(project.root / "images", dict.fromkeys(NAMES, 8))
    settings = (
        "data.source=folder",
        "data.path=images",
        "train.epochs=1",
        "train.warmup_epochs=0",
        "data.allow_leaks=true",
    )
    run_id = project.train(*settings).run_id
    judged = evaluate(run_id, project.tracker)
    table = list(csv.DictReader(io.StringIO(project.tracker.read_text(run_id, "predictions/val.csv"))))
    assert {row["label"] for row in table} <= set(NAMES)
    assert [name for name in table[0] if name.startswith("prob/")] == [f"prob/{name}" for name in sorted(NAMES)]
    assert not [cell for row in table for cell in row.values() if cell[:1] in ("=", "@")]
    page = Page(project.tracker.read_text(judged.run_id, "report/report.html"))
    assert not {"script", "iframe"} & page.tags
    assert all(address.startswith(("#section-", "http://127.0.0.1:5000/#/experiments/")) for address in page.addresses)
    assert all(name in page.text for name in NAMES)
    assert printable(judged.report) == judged.report
