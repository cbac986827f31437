"""Decoding by itself: a served model carries its files to places without imgcls."""

import json
import subprocess
import sys

import numpy as np
from PIL import Image

from imgcls.data.decode import read_image, to_square
from imgcls.inference.mlflow_model import write_decoder
from tests.data.make import picture, write

ALONE = """
import importlib, json, sys
from pathlib import Path

ALLOWED = {*sys.stdlib_module_names, "numpy", "PIL", "pillow_heif", "_pillow_heif", sys.argv[2]}

class OnlyThese:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"no {name} here")

sys.meta_path.insert(0, OnlyThese())
sys.path.insert(0, sys.argv[1])
decode = importlib.import_module(f"{sys.argv[2]}.data.decode")
squares = [decode.to_square(decode.read_image(Path(path).read_bytes()), 8, 3) for path in sys.argv[3:]]
try:
    decode.read_image(b"no image")
except decode.UnreadableImageError as error:
    print(json.dumps([[square.tolist() for square in squares], str(error)]))
"""


def test_the_files_that_decode_work_under_another_name_with_numpy_and_pillow_alone(tmp_path):
    colour = write(tmp_path / "a.jpg", picture(0, (40, 30)))
    grey = write(tmp_path / "b.png", picture(1, (30, 40))[..., 0])
    turned = tmp_path / "c.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(2, (40, 30))).convert("CMYK").save(turned, exif=exif)
    paths = [colour, grey, turned]
    command = [sys.executable, "-c", ALONE, tmp_path, write_decoder(tmp_path).name, *paths]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    squares, refusal = json.loads(answer.stdout)
    assert np.array_equal(squares, [to_square(read_image(path), 8, 3) for path in paths])
    assert refusal == "not an image that Pillow knows"
