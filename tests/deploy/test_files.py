"""The files of deploy/: what an operator starts is valid, holds no secret, and listens on this machine alone."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from imgcls.cli.app import app
from imgcls.search.storage_proxy import NUM_THREADS
from imgcls.search.study_servers import CONNECTION

DEPLOY = Path(__file__).parents[2] / "deploy"
EXAMPLES = sorted(DEPLOY.rglob("*env.example"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SECRET = re.compile(r"PASSWORD|SECRET")


def settings(example):
    lines = (line for line in example.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_of_secrets_has_none(example):
    found = settings(example)
    assert any(SECRET.search(name) for name in found)
    assert {value for name, value in found.items() if SECRET.search(name)} == {""}


def test_compose_asks_for_each_secret_and_listens_on_this_machine_until_told_otherwise():
    text = (DEPLOY / "compose.yaml").read_text()
    used = dict(re.findall(r"\$\{(\w+):([?-][^}]*)\}", text))
    example = settings(DEPLOY / "env.example")
    assert used.keys() == example.keys()
    for name, otherwise in used.items():
        assert otherwise.startswith("?") if SECRET.search(name) else otherwise == f"-{example[name]}", name
    compose = yaml.safe_load(text)
    ports = [port for service in compose["services"].values() for port in service["ports"]]
    assert len(ports) == 3 and all(port.startswith("${BIND:-127.0.0.1}:") for port in ports)
    commands = [str(service["command"]) for service in compose["services"].values()]
    assert not [command for command in commands if SECRET.search(command)]
    assert all(
        service["image"].partition(":")[2] != "latest" for service in compose["services"].values() if "image" in service
    )


def test_the_proxy_of_compose_has_the_settings_of_ours():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assigned = {
        line.targets[0].id: line.value
        for line in ast.parse(compose["services"]["storage-proxy"]["command"][-1]).body
        if isinstance(line, ast.Assign)
    }
    assert ast.literal_eval(assigned["connection"]) == CONNECTION
    options = {
        key.value: value for key, value in zip(assigned["options"].keys, assigned["options"].values, strict=True)
    }
    assert options["pool_size"].value == NUM_THREADS


def test_compose_is_valid(tmp_path):
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed; the other tests of this file read compose.yaml without it")
    filled = (DEPLOY / "env.example").read_text()
    for name in settings(DEPLOY / "env.example"):
        filled = re.sub(rf"^{name}=$", f"{name}=filled", filled, flags=re.MULTILINE)
    (tmp_path / ".env").write_text(filled)
    command = ["docker", "compose", "--env-file", tmp_path / ".env", "-f", DEPLOY / "compose.yaml", "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1" in done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_valid(unit, tmp_path):
    """As systemd itself reads it, with programs that are there."""
    assert "0.0.0.0" not in unit.read_text()
    if not shutil.which("systemd-analyze"):
        pytest.skip(
            "a unit's syntax needs systemd-analyze (package systemd); its address and verb are checked without it"
        )
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_verb_that_is_started_exists():
    verbs = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    started = [
        verb
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for verb in re.findall(r"(?:^|[ /\[])imgcls,? ([a-z-]+)", path.read_text(), flags=re.MULTILINE)
        if path.suffix in (".service", ".sbatch", ".yaml") and verb in ("worker", "storage-proxy", "sweep")
    ]
    assert set(started) == {"worker", "storage-proxy"} <= verbs


def test_the_job_of_slurm_starts_a_worker_with_the_settings_of_its_file(tmp_path):
    """Slurm is not here: its `srun` is played by a script that shows what it was given."""
    (tmp_path / "srun").write_text('#!/bin/bash\necho "$@" "$MLFLOW_TRACKING_PASSWORD" "$IMGCLS_CACHE"\n')
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "env").write_text("MLFLOW_TRACKING_PASSWORD='two words'\n")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "IMGCLS_ENV": str(tmp_path / "env"), "USER": "ada"}
    script = DEPLOY / "worker.sbatch"

    def run(*arguments):
        command = ["bash", script, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = run("birds", "--set", "train.epochs=3")
    assert done.stdout == "imgcls worker birds --set train.epochs=3 two words /tmp/imgcls-ada\n", done.stderr
    assert "name the experiment" in run().stderr


def test_the_job_of_kubernetes_has_its_secrets_from_a_secret():
    job = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["imgcls", "worker", "EXPERIMENT"]
    assert container["envFrom"] == [{"secretRef": {"name": "imgcls-worker"}}]
    assert not [setting for setting in container["env"] if SECRET.search(setting["name"])]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
