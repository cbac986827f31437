"""The MLflow model of a run, loaded and served where neither torch nor imgcls can be imported."""

import base64
import importlib
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException

import imgcls
from imgcls.inference.mlflow_model import CARRIED, PACKAGES, load_mlflow_model, save_mlflow_model, write_decoder
from tests.inference.serving import (
    CLASSES,
    METADATA,
    Served,
    base64_of,
    elsewhere,
    encoded,
    expected,
    kinds,
    split_request,
    write_onnx,
)
from tests.inference.serving import picture as picture_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    save_mlflow_model(place / "model", write_onnx(place / "a.onnx"), METADATA)
    return place / "model"


@pytest.fixture(scope="module")
def model(folder):
    return load_mlflow_model(folder)


GOOD = base64_of(kinds()["jpeg"])

WITHOUT_ROWS = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAACAAAAAAJwrMHAAAACElEQVR4nAMAAAAAAUgGidIAAAAASUVORK5CYII="
)
"""A PNG of 10 x 0 pixels."""

TEXT = "a text that is not valid base64"
NO_IMAGES = (
    (None, "null instead of", "null instead of"),
    (5, "a number instead of", TEXT),  # MLflow makes a text of each value in `inputs`
    ([1, 2], "a list instead of", "a list instead of"),
    ({"a": 1}, "an object instead of", TEXT),
    (True, "true or false instead of", "not an image that Pillow knows"),
    ("", "empty file", "empty file"),
    ("not base64!", TEXT, TEXT),
    ("data:image/jpeg;base64," + GOOD, TEXT, TEXT),
)
"""Values that are not images. Beside each stands what the answer says of it in a row, then what it says in `inputs`."""


def by_rows(value):
    return {"dataframe_split": {"columns": ["image"], "data": [[value]]}}, {"dataframe_records": [{"image": value}]}


def table(*values):
    return pd.DataFrame({"image": pd.Series(values, dtype=object)})


def is_as_expected(answers, contents):
    """Whether the answers, objects as over HTTP, are those of imgcls's own decoder."""
    for answer, content in zip(answers, contents, strict=True):
        probs = expected(content)
        assert list(answer) == ["prediction", *(f"prob/{name}" for name in CLASSES)]
        assert answer["prediction"] == CLASSES[probs.argmax()]
        assert np.allclose([answer[f"prob/{name}"] for name in CLASSES], probs, rtol=0, atol=1e-6)
    return True


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_file_is_decoded_as_by_imgcls(model, kind):
    content = kinds()[kind]
    assert is_as_expected(model.predict(table(content)).to_dict("records"), [content])


def test_many_images_are_answered_in_their_order(model):
    contents = [encoded(image, "PNG") for image in pictures(70)]
    assert is_as_expected(model.predict(table(*contents)).to_dict("records"), contents)


def pictures(num):
    from PIL import Image

    return [Image.fromarray(picture_of(seed, (20 + seed, 30))) for seed in range(num)]


