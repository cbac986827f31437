"""Lightning's Trainer at its defaults, fed by the usual loader with as many workers as there are cores.

A warm epoch is counted from `on_train_epoch_start` to `on_train_epoch_end`, which leaves its checkpoint and its
bookkeeping between epochs out. The first epoch counts from the opening of the folder.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from queue import Queue
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.contestant import Epoch
from benchmarks.usual import train_loader
from benchmarks.works import ENDLESS, Work


class LightningPeer:
    """Trains a work in a thread, which is let go on an epoch at a time."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._gate: _Gate | None = None
        self._thread: threading.Thread | None = None

    def first(self) -> Epoch:
        """Opens the folder, makes net and trainer, and trains the first epoch."""
        if self._gate is not None and self._thread is not None:
            self._gate.go_on.put(False)
            self._thread.join()
        self._gate = _Gate(time.perf_counter())
        # A daemon, because nobody asks it to end when the process leaves.
        self._thread = threading.Thread(target=self._fit, args=(self._gate,), daemon=True)
        self._thread.start()
        return self._gate.result()

    def epoch(self) -> Epoch:
        """Another epoch."""
        assert self._gate is not None
        self._gate.go_on.put(True)
        return self._gate.result()

    def _fit(self, gate: _Gate) -> None:
        try:
            loader = train_loader(self._work, num_workers=os.cpu_count() or 1)
            module = _Module(self._work)
            with tempfile.TemporaryDirectory() as folder:
                trainer = lightning.Trainer(
                    max_epochs=ENDLESS, accelerator="cpu", callbacks=[gate], default_root_dir=folder
                )
                trainer.fit(module, loader)
        except BaseException as error:
            gate.results.put(error)


class _Gate(lightning.Callback):
    """Measures each epoch, and holds the training after it until it may go on."""

    def __init__(self, begun: float) -> None:
        self.go_on: Queue[bool] = Queue()
        self.results: Queue[Epoch | BaseException] = Queue()
        self._begun: float | None = begun
        self._images = 0

    def result(self) -> Epoch:
        """Waits for the epoch under way."""
        result = self.results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._images = 0
        if self._begun is None:
            self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._images += len(batch[0])

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert self._begun is not None
        self.results.put(Epoch(self._images, time.perf_counter() - self._begun))
        self._begun = None
        trainer.should_stop = not self.go_on.get()


class _Module(lightning.LightningModule):
    """The module of Lightning's own introduction, with the work's net and loss."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._train_config = work.experiment.train
        self.net = work.net()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = F.cross_entropy(self.net(inputs), labels, label_smoothing=self._train_config.label_smoothing)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self._train_config
        return torch.optim.AdamW(self.parameters(), lr=config.lr, weight_decay=config.weight_decay)
