"""`imgcls predict` from the shell: what it prints, what it writes, and its exit codes."""

import io
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from imgcls.cli import app
from imgcls.errors import ImgclsError
from imgcls.runs.val_predictions import recorded_predictions
from tests import fast_start
from tests.data.make import noise

PROBS = ["prob/coat", "prob/shoe, left"]


def predict(*arguments, stdin=None):
    """Exit code and stdout; the code of an error is the one with which the command ends."""
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)], input=stdin)
    if isinstance(done.exception, ImgclsError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_the_table_has_the_image_its_class_and_the_probability(shop):
    code, shown = predict(shop.run_id, "images/val")
    header, *lines = shown.splitlines()
    recorded = recorded_predictions(shop.record, shop.project.tracker)
    assert code == 0 and header.split() == ["image", "class", "probability"] and len(lines) == 21
    for row in recorded.to_dict("records"):
        (line,) = (line for line in lines if line.startswith(f"images/{row['image']} "))
        best = f"{row['calibrated/' + row['prediction']]:.4f}"
        assert re.split(" {2,}", line) == [f"images/{row['image']}", row["prediction"], best]


@pytest.mark.parametrize(("options", "kind"), [((), "calibrated"), (("--raw",), "prob")])
def test_csv_and_json_have_the_columns_of_the_record(shop, tmp_path, options, kind):
    recorded = recorded_predictions(shop.record, shop.project.tracker).set_index("image")
    target = tmp_path / "out.csv"
    target.write_text("older")
    assert predict("last", "images/val/**/*", "--csv", target, *options) == (0, f"21 predictions in {target}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
    table = pd.read_csv(target, dtype={"image": str})
    assert list(table.columns) == ["image", "prediction", *PROBS]
    recorded = recorded.loc[[name.removeprefix("images/") for name in table["image"]]]
    assert list(table["prediction"]) == list(recorded["prediction"])
    of_record = recorded[[name.replace("prob/", f"{kind}/") for name in PROBS]]
    np.testing.assert_allclose(table[PROBS], of_record, atol=1e-5, rtol=0)
    code, text = predict(shop.run_id[:7], "images/val", "--json", *options)
    assert code == 0 and json.loads(text) == table.to_dict("records")
    code, text = predict(shop.run_id, "images/val", "--csv", "-", *options)
    assert code == 0 and pd.read_csv(io.StringIO(text)).equals(table)


def test_a_list_on_stdin(shop):
    paths = sorted((shop.images / "val").rglob("*.*"))[:3]
    code, text = predict(shop.run_id, "-", "--json", "--top", 1, stdin="\n".join(map(str, paths)))
    assert code == 0 and [row["image"] for row in json.loads(text)] == list(map(str, paths))
    assert all(row["class_1"] == row["prediction"] and "class_2" not in row for row in json.loads(text))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{run}", "imagse/val"), 2, "did you mean images/val?"),
        (("{run}", "images/val/*.gif"), 2, "images/val/*.gif, which nothing matches"),
        (("nonsense", "images/val"), 2, "no run 'nonsense'"),
        (("models:/none@champion", "images/val"), 2, "no model 'none' is registered"),
        (("none.onnx", "images/val"), 2, "none.onnx does not exist"),
        (("{run}", "images/val", "--top", "3"), 2, "there are 2 classes"),
        (("{run}", "images/val", "--csv", "nowhere/out.csv"), 2, "the folder nowhere does not exist; create it first"),
        (("{run}", "images/val", "--csv", "mlflow.db/out.csv"), 2, "cannot be written: Not a directory"),
        (("{run}", "images/val", "--csv", "images"), 2, "--csv images is a folder"),
        (("{run}", "images/val", "--csv", "x" * 300), 2, "File name too long"),
        (("{run}", "images/val", "--csv", "-", "--json"), 2, "both write to stdout"),
        (("{run}", "images"), 2, "16 images are test images"),
        (("{run}", "images", "--csv", "none.csv"), 2, "--test-look"),
        (
            ("{run}", "images/val", "--csv", "/dev/full"),
            1,
            "--csv /dev/full could not be written: No space",
        ),
        (("{run}", "mlflow.db"), 1, "none of the images can be read"),
    ],
)
def test_what_cannot_be_done_is_one_error_and_leaves_nothing(shop, arguments, code, message):
    before = sorted(path.name for path in shop.project.root.iterdir())
    ended, said = predict(*(argument.format(run=shop.run_id) for argument in arguments))
    assert ended == code and message in said
    assert sorted(path.name for path in shop.project.root.iterdir()) == before


def test_a_place_that_cannot_be_written_is_refused_before_the_work(shop, monkeypatch):
    monkeypatch.setattr("imgcls.inference.predictions.predict", pytest.fail)
    assert predict(shop.run_id, "images/val", "--csv", "nowhere/out.csv")[0] == 2


def test_a_link_to_a_file_stays_a_link(shop, tmp_path):
    (tmp_path / "link.csv").symlink_to("there.csv")
    assert predict(shop.run_id, "images/val", "--csv", tmp_path / "link.csv")[0] == 0
    assert (tmp_path / "link.csv").is_symlink() and len(pd.read_csv(tmp_path / "there.csv")) == 21


@pytest.mark.slow  # a process that imports torch and MLflow
def test_a_table_that_does_not_arrive_is_an_error(shop):
    command = [sys.executable, "-m", "imgcls", "predict", shop.run_id, "images/val"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = fast_start.run(
            command, cwd=shop.project.root, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "the table could not be written to stdout: No space left on device" in done.stderr


@pytest.mark.slow  # a process that imports torch and MLflow
def test_from_the_shell_some_unreadable_files_are_listed_and_the_exit_code_is_0(shop, tmp_path):
    Image.fromarray(noise(1)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "c.txt").touch()
    command = [sys.executable, "-m", "imgcls", "predict", shop.run_id, str(tmp_path), "--csv", "/dev/stdout"]
    done = fast_start.run(command, cwd=shop.project.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(io.StringIO(done.stdout.split("1 prediction")[0]))
    assert list(table["image"]) == [str(tmp_path / "a.png")]
    assert f"1 input could not be read:\n  {tmp_path / 'b.png'}: " in done.stderr
    assert "left out, since they are not images: 1 .txt" in done.stderr


@pytest.mark.slow  # an export
def test_an_exported_file_is_a_run_inside_and_outside_of_its_project(shop, onnx_file, tmp_path, monkeypatch, caplog):
    val, test = shop.images / "val", sorted((shop.images / "test").rglob("*.*"))[14]
    code, of_run = predict(shop.run_id, val, "--json")
    assert code == 0
    probs = pd.DataFrame(json.loads(of_run))
    for folder in (shop.project.root, tmp_path):
        monkeypatch.chdir(folder)
        code, of_file = predict(onnx_file.path, val, "--json")
        table = pd.DataFrame(json.loads(of_file))
        assert code == 0 and list(table["prediction"]) == list(probs["prediction"])
        np.testing.assert_allclose(table[PROBS], probs[PROBS], atol=1e-5, rtol=0)
    assert predict(onnx_file.path, test)[0] == 0 and "no record is at hand" in caplog.text
    monkeypatch.chdir(shop.project.root)
    code, said = predict(onnx_file.path, test)
    assert code == 2 and "1 image is a test image" in said
    assert list(tmp_path.iterdir()) == []
