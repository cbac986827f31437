"""A run that was stopped or killed goes on as if it had never stopped."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from imgcls.errors import InputError, Interrupted
from imgcls.evaluation.judge import evaluate
from imgcls.record import Artifact
from imgcls.runs.record_writer import RecordWriter
from imgcls.signals import GracefulStop
from imgcls.tracking.run import Run
from imgcls.training.loop import predict_val
from tests import fast_start
from tests.runs.test_train import TIMINGS
from tests.stops import StopAfter, insist_while_saving

EVERYTHING = (
    "augment.rotation=10.0", "augment.mixup=0.2", "augment.cutmix=1.0", "train.ema_decay=0.9", "train.average_epochs=2",
    "data.test_views=flips",
)  # fmt: skip


class KilledError(BaseException):
    """Stands for a kill at one line: nobody catches it."""


def points(project, run_id):
    """Every point of every metric that is no timing: (name, step, value), as often as it is stored."""
    names = project.client.get_run(run_id).data.metrics.keys() - TIMINGS
    return sorted(
        (name, point.step, point.value) for name in names for point in project.client.get_metric_history(run_id, name)
    )


def weights(project, run_id):
    with project.tracker.fetch(run_id, Artifact.BEST) as path:
        return torch.load(path, weights_only=True)["model"]


def assert_same(project, run_id, reference):
    assert points(project, run_id) == points(project, reference)
    expected = weights(project, reference)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(project, run_id).items())
    read = project.tracker.read_text
    assert read(run_id, Artifact.VAL_PREDICTIONS) == read(reference, Artifact.VAL_PREDICTIONS)
    assert project.tracker.get(run_id).params == project.tracker.get(reference).params
    record = project.tracker.get(run_id)
    assert (record.status, record.outcome) == ("FINISHED", project.tracker.get(reference).outcome)
    assert "imgcls.reason" not in record.tags


def assert_it_goes_on(project, settings, questions, whole):
    """A fresh run that is stopped at one of the questions whether to stop goes on to the bits of a whole one."""
    with pytest.raises(Interrupted), StopAfter(questions):
        project.train(*settings, fresh=True)
    (stopped,) = project.runs(outcome="interrupted")
    assert project.train(*settings).run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)


# 5 steps an epoch, and with batches of 100 a question between the two of val.
@pytest.mark.parametrize("questions", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 4, 5, 6, 11, 16, 17))])
def test_a_run_stopped_at_any_question_goes_on_to_the_same_bits(project, questions):
    settings = (*EVERYTHING, "train.eval_batch_size=100")
    whole = project.trained(*settings).run_id
    assert_it_goes_on(project, settings, questions, whole)


# torch's archive is written by native code, which makes an error of its own of a KeyboardInterrupt.
@pytest.mark.parametrize("write", [2, pytest.param(9, marks=pytest.mark.slow)])
def test_a_second_signal_while_a_checkpoint_is_written_is_no_failure(project, monkeypatch, write):
    whole = project.trained().run_id
    insist_while_saving(monkeypatch, call=3, write=write)
    with pytest.raises(KeyboardInterrupt), GracefulStop():
        project.train(fresh=True)
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    stopped = project.runs(kind="train")[-1]
    assert (stopped.status, stopped.outcome) == ("KILLED", "interrupted")
    assert stopped.tags["imgcls.reason"] == "KeyboardInterrupt"
    assert project.train().run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)


@pytest.mark.slow
def test_a_run_stopped_after_every_step_ends_too(project):
    whole = project.trained().run_id
    ids = set()
    for number in range(18):
        try:
            with StopAfter(1):
                ids.add(project.train(fresh=number == 0).run_id)
            break
        except Interrupted:
            ids.add(project.runs(outcome="interrupted")[-1].run_id)
    assert len(ids) == 1
    assert_same(project, ids.pop(), whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [Artifact.LAST, Artifact.BEST, "checkpoints/epoch_0002.pt", Artifact.VAL_PREDICTIONS, "figures/curves.png"]
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_killed_beside_any_file_goes_on_to_the_same_bits(project, monkeypatch, name, moment):
    settings = ("train.save_from_epoch=2",)
    whole = project.trained(*settings).run_id
    artifact, seen = Run.artifact, []

    def killed(self, asked):
        seen.append(asked)
        if asked == name and seen.count(name) == (2 if name == Artifact.LAST else 1):
            if moment == "after":
                return _then_kill(artifact(self, asked))
            raise KilledError
        return artifact(self, asked)

    monkeypatch.setattr(Run, "artifact", killed)
    with pytest.raises(KilledError):
        project.train(*settings, fresh=True)
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    stopped = project.runs(kind="train")[-1]
    assert project.train(*settings).run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)


@pytest.mark.parametrize(("every", "killed_after"), [(3, 2), (2, 3)], ids=["before the first", "after one"])
@pytest.mark.slow
def test_a_run_whose_last_checkpoint_is_older_than_its_record_goes_on_to_the_same_bits(
    project, monkeypatch, every, killed_after
):
    """What was trained again is neither recorded nor judged again."""
    settings = "train.epochs=4", f"train.checkpoint_epochs={every}"
    whole = project.trained(*settings).run_id
    log_metrics, judged = Run.log_metrics, []

    def killed(self, metrics, step=0, **options):
        log_metrics(self, metrics, step, **options)
        if step == killed_after:
            raise KilledError

    monkeypatch.setattr(Run, "log_metrics", killed)
    with pytest.raises(KilledError):
        project.train(*settings, fresh=True)
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    stopped = project.runs(kind="train")[-1]
    assert project.train(*settings, prune=lambda result: judged.append(result.epoch)).run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)
    assert judged == list(range(killed_after, 4))
    for name in TIMINGS & project.client.get_run(stopped.run_id).data.metrics.keys():
        steps = [point.step for point in project.client.get_metric_history(stopped.run_id, name)]
        assert len(steps) == len(set(steps)), name


def test_the_last_checkpoint_is_written_at_its_interval_at_a_pause_and_at_the_end(project, monkeypatch):
    written, save_last = [], RecordWriter.save_last

    def counted(self, state):
        written.append(state.epoch)
        save_last(self, state)

    monkeypatch.setattr(RecordWriter, "save_last", counted)
    settings = "train.epochs=5", "train.checkpoint_epochs=3"
    assert project.train(*settings, pause_at=2).outcome == "paused" and written == [2]
    paused = project.runs(kind="train")[-1]
    assert project.train(*settings).run_id == paused.run_id and written == [2, 3, 5]


@contextmanager
def _then_kill(artifact):
    with artifact as path:
        yield path
    raise KilledError


@pytest.mark.parametrize("call", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4, 5))])
def test_a_run_killed_beside_any_metric_logs_none_twice_and_loses_none(project, monkeypatch, call):
    whole = project.trained().run_id
    log_metrics, calls = Run.log_metrics, []

    def killed(self, metrics, *rest, **options):
        if metrics:
            calls.append(metrics)
            if len(calls) == (call + 1) // 2:
                if call % 2:
                    log_metrics(self, metrics, *rest, **options)
                raise KilledError
        return log_metrics(self, metrics, *rest, **options)

    monkeypatch.setattr(Run, "log_metrics", killed)
    with pytest.raises(KilledError):
        project.train(fresh=True)
    monkeypatch.undo()
    monkeypatch.chdir(project.root)
    stopped = project.runs(kind="train")[-1]
    assert project.train().run_id == stopped.run_id
    assert_same(project, stopped.run_id, whole)


def test_pruning_is_decided_once_more_where_it_was_not_carried_out(project):
    def kill(result):
        if result.epoch == 2:
            raise KilledError
        return False

    whole = project.train(prune=lambda result: result.epoch == 2).run_id
    with pytest.raises(KilledError):
        project.train(prune=kill, fresh=True)
    stopped = project.runs(kind="train")[-1].run_id
    assert project.train(prune=lambda result: result.epoch == 2).run_id == stopped
    assert_same(project, stopped, whole)


@pytest.mark.slow
def test_the_threads_of_the_beginning_are_kept(project):
    with pytest.raises(Interrupted), StopAfter(7):
        project.train("train.threads=1")
    begun = project.runs(kind="train")[-1]
    assert project.train("train.threads=2").run_id == begun.run_id
    assert project.tracker.get(begun.run_id).params["train.threads"] == "1"
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="module")
def kept(make_project):
    """A project with a run that stopped in its second epoch of three."""
    made = make_project()
    with pytest.raises(Interrupted), StopAfter(7):
        made.train()
    return made


@pytest.fixture
def stopped(kept, project):
    """The same run in a copy of the project, which is `project`."""
    project.become(kept)
    return project.runs(kind="train")[-1]


@pytest.mark.slow
def test_another_experiment_and_a_fresh_start_take_nothing_up(project, stopped):
    stopped = stopped.run_id
    assert project.train("train.lr=1e-2").run_id != stopped
    assert project.train(fresh=True).run_id != stopped
    assert project.train().run_id != stopped, "the newest run of this work was completed"


def test_a_damaged_checkpoint_is_named_and_a_new_run_begins(project, stopped, caplog):
    stopped = stopped.run_id
    with project.tracker.fetch(stopped, Artifact.LAST) as path:
        path.write_bytes(path.read_bytes()[:-100])
    done = project.train()
    assert done.run_id != stopped
    record = project.tracker.get(stopped)
    assert record.status == "FAILED"
    assert Artifact.LAST in record.tags["imgcls.reason"]
    assert "a new run begins" in caplog.text


def test_a_run_that_is_being_written_is_not_taken_up(project):
    tracker = project.tracker
    with tracker.start_run("tiny", kind="train", name="other") as run:
        assert tracker.is_running(tracker.get(run.run_id))
        assert tracker.close_orphans() == []
        with pytest.raises(InputError, match="already running"), tracker.reopen_run(run.run_id):
            pass
    assert not tracker.is_running(tracker.get(run.run_id))


def test_the_runs_of_another_machine_are_closed_when_its_heart_has_stopped(project):
    runs = []
    for age in (30, 700):
        tags = {"imgcls.claims": "elsewhere", "imgcls.heartbeat": f"{time.time() - age:.0f}", "imgcls.kind": "train"}
        tags |= {"imgcls.outcome": "running", "imgcls.host": "elsewhere", "imgcls.pid": "1"}
        runs.append(project.client.create_run(project.client.create_experiment(f"{age}"), tags=tags).info.run_id)
    assert [record.run_id for record in project.tracker.close_orphans()] == runs[1:]
    assert project.tracker.get(runs[1]).tags["imgcls.reason"] == "its process died"
    with (
        pytest.raises(InputError, match="process 1 of elsewhere cannot be seen"),
        project.tracker.reopen_run(runs[0]),
    ):
        pass


def test_completed_epochs_without_a_checkpoint_are_not_trained_into_the_same_run(project, stopped, caplog):
    stopped = stopped.run_id
    with project.tracker.fetch(stopped, Artifact.LAST) as path:
        path.unlink()
    assert project.train().run_id != stopped
    assert f"run {stopped} has completed epochs and no {Artifact.LAST}; a new run begins" in caplog.text


def test_a_checkpoint_of_another_shape_is_not_forced_in(project, stopped, caplog):
    stopped = stopped.run_id
    with project.tracker.fetch(stopped, Artifact.LAST) as path:
        content = torch.load(path, weights_only=True)
        del content["state"]["optimizer"]
        torch.save(content, path)
    assert project.train().run_id != stopped
    assert "does not fit" in caplog.text


LONG = "train.epochs=30"
COMMAND = [sys.executable, "-m", "imgcls", "train", "tiny", "--fresh", "--set", LONG]


def stopped_after_epoch_12(project, *signals):
    """Types COMMAND, sends its process these signals, one at once after another; what it said from then on, and how
    it ended."""
    process = fast_start.Popen(COMMAND, cwd=project.root, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "epoch  12/" in line:
            break
    for number in signals:
        process.send_signal(number)
    said = process.stderr.read()
    process.stderr.close()
    return said, process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "signals", [[signal.SIGKILL], [signal.SIGTERM], [signal.SIGINT] * 3], ids=["killed", "stopped", "insisted"]
)
def test_a_process_that_is_killed_leaves_a_run_that_goes_on(project, caplog, signals):
    whole = project.trained(LONG).run_id
    said, code = stopped_after_epoch_12(project, *signals)
    (stopped,) = [record for record in project.runs(kind="train") if record.run_id != whole]
    if signals == [signal.SIGKILL]:
        assert stopped.status == "RUNNING"
    elif signals == [signal.SIGTERM]:
        assert (code, stopped.status, stopped.outcome) == (1, "KILLED", "interrupted")
        assert "stopped by SIGTERM" in said and "to go on: imgcls train tiny --set train.epochs=30\n" in said
    else:  # the second one leaves at once
        assert code in (1, 130) and "imgcls train tiny" in said
    assert "Traceback" not in said
    with caplog.at_level("INFO"):
        assert project.train(LONG).run_id == stopped.run_id
    assert "going on with run" in caplog.text
    assert_same(project, stopped.run_id, whole)


@pytest.mark.slow
def test_a_run_that_ends_on_another_device_has_the_temperature_of_its_checkpoint(project, monkeypatch):
    """Other last bits of val's logits give another temperature, and a checkpoint has to be what its record says."""
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "end", _kill)
        with pytest.raises(KilledError):
            project.train()

    def predict_elsewhere(*arguments, **options):
        logits = predict_val(*arguments, **options)
        return logits + 1e-6 * torch.randn(logits.shape, generator=generator)

    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr("imgcls.runs.train.predict_val", predict_elsewhere)
    run_id = project.train().run_id
    with project.tracker.fetch(run_id, Artifact.BEST) as path:
        content = torch.load(path, weights_only=True)
    metrics = project.client.get_run(run_id).data.metrics
    assert content["temperature"] == metrics["best_temperature"] != 1
    assert content["temperature_gain"] == metrics["best_temperature_gain"]
    assert evaluate(run_id, project.tracker).judged.run_id == run_id


def _kill(*_):
    raise KilledError


def test_a_run_with_the_tags_of_an_earlier_version_goes_on(project, stopped):
    """It had a tag for each thing that is said of the process, now in `imgcls.process`."""
    for key, value in json.loads(stopped.tags["imgcls.process"]).items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        project.client.set_tag(stopped.run_id, f"imgcls.{key}", text)
    project.client.delete_tag(stopped.run_id, "imgcls.process")
    assert project.train().run_id == stopped.run_id
    process = json.loads(project.client.get_run(stopped.run_id).data.tags["imgcls.process"])
    assert process["identity"] == stopped.process["identity"] and process["versions"]["torch"]
