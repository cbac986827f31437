"""Requests to stop, made at an exact step."""

from imgcls.signals import GracefulStop


class StopAfter(GracefulStop):
    """Is requested after so many questions: the loop asks once a step."""

    def __init__(self, num_steps):
        super().__init__()
        self._left = num_steps

    def __call__(self):
        self._left -= 1
        if self._left < 0:
            self.requested = "SIGTERM"
        return super().__call__()
