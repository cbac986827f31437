"""Decoding by itself: a served model carries its files to places without imgcls."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import imgcls
from imgcls.data.decode import read_image, to_square
from tests.data.make import picture, write

FILES = ("errors.py", "text.py", "data/__init__.py", "data/decode.py", "data/image_formats.py")

ALONE = """
import importlib, json, sys
from pathlib import Path

ALLOWED = {*sys.stdlib_module_names, "numpy", "PIL", "pillow_heif", "_pillow_heif", "carried"}

class OnlyThese:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"no {name} here")

sys.meta_path.insert(0, OnlyThese())
sys.path.insert(0, sys.argv[1])
decode = importlib.import_module("carried.data.decode")
squares = [decode.to_square(decode.read_image(Path(path).read_bytes()), 8, 3) for path in sys.argv[2:]]
try:
    decode.read_image(b"no image")
except decode.UnreadableImageError as error:
    print(json.dumps([[square.tolist() for square in squares], str(error)]))
"""


def test_the_files_that_decode_work_under_another_name_with_numpy_and_pillow_alone(tmp_path):
    for name in FILES:
        (tmp_path / "carried" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(imgcls.__file__).parent / name, tmp_path / "carried" / name)
    (tmp_path / "carried" / "__init__.py").touch()
    colour = write(tmp_path / "a.jpg", picture(0, (40, 30)))
    grey = write(tmp_path / "b.png", picture(1, (30, 40))[..., 0])
    turned = tmp_path / "c.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(2, (40, 30))).convert("CMYK").save(turned, exif=exif)
    paths = [colour, grey, turned]
    answer = subprocess.run([sys.executable, "-c", ALONE, tmp_path, *paths], capture_output=True, text=True, check=True)
    squares, refusal = json.loads(answer.stdout)
    assert np.array_equal(squares, [to_square(read_image(path), 8, 3) for path in paths])
    assert refusal == "not an image that Pillow knows"
