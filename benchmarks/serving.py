"""How long a served model takes to answer: `mlflow models serve` over HTTP, one JPEG a request.

    python -m benchmarks.serving [--model timm:tf_efficientnet_lite0] [--image-size 96] [--requests 300]

Trains one epoch on pictures made here, registers the run, serves it with one thread on one core, and asks from another
core. Prints the seconds until the first answer, and by size of the picture the median and the 95th percentile of the
milliseconds of a request.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imgcls.training.device import device_name

SIZES = ((400, 300), (1600, 1200), (4000, 3000))
"""Width and height of the JPEGs, in pixels."""


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """A picture with patches of light and shade, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(seed: int, size: tuple[int, int]) -> bytes:
    """A picture as a JPEG of quality 90."""
    file = io.BytesIO()
    picture(seed, size).save(file, "JPEG", quality=90)
    return file.getvalue()


def make_project(root: Path, model: str, weights: str, image_size: int) -> None:
    """An experiment `serving` on two classes of pictures."""
    for split, num in (("train", 24), ("val", 12)):
        for label, kind in enumerate(("one", "two")):
            folder = root / "images" / split / kind
            folder.mkdir(parents=True)
            for i in range(num):
                (folder / f"{i}.jpg").write_bytes(jpeg(1000 * label + 100 * len(split) + i, (400, 300)))
    (root / "experiments").mkdir()
    (root / "experiments" / "serving.toml").write_text(
        f'name = "serving"\n[data]\nsource = "folder"\npath = "images"\nimage_size = {image_size}\n'
        f'[model]\nname = "{model}"\nweights = "{weights}"\n'
        '[train]\nepochs = 1\nwarmup_epochs = 0\nbatch_size = 24\nthreads = 1\ndevice = "cpu"\n'
    )


class Server:
    """`mlflow models serve` with one thread, on one core where the system can say on which."""

    def __init__(self, uri: str, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
        self._log = (root / "serve.log").open("w")
        self._process = subprocess.Popen(
            [*command, "-p", str(port)], cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=self._log, stderr=self._log, start_new_session=True,
        )  # fmt: skip
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {max(os.sched_getaffinity(0))})

    def is_up(self) -> bool:
        """Whether it answers.

        Raises:
            RuntimeError: it has ended.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended; see {self._log.name}")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{self.url}/ping", timeout=5).close()
            return True
        return False

    def ask(self, image: bytes) -> float:
        """Milliseconds of one request, from its bytes to the parsed answer."""
        start = time.perf_counter()
        body = {"dataframe_split": {"columns": ["image"], "data": [[base64.b64encode(image).decode()]]}}
        request = urllib.request.Request(
            f"{self.url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            (predicted,) = json.loads(answer.read())["predictions"]
        assert set(predicted) == {"prediction", "prob/one", "prob/two"}
        return 1000 * (time.perf_counter() - start)

    def stop(self) -> None:
        """Ends it."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        self._log.close()


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights", default="package:efficientnet-lite0")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--requests", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_project(root, arguments.model, arguments.weights, arguments.image_size)
        for verb in (["train", "serving"], ["register", "last", "--alias", "champion"]):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "imgcls", *verb], cwd=root, check=True)
            print(f"imgcls {verb[0]}: {time.perf_counter() - start:.0f} s")
        (onnx,) = (root / "mlruns").rglob("model.onnx")
        print(f"model.onnx: {onnx.stat().st_size / 1e6:.1f} MB")
        start = time.perf_counter()
        server = Server("models:/serving@champion", root)
        try:
            while not server.is_up():
                time.sleep(0.1)
            print(f"up after {time.perf_counter() - start:.1f} s")
            print(f"{arguments.model} at {arguments.image_size} px, one core of {device_name(torch.device('cpu'))}\n")
            print("| JPEG | median, ms | 95 %, ms |\n|---|---|---|")
            for size in SIZES:
                image = jpeg(7, size)
                for _ in range(10):
                    server.ask(image)
                times = [server.ask(image) for _ in range(arguments.requests if size == SIZES[0] else 30)]
                print(f"| {size[0]} x {size[1]} | {np.median(times):.1f} | {np.quantile(times, 0.95):.1f} |")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
