"""Requests to stop, made at an exact step."""

import io
import os
import signal

import torch

from imgcls.signals import GracefulStop


class StopAfter(GracefulStop):
    """Is requested after so many questions: the loop asks once a step."""

    def __init__(self, num_steps):
        super().__init__()
        self._left = num_steps

    def requested(self):
        self._left -= 1
        if self._left < 0:
            self._requested = "SIGTERM"
        return super().requested()


def insist_while_saving(monkeypatch, *, call, write):
    """Has SIGTERM come twice in the `call`-th torch.save, while its file is written for the `write`-th time."""
    save, calls = torch.save, []

    def insisting(content, file):
        calls.append(file)
        save(content, _Insisting(file, write) if len(calls) == call else file)

    monkeypatch.setattr(torch, "save", insisting)


class _Insisting(io.RawIOBase):
    def __init__(self, file, write):
        super().__init__()
        self._file, self._left = file, write

    def writable(self):
        return True

    def write(self, content):
        self._left -= 1
        if not self._left:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
        return self._file.write(content)