def test_base64_is_taken_for_what_it_encodes_and_no_image_gives_no_answer(model):
    content = kinds()["jpeg"]
    assert is_as_expected(model.predict(table(base64_of(content))).to_dict("records"), [content])
    assert is_as_expected(model.predict(table(base64_of(content).encode())).to_dict("records"), [content])
    assert len(model.predict(table())) == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"junk", "row 1: not an image that Pillow knows"),
        (b"", "row 1: empty file"),
        (None, "row 1: null instead of the bytes of an image file, which JSON takes in standard base64"),
        (float("nan"), "row 1: null instead of"),
        ("None", "row 1: null instead of"),  # what `inputs` makes of null beside other rows
        ("", "row 1: empty file"),
        (5, "row 1: a number instead of the bytes of an image file"),
        (1.5, "row 1: a number instead of"),
        (True, "row 1: true or false instead of"),
        ([base64_of(kinds()["jpeg"])], "row 1: a list instead of"),
        ({"a": 1}, "row 1: an object instead of"),
        ("é", "row 1: a text that is not valid base64"),
        (WITHOUT_ROWS, "row 1: a PNG of a kind that Pillow cannot read, or broken"),
        ("not base64!", "row 1: a text that is not valid base64; send the bytes of an image file in standard base64"),
        ("abcde", "row 1: a text that is not valid base64"),
        # As `inputs` gives it, which MLflow does not decode: without padding, for URLs, as a data URL, a number.
        (b"abcde", "row 1: a text that is not valid base64"),
        (b"_9j_4A==", "row 1: a text that is not valid base64"),
        (b"data:image/png;base64,iVBORw0KGgo=", "row 1: a text that is not valid base64"),
        (b"3", "row 1: a text that is not valid base64"),
        (kinds()["jpeg"][:300], "row 1: Truncated File Read"),
        (b"\0\0\0\x0cjP  ", "row 1: JPEG 2000 by its content"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_row_and_the_reason(model, value, reason):
    with pytest.raises(MlflowException) as raised:
        model.predict(table(kinds()["jpeg"], value))
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
    assert f"1 of 2 images cannot be read: {reason}" in str(raised.value)


def test_many_refusals_are_counted_and_ten_of_them_named(model):
    with pytest.raises(MlflowException, match=r"12 of 12 images cannot be read: row 0: .*; row 9: [^;]*; and 2 more$"):
        model.predict(table(*[b"junk"] * 12))


def test_no_file_of_it_is_a_pickle_and_its_code_is_the_package_s(folder):
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib"))]
    (decoder,) = (folder / "artifacts").glob("imgcls_decoder_*")
    package = Path(imgcls.__file__).parent
    for name in CARRIED:
        assert (decoder / name).read_bytes() == (package / name).read_bytes()
    assert (folder / "served_model.py").read_bytes() == (package / "inference" / "served_model.py").read_bytes()


def test_it_asks_for_the_versions_at_hand_and_tells_no_place_of_this_machine(folder):
    wanted = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in wanted] == list(PACKAGES)
    assert f"pandas=={pd.__version__}" in wanted
    described = (folder / "MLmodel").read_text()
    assert not re.search(r"[ '\"]/", described), described  # no absolute path at all
    assert str(Path(imgcls.__file__).parent) not in described and str(folder) not in described
    meta = yaml.safe_load(described)
    assert json.loads(meta["signature"]["inputs"]) == [{"type": "string", "name": "image", "required": True}]
    assert meta["metadata"] == METADATA


def test_two_models_with_different_decoders_live_in_one_process(folder, model, tmp_path):
    """As when imgcls has changed between two registrations."""
    other = shutil.copytree(folder, tmp_path / "other", ignore=shutil.ignore_patterns("__pycache__"))
    (decoder,) = (other / "artifacts").glob("imgcls_decoder_*")
    formats = decoder / "data" / "image_formats.py"
    formats.write_text(formats.read_text().replace('"JPEG", "PNG", "PPM"', '"PNG", "PPM"'))
    renamed = decoder.rename(decoder.with_name("imgcls_decoder_of_another_version"))
    described = other / "MLmodel"
    described.write_text(described.read_text().replace(decoder.name, renamed.name))
    second = load_mlflow_model(other)
    with pytest.raises(MlflowException, match="JPEG"):
        second.predict(table(kinds()["jpeg"]))
    assert is_as_expected(model.predict(table(kinds()["jpeg"])).to_dict("records"), [kinds()["jpeg"]])


def test_the_name_of_a_decoder_tells_its_content(tmp_path, monkeypatch):
    before = write_decoder(tmp_path / "one").name
    assert write_decoder(tmp_path / "again").name == before
    changed = shutil.copytree(Path(imgcls.__file__).parent, tmp_path / "imgcls")
    (changed / "text.py").write_text("# changed\n" + (changed / "text.py").read_text())
    monkeypatch.setattr(importlib.import_module("imgcls.inference.mlflow_model"), "PACKAGE", changed)
    assert write_decoder(tmp_path / "other").name != before


