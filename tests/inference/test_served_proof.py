"""The proof of a served model: it passes where nothing is wrong, and each trap that is put into decoding fails it."""

import shutil

import numpy as np
import pytest

from imgcls.data.decode import digest, read_image
from imgcls.data.image_set import SourceImages
from imgcls.errors import DataError
from imgcls.inference.mlflow_model import save_mlflow_model
from imgcls.inference.proof import ProofError
from imgcls.inference.served_proof import prove_served
from imgcls.inference.val_images import ValImages
from tests.inference.serving import CLASSES, METADATA, expected, kinds, write_onnx


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    save_mlflow_model(place / "model", write_onnx(place / "a.onnx"), METADATA)
    return place / "model"


@pytest.fixture
def images(tmp_path):
    """Val images in files of every kind."""
    for name, content in kinds().items():
        (tmp_path / name).write_bytes(content)
    keys = tuple(kinds())
    table = SourceImages(
        keys, np.zeros(len(keys), np.int64), lambda row: read_image(tmp_path / keys[row]), "", origin=str(tmp_path)
    )
    return ValImages(table, [digest(read_image(content)).hex()[:16] for content in kinds().values()])


OWN = np.stack([expected(content) for content in kinds().values()])


def test_a_model_that_gives_the_runs_own_predictions_is_proved(folder, images):
    proof = prove_served(folder, images, list(kinds()), CLASSES, OWN)
    assert (proof.num_images, proof.num_other_class) == (len(OWN), 0) and proof.largest < 1e-6


def test_one_probability_that_differs_is_enough_and_its_image_is_named(folder, images):
    other = OWN.copy()
    other[list(kinds()).index("cmyk")] += [6e-4, -6e-4, 0]
    with pytest.raises(ProofError, match=r"the model that would be served .*First image that differs: cmyk"):
        prove_served(folder, images, list(kinds()), CLASSES, other)


def differs(image):
    return f"First image that differs: {image}, a probability by "


CRASHES = "cannot read val images that the run read: 1 of 9 images cannot be read: row 4: its values, 0 to 65535"
"""The refusal where the decoder itself refuses the image of 16 bits, row 4 of `kinds`."""

TRAPS = {
    "exif": ("ImageOps.exif_transpose(image, in_place=True)", "pass", differs("exif")),
    "squash": ('_centred_square(image) if fit == "crop" else None', "None", differs("jpeg")),
    "no antialias": ("Image.Resampling.BILINEAR, box=box", "Image.Resampling.NEAREST, box=box", differs("jpeg")),
    "BGR": ("pixels = np.asarray(image)\n", "pixels = np.asarray(image)[..., ::-1]\n", differs("jpeg")),
    "black under transparency": ('image.size, "white"', 'image.size, "black"', differs("alpha")),
    "deep grey cut": ("_to_eight_bits(values, white,", "_to_eight_bits(np.minimum(values, 255), white,", CRASHES),
}
"""Trap -> what stands in decode.py, what it becomes, and the refusal that is expected."""


@pytest.mark.parametrize("trap", TRAPS)
def test_a_decoder_with_a_trap_in_it_is_found_out(folder, images, tmp_path, trap):
    before, after, refusal = TRAPS[trap]
    place = shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("__pycache__"))
    (decoder,) = (place / "artifacts").glob("imgcls_decoder_*")
    code = (decoder / "data" / "decode.py").read_text()
    assert before in code
    (decoder / "data" / "decode.py").write_text(code.replace(before, after))
    renamed = decoder.rename(decoder.with_name(f"imgcls_decoder_{trap.replace(' ', '_')}"))
    described = place / "MLmodel"
    described.write_text(described.read_text().replace(decoder.name, renamed.name))
    with pytest.raises(ProofError, match=refusal):
        prove_served(place, images, list(kinds()), CLASSES, OWN)


def test_an_image_that_changed_since_the_run_proves_nothing(folder, images, tmp_path):
    (tmp_path / "jpeg").write_bytes(kinds()["exif"])
    with pytest.raises(DataError, match="jpeg has changed since the run"):
        prove_served(folder, images, list(kinds()), CLASSES, OWN)
