import pytest

from imgcls.reporting.run_progress import Outlook, Pace, RunProgress
from imgcls.statistics.intervals import Interval
from imgcls.training.epoch import EpochResult


class Clock:
    """Shows what it is set to."""

    seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.mark.parametrize(
    ("before", "seconds", "done", "total", "words"),
    [
        (0, 60.0, 2, 5, "1 min 30 s left"),
        (0, 60.0, 5, 5, "0 s left"),
        (8, 10.0, 9, 12, "30 s left"),  # of nine that are done, this sitting did one
        (2.5, 30.0, 3, 10, "7 min 00 s left"),  # half an epoch in half a minute
        (3, 1.0, 3, 10, "time left not known yet"),  # stopped while the epoch was validated
        (0, 0.0, 0, 10, "time left not known yet"),
        (10, 1.0, 10, 10, "0 s left"),
    ],
)
def test_time_left_goes_by_this_sitting(before, seconds, done, total, words):
    clock = Clock()
    pace = Pace(before, clock)
    clock.seconds += seconds
    assert pace.left(done, total) == words


def test_no_more_time_is_left_than_may_be_spent():
    clock = Clock()
    pace = Pace(0, clock)
    clock.seconds += 60
    assert [pace.left(2, 5, most) for most in (120, 45, 0)] == ["1 min 30 s left", "45 s left", "0 s left"]


def test_a_run_that_is_taken_up_tells_its_time_left_by_what_it_does_now(capsys):
    clock = Clock()
    progress = RunProgress("run", num_epochs=10, steps_per_epoch=4, metric="val/macro_f1", done=2.75, now=clock)
    clock.seconds += 2
    scores = {"val/loss": 1.0, "val/accuracy": 0.5, "val/macro_f1": 0.44}
    taken_up = EpochResult(3, 1.0, scores, 1e-3, seconds=3600.0, images_per_second=9.0, ended=0)
    progress.on_epoch(
        taken_up, is_best=True, interval=Interval(0.4, 0.6)
    )  # most of its hour belongs to the sitting before
    said = capsys.readouterr().err
    assert "56 s left" in said and "val/accuracy 0.5 (0.4 to 0.6)  val/macro_f1 0.4 *" in said


@pytest.mark.parametrize(
    ("outlook", "words"),
    [
        (
            Outlook(num_waiting=3, num_workers=1, seconds_each=None),
            "4 s left in this trial, 34 s in the sweep",
        ),
        (Outlook(num_waiting=3, num_workers=2, seconds_each=None), "4 s left in this trial, 19 s in the sweep"),
        (Outlook(num_waiting=3, num_workers=2, seconds_each=7.0), "4 s left in this trial, 25 s in the sweep"),
        (Outlook(num_waiting=0, num_workers=1, seconds_each=None), "4 s left in this trial, 4 s in the sweep"),
        # of a timeout: 6 s are over, 4 s are this trial's, and one that begins in time is trained to its end
        (Outlook(3, 1, None, seconds_to_timeout=60.0), "4 s left in this trial, 34 s in the sweep"),
        (Outlook(3, 1, None, seconds_to_timeout=15.0), "4 s left in this trial, 19 s in the sweep"),
        (Outlook(3, 1, None, seconds_to_timeout=9.0), "4 s left in this trial, 4 s in the sweep"),
    ],
)
def test_a_trial_tells_the_time_left_of_its_sweep_from_its_first_epoch_on(outlook, words, capsys):
    clock = Clock()
    progress = RunProgress("trial 1 · lr 0.1", 5, steps_per_epoch=4, metric="val/loss", outlook=outlook, now=clock)
    clock.seconds += 6
    scores = {"val/loss": 1.0, "val/accuracy": 0.5}
    epoch = EpochResult(3, 1.0, scores, 1e-3, seconds=2.0, images_per_second=9.0, ended=0)
    progress.on_epoch(epoch, is_best=True, interval=Interval(0.4, 0.6))
    said = capsys.readouterr().err
    assert said.startswith("trial 1 epoch   3/5 ") and said.rstrip().endswith(words)