@pytest.mark.parametrize(("asked", "number"), [("3", 3), ("", None), ("many", None), ("0", None)])
def test_threads_are_those_that_were_asked_for_or_a_thread_a_core(monkeypatch, asked, number):
    from imgcls.inference.served_model import threads

    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads() == number if number else threads() >= 1


@pytest.fixture(scope="module")
def registered(folder, make_project):
    """A project in whose registry the model is `a model@champion`."""
    project = make_project()
    tracker = project.tracker
    with tracker.start_run("tiny", kind="train", name="a run") as run:
        pass
    registry = tracker.registry()
    registry.set_alias(registry.add("a model", run.run_id, folder, {}), "champion", {})
    return project


@pytest.fixture(scope="module")
def served(registered, tmp_path_factory):
    env = elsewhere(tmp_path_factory.mktemp("elsewhere"))
    server = Served("models:/a model@champion", registered.root, env)
    yield server
    server.stop()


@pytest.mark.slow
def test_mlflow_serves_it_over_http_where_neither_torch_nor_imgcls_is(served):
    contents = list(kinds().values())
    for content in contents:
        status, answer = served.ask(split_request([content]))
        assert status == 200 and is_as_expected(answer["predictions"], [content])
    many = [encoded(image, "JPEG") for image in pictures(32)]
    status, answer = served.ask(split_request(many))
    assert status == 200 and is_as_expected(answer["predictions"], many)
    records = [{"image": base64_of(content)} for content in contents]
    for body in (
        {"dataframe_records": records},
        {"inputs": {"image": [base64_of(content) for content in contents]}},
        {"instances": records},
    ):
        status, answer = served.ask(body)
        assert status == 200 and is_as_expected(answer["predictions"], contents)
    assert served.ask(split_request([])) == (200, {"predictions": []})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (split_request([kinds()["jpeg"], b"no image"]), "row 1: not an image that Pillow knows"),
        (split_request([kinds()["jpeg"], WITHOUT_ROWS]), "row 1: a PNG of a kind that Pillow cannot read, or broken"),
        *((body, f"row 0: {said}") for value, said, _ in NO_IMAGES for body in by_rows(value)),
        *(({"inputs": {"image": [value]}}, f"row 0: {said}") for value, _, said in NO_IMAGES),
        ({"dataframe_records": [{"image": GOOD}, {}]}, "row 1: null instead of"),
        ({"inputs": {"image": [GOOD, None]}}, "row 1: null instead of"),
        ({"dataframe_records": [{"picture": GOOD}]}, "extra inputs: ['picture']"),
        ({"dataframe_split": {"columns": ["picture"], "data": [["aGVsbG8="]]}}, "Model is missing inputs ['image']"),
        ({"dataframe_records": []}, "Model is missing inputs ['image']"),
        ({"inputs": {"image": ["not base64!"]}}, "row 0: "),
        ({}, "exactly one of the input fields"),
        (b"\xff\xd8\xff", "valid JSON"),
    ],
)
def test_what_cannot_be_answered_gets_400_and_a_reason_without_a_stack_trace(served, body, reason):
    status, answer = served.ask(body)
    assert status == 400 and reason in answer["message"]
    assert "stack_trace" not in answer and "Traceback" not in json.dumps(answer)


@pytest.mark.slow
def test_an_image_that_is_not_wrapped_in_json_is_refused(served):
    request = urllib.request.Request(f"{served.url}/invocations", kinds()["jpeg"], {"Content-Type": "image/jpeg"})
    with pytest.raises(urllib.error.HTTPError, match="415"):
        urllib.request.urlopen(request, timeout=60)


@pytest.mark.slow
def test_mlflow_models_predict_gives_the_same(registered, tmp_path):
    contents = list(kinds().values())
    (tmp_path / "request.json").write_text(json.dumps(split_request(contents)))
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", "models:/a model@champion"]
    subprocess.run(
        [*command, "--env-manager", "local", "-i", tmp_path / "request.json", "-o", tmp_path / "answer.json"],
        cwd=registered.root, env=elsewhere(tmp_path), check=True, capture_output=True,
    )  # fmt: skip
    assert is_as_expected(json.loads((tmp_path / "answer.json").read_text())["predictions"], contents)
