"""`--help` says all that its author wrote, at every width."""

import inspect
import re
import tomllib
from pathlib import Path
from textwrap import wrap

import pytest

from imgcls.cli import app
from imgcls.cli.app import imgcls

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

VERBS = {command.callback.__name__.replace("_", "-"): command.callback for command in app.registered_commands}


@pytest.fixture
def shown(monkeypatch, capsys):
    """What a command prints on a terminal of some width. Typer's own runner knows one width only."""

    def run(*arguments, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        assert app(arguments, standalone_mode=False) in (0, None)
        return capsys.readouterr().out

    return run


def one_line(text):
    return " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("verb", VERBS)
def test_every_paragraph_is_shown_whole_and_wrapped_once(shown, verb, width):
    page = shown(verb, "--help", width=width)
    body = page[: page.index("Options:")]
    for paragraph in inspect.getdoc(VERBS[verb]).split("\n\n"):
        title, colon, example = paragraph.partition("Example: ")
        if colon and not title:
            assert f"  Example:\n    {example}\n" in body
        else:
            assert "\n".join(f"  {line}" for line in wrap(one_line(paragraph), min(width, 100) - 4)) in body
    assert all(len(line) <= width or "imgcls " in line for line in page.splitlines())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_list_of_verbs_has_each_first_sentence_whole(shown, width):
    page = one_line(shown("--help", width=width))
    for verb, function in VERBS.items():
        assert f"{verb} {one_line(inspect.getdoc(function).split(chr(10) * 2)[0])}" in page
    assert one_line(inspect.getdoc(imgcls)) in page
    assert "Search the experiment's [search.space] by validation score" in page


def test_every_option_keeps_what_stands_in_brackets(shown):
    for verb, function in VERBS.items():
        page = one_line(shown(verb, "--help"))
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            (info,) = parameter.annotation.__metadata__
            assert one_line(info.help) in page


def test_every_verb_with_an_argument_has_an_example_of_itself():
    for verb, function in VERBS.items():
        examples = re.findall(r"^Example: imgcls (\S+)", inspect.getdoc(function), re.MULTILINE)
        assert set(examples) == {verb}, verb


def test_the_version_is_that_of_the_package(shown):
    assert shown("--version") == f"imgcls {tomllib.loads(PYPROJECT.read_text())['project']['version']}\n"
