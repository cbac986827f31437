"""The line that a verb says of its images before it begins, on real folders."""

import json
import logging

import pytest
from PIL import Image
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.reporting.images_overview import overview, too_few_to_score
from tests.data.make import load, noise, write, write_class


def said(dataset):
    return overview(dataset, "photos", "cpu: a processor, 2 threads", work="20 trials")


def fill(folder, cats, dogs, start):
    write_class(folder / "cat", range(start, start + cats))
    write_class(folder / "dog", range(start + 500, start + 500 + dogs))


def test_the_line_tells_splits_where_they_came_from_and_the_smallest_class(tmp_path):
    for split, cats, dogs, start in (("Training", 30, 4, 0), ("dev", 12, 3, 100), ("TEST", 10, 2, 200)):
        fill(tmp_path / split, cats, dogs, start)
    (tmp_path / "TEST" / "notes.txt").write_text("no image")
    (tmp_path / "README.md").write_text("no image")
    assert said(load(tmp_path)) == (
        "photos: 2 classes; 34 train (Training/), 15 val (dev/), 12 test (TEST/); smallest class dog (4 train, 3 val, "
        "2 test); ignored 2 files: 1 .md, 1 .txt; on cpu: a processor, 2 threads; 20 trials"
    )


def test_the_line_says_what_was_carved(tmp_path):
    fill(tmp_path, 40, 40, 0)
    assert said(load(tmp_path)).startswith(
        "photos: 2 classes; 51 train, 9 val (carved from train by content, 15%), 20 test (carved by content, 25%); "
        "smallest class "
    )
    assert "; 68 train, 12 val (carved from train by content, 15%), no test; " in said(load(tmp_path, test_fraction=0))


def test_the_line_counts_what_was_left_out(tmp_path):
    fill(tmp_path, 20, 20, 0)
    write(tmp_path / "cat" / "broken.png", noise(0)).write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "; left out 1 unreadable; " in said(load(tmp_path, skip_unreadable=True))


@pytest.mark.parametrize("is_given", [True, False])
def test_files_of_several_frames_are_counted_in_all_splits(tmp_path, is_given):
    for place, start in (("train", 0), ("val", 100), ("test", 200)) if is_given else ((".", 0),):
        fill(tmp_path / place, 20, 20, start)
        frames = [Image.fromarray(noise(start + 50 + number)) for number in range(3)]
        for suffix in (".gif", ".tif"):
            frames[0].save(tmp_path / place / "cat" / f"several{suffix}", save_all=True, append_images=frames[1:])
    dataset = load(tmp_path)
    assert dataset.num_several_frames == (6 if is_given else 2)
    counted = "6 files have" if is_given else "2 files have"
    assert f"; {counted} several frames or pages: the first is used; on cpu" in said(dataset)


def test_classes_too_small_to_score_are_warned_of(tmp_path):
    for split, cats, dogs, start in (("train", 30, 14, 0), ("val", 12, 3, 100), ("test", 10, 12, 200)):
        fill(tmp_path / split, cats, dogs, start)
    # Wilson, 1 of 3 images: 0.061 to 0.792 (Brown, Cai and DasGupta 2001, equation 4)
    assert too_few_to_score(load(tmp_path)) == (
        "classes with fewer than 10 images to score: dog (14 train, 3 val, 12 test). The 95% interval of a recall from "
        "3 images is up to 0.73 wide"
    )
    fill(tmp_path / "val", 0, 10, 300)
    assert too_few_to_score(load(tmp_path)) == ""


def test_many_small_classes_are_counted(tmp_path):
    for number in range(8):
        write_class(tmp_path / f"class {number}", range(20 * number, 20 * number + 12))
    assert "; and 3 more. The 95% interval" in too_few_to_score(load(tmp_path))


def test_a_class_without_an_image_to_score_has_no_interval_at_all(tmp_path):
    fill(tmp_path / "train", 20, 20, 0)
    fill(tmp_path / "val", 20, 0, 100)
    assert "dog (20 train, 0 val). The 95% interval of a recall from 0 images is up to 1.00 wide" in too_few_to_score(
        load(tmp_path)
    )


@pytest.mark.slow
def test_every_verb_that_reads_images_says_it_once(project, caplog):
    fill(project.root / "images", 40, 40, 0)
    settings = ("data.source=folder", "data.path=images", "train.epochs=2", "search.trials=2")
    overrides = [part for setting in settings for part in ("--set", setting)]
    verbs = {
        "train": ("train", "tiny", *overrides),
        "evaluate": ("evaluate", "last"),
        "rerun": ("rerun", "last"),
        "sweep": ("sweep", "tiny", *overrides),
        "confirm": ("confirm", "last", "--top", "1", "--seeds", "2"),
    }
    ends = {
        "train": "; 1 run",
        "evaluate": " thread",
        "sweep": "; 2 trials",
        "confirm": "; 2 runs",
        "rerun": "; 1 run",
    }
    for verb, arguments in verbs.items():
        caplog.clear()
        with caplog.at_level(logging.INFO):
            done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
        lines = [line for line in caplog.messages if line.startswith(f"{project.root / 'images'}: 2 classes; ")]
        assert len(lines) == 1, (verb, caplog.messages)
        assert lines[0].removesuffix("s").endswith(ends[verb].removesuffix("s")) or f"{ends[verb]}, about " in lines[0]
        assert ", about 0 s " not in lines[0]
        assert json.loads(done.stdout)
        in_full = sum(line.startswith("classes with fewer than 10 images") for line in caplog.messages)
        again = sum("given when these images were first used" in line for line in caplog.messages)
        assert (in_full, again) == ((1, 0) if verb == "train" else (0, 1))


def test_class_names_cannot_replace_numbers_in_the_record(project):
    """A class may be called as a number of the record is."""
    for name in ("num_images", "label", "prediction", "image", "accuracy"):
        write_class(project.root / "images" / name, range(100 * len(name), 100 * len(name) + 9))
    done = project.train("data.source=folder", "data.path=images", "train.epochs=1", "train.warmup_epochs=0")
    run = project.client.get_run(done.run_id)
    profiles = {of.tags[0].value: json.loads(of.dataset.profile) for of in run.inputs.dataset_inputs}
    counts = profiles["train"].pop("num_images_per_class")
    assert (
        profiles["train"]
        == {"num_images": int(run.data.tags["imgcls.num_train"])}
        == {"num_images": sum(counts.values())}
    )
    assert set(counts) == {"num_images", "label", "prediction", "image", "accuracy"}
    assert run.data.tags["imgcls.num_ignored"] == "0"
