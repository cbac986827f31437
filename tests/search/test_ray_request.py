"""What a sweep asks of Ray, and what is refused before Ray is started; none of these tests starts it."""

import os
import socket
import sys
from dataclasses import replace

import pytest

from imgcls.errors import ConfigError, InputError
from imgcls.library.verbs import sweep
from imgcls.search import ray_request as ray_request_module
from imgcls.search.outcome import Outcome
from imgcls.search.ray_request import Need, RayRequest, ray_request
from imgcls.search.ray_task import Home, Task, settings_of_the_driver, train
from imgcls.search.sweep import Sweep
from imgcls.search.trial import Job
from imgcls.signals import stop_requested


@pytest.mark.parametrize(
    ("need", "resources", "fitting"),
    [
        (Need(1, 0.0), {"CPU": 4.0}, 4),
        (Need(3, 0.0), {"CPU": 8.0, "GPU": 2.0}, 2),
        (Need(4, 0.0), {"CPU": 3.0}, 0),
        (Need(1, 1.0), {"CPU": 4.0}, 0),
        (Need(1, 1.0), {"CPU": 4.0, "GPU": 2.0}, 2),
        (Need(1, 0.5), {"CPU": 16.0, "GPU": 2.0}, 4),
        (Need(1, 0.3), {"CPU": 16.0, "GPU": 2.0}, 6),  # three on each, and 0.1 of each GPU is left
        (Need(1, 1 / 3), {"CPU": 16.0, "GPU": 1.0}, 3),
        (Need(1, 0.6), {"CPU": 16.0, "GPU": 2.0}, 2),
        (Need(8, 0.25), {"CPU": 16.0, "GPU": 4.0}, 2),
        (Need(1, 0.0), {}, 0),  # a head that trains nothing
    ],
)
def test_how_many_trials_fit_on_a_machine(need, resources, fitting):
    assert need.fitting(resources) == fitting


@pytest.mark.parametrize(
    ("threads", "cpus", "need"), [("auto", None, 1), (0, None, 1), (3, None, 3), ("auto", 4, 4), (4, 4, 4)]
)
def test_threads_follow_the_cpus(project, threads, cpus, need):
    experiment = project.experiment(f"train.threads={threads!r}".replace("'", '"'))
    assert RayRequest(cpus_per_trial=cpus).need(experiment) == Need(need, 0.0)


@pytest.mark.parametrize(
    ("options", "overrides", "words"),
    [
        ({"cpus_per_trial": 0}, (), "--cpus-per-trial 0 is less than 1"),
        ({"gpus_per_trial": 2.0}, (), r"--gpus-per-trial 2 is outside \[0, 1\]"),
        ({"gpus_per_trial": -0.5}, (), r"--gpus-per-trial -0.5 is outside"),
        ({"address": "ray://head:10001"}, (), "such as --address HOST:6379"),
        ({"cpus_per_trial": 4}, ("train.threads=2",), "train.threads = 2, but --cpus-per-trial is 4"),
        ({"gpus_per_trial": 0.5}, ('train.device="cpu"',), "train.device = 'cpu'; --set train.device=\"auto\""),
        ({"gpus_per_trial": 1.0}, ('train.device="cuda:1"',), "a GPU that Ray chooses"),
        ({}, ('train.device="cuda"',), "sees a GPU only with --gpus-per-trial 1"),
    ],
)
def test_what_no_trial_could_have_is_refused(project, options, overrides, words):
    experiment = project.experiment(*overrides)
    with pytest.raises(ConfigError, match=words):
        RayRequest(**options).need(experiment)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "spark"}, "--engine 'spark' does not exist; choose local or ray"),
        ({"address": "auto"}, "--address is an option of --engine ray"),
        ({"cpus_per_trial": 2}, "--cpus-per-trial is an option of --engine ray"),
        ({"gpus_per_trial": 0.0}, "--gpus-per-trial is an option of --engine ray"),
    ],
)
def test_options_of_ray_are_refused_elsewhere(options, words):
    with pytest.raises(ConfigError, match=words):
        ray_request(**options)
    assert ray_request() is None


def test_without_ray_its_command_is_named(project, monkeypatch):
    monkeypatch.setattr(ray_request_module, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"--engine ray needs Ray; run: pip install 'imgcls\[ray\]'"):
        sweep(project.root / "experiments" / "tiny.toml", engine="ray")
    assert project.runs(kind="sweep") == []


def test_ray_is_imported_only_when_a_sweep_begins_on_it():
    assert ray_request("ray", "head:6379", 2, 0.5) == RayRequest("head:6379", 2, 0.5)
    assert Sweep.__module__ in sys.modules
    assert not {"ray", "imgcls.search.ray_engine"} & sys.modules.keys()


# --- on a machine of the cluster ---


class Looks(Job):
    """A job that tells what it finds around it."""

    def run(self):
        assert stop_requested() == ""
        return {name: os.environ.get(name) for name in ("IMGCLS_CACHE", "MLFLOW_TRACKING_URI", "CUDA_VISIBLE_DEVICES")}


@pytest.fixture
def task(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-the-driver")
    monkeypatch.setenv("IMGCLS_CACHE", "/of/the/driver")
    return Task(Looks(project.experiment()), Home(project.root, None), settings_of_the_driver(), sees_gpus=False)


def test_a_trial_has_the_settings_of_the_driver_and_sees_no_gpu(task, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://of-this-machine")
    monkeypatch.setenv("IMGCLS_CACHE", "/of/this/machine")
    seen = {"IMGCLS_CACHE": "/of/the/driver", "MLFLOW_TRACKING_URI": "http://of-the-driver"}
    assert train(task).finished == seen | {"CUDA_VISIBLE_DEVICES": ""}
    assert train(replace(task, sees_gpus=True)).finished["CUDA_VISIBLE_DEVICES"] == ""  # as it is here now


def test_a_machine_keeps_its_own_cache_but_not_its_own_record(task):
    outcome = train(replace(task, environment={}, sees_gpus=True))
    assert isinstance(outcome, Outcome)
    assert outcome.finished == {
        "IMGCLS_CACHE": "/of/the/driver",
        "MLFLOW_TRACKING_URI": None,
        "CUDA_VISIBLE_DEVICES": "0,1",
    }


def test_a_machine_without_the_project_is_named(task, project, tmp_path):
    with pytest.raises(InputError, match=f"machine {socket.gethostname()} .* has no folder {tmp_path / 'elsewhere'}"):
        train(replace(task, home=Home(tmp_path / "elsewhere", None)))
    sign = project.root / "sign"
    with pytest.raises(InputError, match="would be recorded where nobody sees them"):
        train(replace(task, home=Home(project.root, sign)))
    sign.touch()
    assert not train(replace(task, home=Home(project.root, sign))).error
