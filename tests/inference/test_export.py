"""A file that leaves the workbench gives the run's own predictions; one that does not is never written."""

import dataclasses
import itertools
import json
import logging
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper
from PIL import Image

from imgcls.cli import app
from imgcls.cli.export import in_words
from imgcls.errors import InputError
from imgcls.inference import export
from imgcls.inference.export import export_run, inference_graph, traced, usage, write_file
from imgcls.inference.export_proof import ValReference, check_named_file, prove_export, some_answers
from imgcls.inference.exported_graph import ImagesToProbs
from imgcls.inference.exported_model import ExportedModel, load_exported
from imgcls.inference.proof import Agreement, ProofError, agreement
from imgcls.inference.provenance import provenance
from imgcls.inference.run_model import load_run_model
from imgcls.inference.val_images import ValImages
from imgcls.runs.val_predictions import recorded_predictions
from tests.data.make import noise, picture
from tests.earlier.test_earlier import archive, earlier, only  # noqa: F401
from tests.shell import typed

CLASSES = ["coat", "shoe, left"]


def columns(table, kind):
    return table[[f"{kind}/{name}" for name in CLASSES]].to_numpy()


def eager(model, change=None, graph=None, tracker=None):
    """The exported model without an export: its graph in torch, with what a trap changes in the images."""
    graph = graph or inference_graph(model)

    def run(images):
        with torch.inference_mode():
            return graph(torch.from_numpy(images if change is None else change(images))).numpy()

    return ExportedModel(run, provenance(model, tracker))


def recorded_of(shop):
    return recorded_predictions(shop.record, shop.project.tracker).set_index("image")


@pytest.fixture(scope="module")
def pt2_file(_shop):
    """The run of `shop` as PT2, exported by the command once: `path`, what it said, and the `messages` of its log."""
    path, log, told = _shop.project.root / "shop.pt2", logging.getLogger("imgcls"), Messages()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(_shop.project.root)
        patch.setattr(log, "level", logging.INFO)
        log.addHandler(told)
        try:
            said = typed("export", _shop.run_id[:8], "--output", str(path))
        finally:
            log.removeHandler(told)
    return SimpleNamespace(path=path, said=said, messages=told.texts)


class Messages(logging.Handler):
    """Keeps what is logged."""

    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


