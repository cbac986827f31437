"""A small ONNX model that tells every pixel apart, and `mlflow models serve` as a process."""

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from scipy.special import softmax

from imgcls.data.decode import read_image, to_square
from imgcls.data.preprocessing import Preprocessing
from tests.data.make import picture

CLASSES = ("cat", "dog", "a/b, c")
SIDE = 16
PREPROCESSING = Preprocessing(3, SIDE, "crop", (0.5,) * 3, (0.25,) * 3, 2, SIDE)
METADATA = {
    "run_id": "abc", "class_names": json.dumps(CLASSES), "preprocessing": json.dumps(PREPROCESSING.to_plain()),
}  # fmt: skip
WEIGHTS = np.random.default_rng(0).normal(0, 0.05, (SIDE * SIDE * 3, len(CLASSES))).astype(np.float32)


def write_onnx(path):
    """softmax(pixels / 255 @ WEIGHTS), with the inputs and outputs of an exported model."""
    constants = {"all": np.array([-1, len(WEIGHTS)]), "scale": np.float32(255), "weights": WEIGHTS}
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["levels", "all"], ["flat"]),
        helper.make_node("Div", ["flat", "scale"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "graph",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", "H", "W", 3])],
        [helper.make_tensor_value_info("probs", TensorProto.FLOAT, ["B", len(CLASSES)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, METADATA)
    onnx.save(model, path)
    return path


def expected(content):
    """Probabilities of an image file's bytes, float64 (K,), by imgcls's own decoder and NumPy."""
    square = to_square(read_image(content), SIDE, 3).transpose(1, 2, 0)
    return softmax((square.reshape(-1).astype(np.float32) / 255 @ WEIGHTS).astype(np.float64))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(picture(2, (60, 40))), "JPEG", exif=exif)


def animated():
    first, second = (Image.fromarray(picture(seed, (40, 30))) for seed in (7, 8))
    return encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)


def kinds():
    """Image files of every kind that is decoded in a way of its own, as bytes, by name."""
    colour, grey = Image.fromarray(picture(0, (64, 48))), Image.fromarray(picture(1, (48, 64))[..., 0])
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    translucent = Image.fromarray(picture(3, (40, 40)))
    translucent.putalpha(Image.fromarray(picture(4, (40, 40))[..., 0]))
    return {
        "jpeg": encoded(colour, "JPEG"),
        "grey png": encoded(grey, "PNG"),
        "exif": turned(),
        "cmyk": encoded(colour.convert("CMYK"), "JPEG"),
        "16 bits": encoded(deep, "PNG"),
        "palette": encoded(colour.convert("P"), "PNG"),
        "alpha": encoded(translucent, "PNG"),
        "animated": animated(),
        "digits as text": b"P2\n2\n2\n255\n0\n99\n200\n255\n",
    }


def base64_of(content):
    return base64.b64encode(content).decode()


def split_request(contents):
    return {"dataframe_split": {"columns": ["image"], "data": [[base64_of(content)] for content in contents]}}


WITHOUT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"imgcls", "torch", "torchvision", "timm", "onnx", "onnxscript", "optuna", "tqdm"}:
            raise ModuleNotFoundError(f"no {name} here")

sys.meta_path.insert(0, Blocked())
"""
"""A `sitecustomize` for a place where a model is served: what imgcls needs is not installed there, imgcls neither."""


def elsewhere(folder, **settings):
    """The environment of a process in which imgcls and torch cannot be imported."""
    (folder / "sitecustomize.py").write_text(WITHOUT)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "IMGCLS"))}
    return kept | {
        "PYTHONPATH": str(folder), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_DISABLE_TELEMETRY": "true",
    } | settings  # fmt: skip


class Served:
    """`mlflow models serve` on a free port, in a folder, until it is stopped."""

    def __init__(self, uri, folder, env):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
        self._log = (folder / "serve.log").open("w+")
        self._process = subprocess.Popen(
            [*command, "-p", str(port)], cwd=folder, env=env, stdout=self._log, stderr=self._log, start_new_session=True
        )
        while not self._answers():
            if self._process.poll() is not None:
                said = self.log()
                self._log.close()
                raise AssertionError(said)
            time.sleep(0.1)

    def _answers(self):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.url}/ping", timeout=5).close()
            return True
        return False

    def log(self):
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def ask(self, body):
        """(status, answer) of a request."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/invocations", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def stop(self):
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._log.close()
