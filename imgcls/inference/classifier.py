"""A classifier in use, wherever its weights are: a run's checkpoint, or a file that left the workbench."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from imgcls.data.preprocessing import Preprocessing


class Classifier(ABC):
    """A classifier with all that inference needs.

    Attributes:
        run_id: of the run that trained it.
        class_names: K names, in the order of the probabilities.
        preprocessing: how an image becomes its input.
        temperature: by which its logits are divided for calibrated probabilities.
    """

    run_id: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float

    @abstractmethod
    def probs(self, squares: NDArray[np.uint8], *, raw: bool = False) -> NDArray[np.float64]:
        """Probabilities of squares that `preprocessing.square` made.

        Args:
            squares: uint8 (B, C, S, S).
            raw: without temperature.

        Returns:
            float64 (B, K), each row sums to 1.
        """