@pytest.fixture(scope="module")
def programs(_shop):
    """The exported programs of the run's graph and of one that squashes, by `fit`: torch takes ten seconds for each."""
    model = _shop.model()
    return {"crop": traced(inference_graph(model)), "squash": traced(changed(model, fit="squash").eval())}


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_file_gives_the_recorded_predictions_without_imgcls(shop, onnx_file):
    session = onnxruntime.InferenceSession(onnx_file.path)
    recorded, preprocessing = recorded_of(shop), shop.model().preprocessing
    for name in recorded.index:
        square = preprocessing.square(shop.project_image(name))
        (probs,) = session.run(["probs"], {"images": square.transpose(1, 2, 0)[None]})
        np.testing.assert_allclose(probs[0], columns(recorded.loc[[name]], "calibrated")[0], atol=1e-5, rtol=0)
        (probs,) = session.run(["probs"], {"images": np.asarray(shop.project_image(name).convert("RGB"))[None]})
        np.testing.assert_allclose(probs[0], columns(recorded.loc[[name]], "calibrated")[0], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_it_takes_images_of_any_size_and_number_grey_or_rgb(shop, onnx_file):
    model, file = shop.model(), load_exported(onnx_file.path)
    for size in ((40, 40), (30, 50), (50, 30), (1, 7), (16, 16), (400, 110)):
        for num, channels in itertools.product((1, 3, 64), (1, 3)):
            images = np.stack([noise(seed, size)[..., :channels] for seed in range(num)])
            pillow = [Image.fromarray(image[..., 0] if channels == 1 else image) for image in images]
            expected = model.probs(np.stack(list(map(model.preprocessing.square, pillow))))
            np.testing.assert_allclose(file.whole(images), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_it_is_one_onnx_file_with_its_provenance(shop, onnx_file):
    assert [path.name for path in onnx_file.path.parent.iterdir()] == ["shop.onnx"]
    model = onnx.load(onnx_file.path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [20]
    (images,), (probs,) = model.graph.input, model.graph.output
    sizes = images.type.tensor_type.shape.dim
    assert (images.name, images.type.tensor_type.elem_type) == ("images", TensorProto.UINT8)
    assert [size.dim_param for size in sizes] == ["batch", "height", "width", "channels"]
    assert (probs.name, probs.type.tensor_type.elem_type) == ("probs", TensorProto.FLOAT)
    about = {entry.key: entry.value for entry in model.metadata_props}
    run = shop.project.client.get_run(shop.run_id).data
    assert json.loads(about["class_names"]) == CLASSES
    assert about["run_id"] == shop.run_id and about["config_hash"] == run.tags["imgcls.config_hash"]
    assert about["data_fingerprint"] == run.tags["imgcls.data_fingerprint"]
    assert float(about["temperature"]) == run.metrics["best_temperature"]
    val = json.loads(about["val_scores"])
    assert val["val/accuracy"] == run.metrics["val/accuracy_best"] and val["val/loss"] == run.metrics["val/loss_best"]
    assert val["val/accuracy_low"] < val["val/accuracy"] < val["val/accuracy_high"]
    proof = json.loads(about["proof"])
    assert proof["num_val"] == 21 and 0 < proof["squares_largest_difference"] <= 5e-4
    assert proof["whole_largest_difference"] <= 5e-4 and proof["squares_other_class"] == 0


@pytest.mark.slow
def test_it_says_nothing_of_this_machine(onnx_file):
    content = onnx_file.path.read_bytes()
    assert not re.search(rb"/(home|root|tmp|work|usr)/", content) and b".py" not in content


@pytest.mark.slow
def test_a_file_is_a_classifier(shop, onnx_file):
    model, file = shop.model(), load_exported(onnx_file.path)
    assert (file.run_id, file.class_names) == (model.run_id, model.class_names)
    assert (file.preprocessing, file.temperature) == (model.preprocessing, model.temperature)
    paths = sorted(str(path) for path in (shop.images / "val").rglob("*.*"))
    for raw in (False, True):
        theirs, ours = file.predict(paths, raw=raw), model.predict(paths, raw=raw)
        assert list(theirs["prediction"]) == list(ours["prediction"])
        np.testing.assert_allclose(columns(theirs, "prob"), columns(ours, "prob"), atol=1e-5, rtol=0)


def test_raw_undoes_the_temperature(shop):
    model = shop.model()
    model.temperature = 2.5
    squares = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), np.uint8)
    file = eager(model, tracker=shop.project.tracker)
    np.testing.assert_allclose(file.probs(squares, raw=True), model.probs(squares, raw=True), atol=1e-6)
    assert abs(file.probs(squares) - file.probs(squares, raw=True)).max() > 1e-3


@pytest.mark.slow
def test_test_scores_and_their_look_go_with_the_file(project):
    from imgcls.evaluation.judge import evaluate

    run_id = project.trained("data.test_fraction=0.2").run_id
    record = project.tracker.get(run_id)
    assert "test_scores" not in provenance(load_run_model(record, project.tracker), project.tracker)
    look = evaluate(run_id, project.tracker).record
    scores = json.loads(provenance(load_run_model(record, project.tracker), project.tracker)["test_scores"])
    assert scores["look"] == look.look and scores["test/accuracy"] == look.metrics["test/accuracy"]
    assert scores["test/accuracy_low"] < scores["test/accuracy"] < scores["test/accuracy_high"]


@pytest.mark.slow
def test_a_pt2_gives_the_same(pt2_file, onnx_file, caplog):
    path = pt2_file.path
    with zipfile.ZipFile(path) as file:
        texts = [file.read(name) for name in file.namelist() if name.endswith(".json")]
    assert not any(re.search(rb"/(home|root|tmp|work|usr)/", text) for text in texts)
    assert "may run code" not in caplog.text
    file, other = load_exported(path), load_exported(onnx_file.path)
    assert "may run code" in caplog.text
    assert {name: text for name, text in file.metadata.items() if name != "proof"} == {
        name: text for name, text in other.metadata.items() if name != "proof"
    }
    for size in ((40, 40), (30, 50), (50, 30), (1, 7)):
        images = np.stack([noise(seed, size) for seed in range(3)])
        np.testing.assert_allclose(file.whole(images), other.whole(images), atol=1e-5, rtol=0)


# --- the proof --------------------------------------------------------------------------------------------------------


def changed(model, **changes):
    return ImagesToProbs(model.network, dataclasses.replace(model.preprocessing, **changes), model.temperature)


def resized_by(mode, antialias):
    def resize(images):
        side = min(images.shape[1:3])
        top, left = ((length - side) // 2 for length in images.shape[1:3])
        square = torch.from_numpy(images[:, top : top + side, left : left + side]).permute(0, 3, 1, 2).float()
        small = F.interpolate(square, (16, 16), mode=mode, antialias=antialias)
        return small.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()

    return resize


def cropped_first(images):
    """What lies beside the crop is not read; `resize(box=)` reads a little of it."""
    side = min(images.shape[1:3])
    top, left = ((length - side) // 2 for length in images.shape[1:3])
    crops = [Image.fromarray(image[top : top + side, left : left + side].squeeze()) for image in images]
    small = [np.asarray(crop.resize((16, 16), Image.Resampling.BILINEAR)) for crop in crops]
    return np.stack(small).reshape(len(images), 16, 16, -1)


TRAPS = {
    "squashed": lambda model: {"graph": changed(model, fit="squash")},
    "padded": lambda model: {"graph": changed(model, fit="pad")},
    "another mean": lambda model: {"graph": changed(model, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))},
    "another temperature": lambda model: {
        "graph": ImagesToProbs(model.network, model.preprocessing, model.temperature * 1.1)
    },
    "BGR": lambda _: {"change": lambda images: np.ascontiguousarray(images[..., ::-1])},
    "turned": lambda _: {"change": lambda images: np.ascontiguousarray(images[:, ::-1, ::-1])},
    "no antialias": lambda _: {"change": resized_by("bilinear", antialias=False)},
    "cropped first": lambda _: {"change": cropped_first},
    "nearest": lambda _: {"change": resized_by("nearest", antialias=False)},
    "resized twice": lambda model: {"graph": changed(model, decode_side=24)},
}  # fmt: skip


@pytest.mark.parametrize("trap", TRAPS)
def test_a_graph_with_a_trap_is_not_proved(shop, trap):
    model, tracker = shop.model(), shop.project.tracker
    model.network.eval()
    reference = ValReference.of(model, tracker)
    file = eager(model, tracker=tracker, **TRAPS[trap](model))
    with pytest.raises(ProofError, match=r"does not leave the workbench\. First image that differs: val/"):
        prove_export(file, reference, inference_graph(model))


def test_the_graph_itself_is_proved(shop):
    model, tracker = shop.model(), shop.project.tracker
    proof = prove_export(eager(model, tracker=tracker), ValReference.of(model, tracker), inference_graph(model))
    assert proof.squares.num_images == proof.whole.num_images == 21 and proof.shapes.num_images == 3 * (1 + 3 + 64) + 1
    assert max(proof.whole.largest, proof.squares.largest, proof.shapes.largest) < 1e-5
    assert proof.rounding is None and proof.to_plain()["num_val"] == 21


def test_a_run_of_an_earlier_version_is_proved_with_the_squares_that_it_had(earlier):  # noqa: F811
    """Its squares were resized twice."""
    model = load_run_model(only(earlier, "photos", kind="train"), earlier.tracker)
    assert model.preprocessing.squares == 1 and model.preprocessing.decode_side > model.preprocessing.image_size
    reference, graph = ValReference.of(model, earlier.tracker), inference_graph(model)
    proof = prove_export(eager(model, tracker=earlier.tracker), reference, graph)
    assert proof.whole.num_images == len(reference.names) and max(proof.whole.largest, proof.squares.largest) < 1e-4
    once = changed(model, decode_side=model.preprocessing.image_size)
    with pytest.raises(ProofError, match="on whole images"):
        prove_export(eager(model, graph=once, tracker=earlier.tracker), reference, graph)


def large_images_by_nearest(images):
    return resized_by("nearest", antialias=False)(images) if images.shape[1:3] == (97, 97) else images


def test_images_so_large_that_blocks_are_averaged_are_compared_with_their_squares(shop):
    model, tracker = shop.model(), shop.project.tracker
    file = eager(model, large_images_by_nearest, tracker=tracker)
    reason = r"does not give its predictions of their squares.* at 97 x 97, .*expected"
    with pytest.raises(ProofError, match=reason):
        prove_export(file, ValReference.of(model, tracker), inference_graph(model))


@pytest.mark.parametrize("num", [1, 2, 21])
def test_batches_of_1_3_and_64_are_tried_with_any_number_of_val_images(shop, num):
    """Squares of 16 pixels and nothing else, so that no other part of the proof has such a batch."""
    model, tracker = shop.model(), shop.project.tracker
    whole = ValReference.of(model, tracker)
    images = ValImages(whole.images.table.named(whole.names[:num]), whole.images.digests[:num])
    reference = ValReference(model, whole.names[:num], images, whole.probs[:num])
    for size in (1, 3, 64):

        def of_one_size(images, size=size):
            return images[::-1, ::-1].copy() if images.shape == (size, 16, 16, 3) else images

        with pytest.raises(ProofError):
            prove_export(eager(model, of_one_size, tracker=tracker), reference, inference_graph(model))
    proof = prove_export(eager(model, tracker=tracker), reference, inference_graph(model))
    assert proof.squares.num_images == proof.whole.num_images == num


def test_the_file_with_its_proof_gives_what_the_proved_one_gave(shop):
    model, tracker = shop.model(), shop.project.tracker
    file = eager(model, tracker=tracker)
    answers = some_answers(file, ValReference.of(model, tracker))
    check_named_file(file, answers)
    assert len({answer.images.shape[1:3] for answer in answers}) == 3
    for trap in ("squashed", "BGR"):
        other = eager(model, tracker=tracker, **TRAPS[trap](model))
        with pytest.raises(ProofError, match="does not give what the proved file gave"):
            check_named_file(other, answers)


def add_metadata_of_another_graph(programs):
    def add(_program, path, metadata):
        write_file(programs["squash"], path, metadata)

    return {"traced": lambda graph: programs[graph.squares.fit], "_add_metadata": add}


def squashing_graph(programs):
    return {"traced": lambda _graph: programs["squash"]}


@pytest.mark.slow
@pytest.mark.parametrize("trap", [squashing_graph, add_metadata_of_another_graph])
def test_a_file_that_is_not_proved_gets_no_name(shop, programs, tmp_path, monkeypatch, trap):
    """A whole export but for torch's tracing; the trap is put in before the proof, or after it."""
    for name, changed_to in trap(programs).items():
        monkeypatch.setattr(export, name, changed_to)
    (tmp_path / "old.pt2").write_bytes(b"an earlier one")
    with pytest.raises(ProofError, match="First image that differs"):
        export_run(shop.model(), shop.project.tracker, tmp_path / "old.pt2")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier one"]


def test_a_class_may_differ_only_where_the_two_highest_lie_close_together():
    own = np.array([[0.5003, 0.4997], [0.6, 0.4]])
    close = agreement(np.array([[0.4999, 0.5001], [0.6, 0.4]]), own, ["a", "b"], "it")
    assert close == Agreement(2, pytest.approx(4e-4), 1)
    assert close + Agreement(3, 1e-3, 2) == Agreement(5, 1e-3, 3)
    wide = np.array([[0.5003, 0.4997], [0.4, 0.6]])
    for probs, bound in ((wide, 5e-4), (wide, 0.099), (np.full((2, 2), np.nan), 1.0)):
        with pytest.raises(ProofError, match="First image"):
            agreement(probs, own, ["a", "b"], "it", bound)


def test_without_its_val_images_there_is_no_proof_and_no_file(shop, tmp_path):
    model, tracker = shop.model(), shop.project.tracker
    image = next(path for path in sorted((shop.images / "val").rglob("*.png")))
    content = image.read_bytes()
    try:
        image.unlink()
        with pytest.raises(InputError, match="No file leaves the workbench"):
            export_run(model, tracker, tmp_path / "shop.pt2")
        Image.fromarray(picture(999)).save(image)
        with pytest.raises(InputError, match="has changed since the run"):
            prove_export(eager(model, tracker=tracker), ValReference.of(model, tracker), inference_graph(model))
    finally:
        image.write_bytes(content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_scored_in_bfloat16_is_proved_in_float32_and_its_rounding_is_said(project):
    record = project.trained("train.precision=bfloat16")
    model = load_run_model(record, project.tracker)
    reference, graph = ValReference.of(model, project.tracker), inference_graph(model)
    file = eager(model, tracker=project.tracker)
    proof = prove_export(file, reference, graph)
    assert proof.squares.largest < 1e-5 and proof.rounding > 5e-4
    assert proof.to_plain()["bfloat16_largest_difference"] == proof.rounding
    # Another device rounds in another order: to the other side of float32 just as well.
    squares = np.stack([reference.decoded(row).square for row in range(len(reference.names))])
    mirrored = 2 * file.probs(squares) - model.probs(squares)
    of_other_device = prove_export(file, dataclasses.replace(reference, probs=mirrored), graph)
    assert of_other_device.rounding == pytest.approx(proof.rounding, rel=0.01)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.network.parameters():
            weights += 0.2 * weights.std(correction=0) * torch.randn_like(weights)
    other = inference_graph(model)
    with pytest.raises(ProofError, match="checkpoint or the images have changed since the run"):
        prove_export(eager(model, graph=other, tracker=project.tracker), reference, other)


# --- what is refused --------------------------------------------------------------------------------------------------


def foreign_onnx(path, **metadata):
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["probs"])],
        "g",
        [make("images", 1, ["B"])],
        [make("probs", 1, ["B"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, metadata)
    onnx.save(model, path)


WHOLE = {"run_id": "r", "class_names": '["a", "b"]', "preprocessing": "{}", "temperature": "1"}

WRONG = {
    "a.onnx": (lambda path: path.write_bytes(b"no ONNX at all"), "is not an exported model, or is damaged"),
    "b.onnx": (lambda path: path.write_bytes(b""), "is not an exported model, or is damaged"),
    "c.onnx": (foreign_onnx, "was not written by `imgcls export`: its metadata have no run_id"),
    "d.onnx": (lambda path: foreign_onnx(path, **WHOLE), "damaged metadata"),
    "e.pt2": (lambda path: path.write_bytes(b"PK nothing"), "is not an exported model, or is damaged"),
    "f.onnx": (lambda _: None, "does not exist"),
    "g.tar": (lambda path: path.write_bytes(b""), "ends with .onnx or .pt2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_damaged_or_foreign_file_is_refused_in_one_error(tmp_path, name, capfd):
    write, reason = WRONG[name]
    write(tmp_path / name)
    with pytest.raises(InputError, match=re.escape(reason)):
        load_exported(tmp_path / name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_half_a_file_is_refused(onnx_file, tmp_path):
    content = onnx_file.path.read_bytes()
    (tmp_path / "half.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_exported(tmp_path / "half.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"class_names": '["a", "b", "c", "d", "e", "f", "g"]'}, "7 names of classes for"),
        ({"temperature": "nan"}, "temperature is nan"),
        ({"temperature": "0"}, "temperature is 0"),
        ({"preprocessing": "{}"}, "damaged metadata"),
    ],
)
def test_metadata_that_do_not_fit_the_graph_are_refused(onnx_file, tmp_path, entry, reason):
    model = onnx.load(onnx_file.path)
    helper.set_model_props(model, {one.key: one.value for one in model.metadata_props} | entry)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=reason):
        load_exported(tmp_path / "other.onnx")


def test_a_network_that_is_too_large_for_onnx_is_refused_with_its_size(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_ONNX", 10**4)
    with pytest.raises(InputError, match=r"GB of weights.*--format pt2"):
        export_run(shop.model(), shop.project.tracker, tmp_path / "large.onnx")
    assert list(tmp_path.iterdir()) == []


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--output", "shop.txt"], "--output shop.txt: name a file that ends with .onnx or .pt2"),
        (["--output", "shop.onnx", "--format", "pt2"], "--output shop.onnx: name a file that ends with .pt2"),
        (["--output", "nowhere/shop.pt2"], "--output nowhere/shop.pt2: the folder nowhere does not exist"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_the_work(shop, options, reason):
    with pytest.raises(InputError, match=re.escape(reason)):
        app(["export", shop.run_id, *options], standalone_mode=False)


def test_each_fact_is_shown_with_the_digits_that_it_needs():
    facts = {"temperature": 0.2279, "megabytes": 603.98, "bound": 5e-4, "whole_largest_difference": 4.07e-8}
    shown = {name: in_words(name, value) for name, value in (facts | {"num_val": 12345, "run_id": "4f1c"}).items()}
    assert shown == {
        "temperature": "0.2279", "megabytes": "604.0", "bound": "0.0005", "whole_largest_difference": "4.1e-08",
        "num_val": "12345", "run_id": "4f1c",
    }  # fmt: skip


def random_encoder_graph(patch):
    from imgcls.config.keys import ModelConfig
    from imgcls.data.preprocessing import Preprocessing
    from imgcls.models.registry import build_model, resolve_model

    config = resolve_model(ModelConfig(name="random-encoder", patch=patch, width=8), 3, 64)
    network = build_model(config, 5, 3, 64, seed=0, with_weights=False).eval()
    return ImagesToProbs(network, Preprocessing(3, 64, "crop", (0.4,) * 3, (0.2,) * 3, 2, 64), 1.0)


def test_what_a_random_encoder_draws_is_reported_or_too_large(shop, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "imgcls")
    graph = random_encoder_graph(patch=16)
    drawn = {name: buffer for name, buffer in graph.named_buffers() if name not in graph.state_dict()}
    name, largest = max(drawn.items(), key=lambda item: item[1].numel())
    monkeypatch.setattr(export, "inference_graph", lambda _: graph)
    monkeypatch.setattr(export, "MIN_REPORTED_BYTES", largest.nbytes)
    monkeypatch.setattr(export, "traced", stop)
    with pytest.raises(InputError, match="stopped"):
        export_run(shop.model(), shop.project.tracker, tmp_path / "encoder.onnx")
    assert [record.getMessage() for record in caplog.records if "drawn from a seed" in record.getMessage()] == [
        f"{name} takes {largest.nbytes / 1e6:.0f} MB of the file: it is drawn from a seed and not in the checkpoint, "
        "but a file must hold it"
    ]
    monkeypatch.setattr(export, "LARGEST_ONNX", largest.nbytes)
    with pytest.raises(InputError, match=r"GB of weights.*--format pt2"):
        export_run(shop.model(), shop.project.tracker, tmp_path / "encoder.onnx")
    assert list(tmp_path.iterdir()) == []


def stop(_graph):
    raise InputError("stopped before the work")


@pytest.mark.slow
def test_the_command_says_a_line_for_each_step_and_what_comes_next(pt2_file):
    path, done = pt2_file.path, pt2_file.said
    assert done.returncode == 0, done.stderr
    assert [message.split(", ")[0] for message in pt2_file.messages] == [
        "traced the network", "written as PT2", "proved on 21 val images",
    ]  # fmt: skip
    assert done.stdout.startswith(f"Exported {path}") and "squares_other_class" in done.stdout
    assert json.loads(load_exported(path, is_trusted=True).metadata["proof"])["num_val"] == 21
    assert done.stdout.endswith(f"Next: imgcls predict {path} PATHS...\n")
    lines = done.stdout[done.stdout.index("import torch") : done.stdout.index("Next:")]
    found = {"images": np.zeros((2, 30, 40, 3), np.uint8)}
    exec(lines, found)
    assert found["probs"].shape == (2, 2)


@pytest.mark.slow
def test_in_a_shell_an_export_says_its_steps_and_nothing_of_its_exporters(onnx_file):
    path, process = onnx_file.path, onnx_file.said
    steps = [line for line in process.stderr.splitlines() if line and not line.endswith(" ...")]  # which is a wait
    assert [line.split(", ")[0] for line in steps] == [
        "traced the network", "written as ONNX", "proved on 21 val images",
    ]  # fmt: skip
    facts = json.loads(process.stdout)
    assert facts["file"] == str(path) and facts["num_val"] == 21
    assert [file.name for file in path.parent.iterdir()] == ["shop.onnx"]
    found = {"images": np.zeros((2, 30, 40, 3), np.uint8)}
    exec(usage(path), found)
    assert found["probs"].shape == (2, 2)


# --- every family ---------------------------------------------------------------------------------------------------


FAMILIES = {  # and `resnet`, of which the tests above are
    "resnet32": {"width": 8},
    "random-encoder": {"patch": 8, "width": 8},
    "torchvision:mobilenet_v3_small": {},
    "timm:tf_efficientnet_lite0": {"depth": 2},
    "timm:test_vit": {},
    "timm:test_resnet": {"depth": 3},
}


class Corner(torch.nn.Module):
    """Images (B, H, W, 1 or 3) become squares of their upper left corner: the same pixels under torch and ONNX.

    Stands for the preprocessing, whose export takes longest and is proved by itself in test_resize.py.
    """

    def __init__(self, side):
        super().__init__()
        self.side = side

    def forward(self, images):
        pixels = F.pad(images.permute(0, 3, 1, 2).float(), (0, self.side, 0, self.side))  # of an image that is smaller
        pixels = pixels.index_select(1, torch.arange(3))  # a number of channels that torch knows
        places = torch.arange(self.side)
        return pixels.index_select(2, places).index_select(3, places)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_same_under_torch_and_in_both_formats(tmp_path, name):
    from imgcls.config.keys import ModelConfig
    from imgcls.data.preprocessing import Preprocessing
    from imgcls.models.registry import build_model, resolve_model
    from imgcls.training.weight_gradients import speed_up

    side = 160 if name == "timm:test_vit" else 32
    config = resolve_model(ModelConfig(name=name, **FAMILIES[name]), 3, side)
    network = build_model(config, 5, 3, side, seed=0, with_weights=False).eval()
    speed_up(network)
    graph = ImagesToProbs(network, Preprocessing(3, side, "crop", (0.4,) * 3, (0.2,) * 3, 2, side), 1.3).eval()
    graph.squares = Corner(side)
    program = traced(graph)
    about = WHOLE | {"class_names": '["a", "b", "c", "d", "e"]', "preprocessing": json.dumps(graph_preprocessing(side))}
    for ending in (".onnx", ".pt2"):
        write_file(program, path := tmp_path / f"model{ending}", about)
        file = load_exported(path, is_trusted=True)
        for num, size in ((1, (side, side)), (3, (40, 60)), (64, (60, 40))):
            images = np.stack([noise(seed, size) for seed in range(num)])
            with torch.inference_mode():
                expected = graph(torch.from_numpy(images)).numpy()
            np.testing.assert_allclose(file.whole(images), expected, atol=1e-5, rtol=0)


def graph_preprocessing(side):
    return {
        "channels": 3, "image_size": side, "fit": "crop", "mean": [0.4] * 3, "std": [0.2] * 3, "squares": 2,
        "decode_side": side,
    }  # fmt: skip
