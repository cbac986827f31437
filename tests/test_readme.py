"""What the README and docs/ say is so: the table of keys, the links, and the commands, run as written on the digits."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import typer

from imgcls.cli import app
from imgcls.config.key_table import config_table

ROOT = Path(__file__).parent.parent


def key_table():
    rows = [
        f"| `{key}` | `{default}` | {meaning.replace('|', chr(92) + '|')} |" for key, default, meaning in config_table()
    ]
    return "\n".join(["| key | default | what it means |", "|---|---|---|", *rows])


def test_the_table_of_keys_is_that_of_the_code():
    assert key_table() in (ROOT / "docs" / "keys.md").read_text(), "expected in docs/keys.md:\n" + key_table()


PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
        assert (page.parent / target).exists(), target


def commands(page):
    """Every command that a page names, in a block for the shell or between backticks, without its comment."""
    text = page.read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [shlex.split(part, comments=True) for part in [*lines, *spans] if re.match(r"(imgcls|make) [a-z]", part)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page):
    """Verbs with their options, and targets of the Makefile."""
    verbs = typer.main.get_command(app).commands
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, name, *rest in commands(page):
        if program == "make":
            assert name in targets, f"make {name}"
        else:
            assert name in verbs, f"imgcls {name}"
            known = {option for parameter in verbs[name].params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, (name, rest)


@pytest.fixture
def clone(tmp_path):
    """What git would give to a newcomer, with the environment of these tests for its own."""
    files = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in files.splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def shell(clone, command):
    """Runs a line in the folder of the clone, its environment entered."""
    done = subprocess.run(
        ["bash", "-c", f". .venv/bin/activate && {command}"], cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def until_it_listens(lines):
    """The server's lines up to that which it prints once its port is open ("startup complete" comes before)."""
    for line in lines:
        yield line
        if "running on http" in line:
            return


def ask(url, body=None):
    request = urllib.request.Request(
        url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".venv" / ".installed").exists(), reason="needs the environment of `make setup`")
def test_the_commands_run_as_written(clone):
    pages = "".join((ROOT / name).read_text() for name in ("README.md", "docs/daily-use.md"))
    for command in ("make sweep EXPERIMENT=digits TRIALS=", "mlflow ui ", "evaluate.py --run-id best ", "id RUN_ID "):
        assert command in pages
    shown = shell(clone, "make sweep EXPERIMENT=digits TRIALS=2")
    line = next(line for line in shown.splitlines() if "imgcls evaluate" in line)
    command = line[line.index("imgcls evaluate") :]
    scores = json.loads(shell(clone, command + " --json"))
    assert scores["test/accuracy"] > 0.9
    assert json.loads(shell(clone, "python evaluate.py --run-id best --json")) == scores

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    light = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
    ui = subprocess.Popen(
        [str(clone / ".venv" / "bin" / "mlflow"), "ui", "--port", str(port)],
        cwd=clone, env=light, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert ui.stderr is not None
        said = list(until_it_listens(ui.stderr))
        assert ui.poll() is None, "".join(said)
        api = f"http://127.0.0.1:{port}/api/2.0/mlflow"
        experiments = json.loads(ask(f"{api}/experiments/search?max_results=10"))["experiments"]
        digits = next(e for e in experiments if e["name"] == "digits")
        body = {"experiment_ids": [digits["experiment_id"]], "max_results": 100}
        found = json.loads(ask(f"{api}/runs/search", body))["runs"]
        kinds = sorted(tag["value"] for run in found for tag in run["data"]["tags"] if tag["key"] == "imgcls.kind")
        assert kinds == ["evaluation", "sweep", "trial", "trial"]
        sweep = next(r for r in found if {"key": "imgcls.kind", "value": "sweep"} in r["data"]["tags"])
        page = ask(f"http://127.0.0.1:{port}/get-artifact?path=figures/search.html&run_uuid={sweep['info']['run_id']}")
        assert "searched values</h1>" in page
    finally:
        ui.terminate()
        ui.communicate()
