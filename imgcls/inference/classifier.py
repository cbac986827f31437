"""A classifier in use, wherever its weights are: a run's checkpoint, or a file that left the workbench."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.data.preprocessing import Preprocessing
from imgcls.inference.inputs import ImageLike, given
from imgcls.inference.predictions import predict
from imgcls.inference.sealed_images import UNKNOWN, SealedImages


class Classifier(ABC):
    """A classifier with all that inference needs.

    Attributes:
        run_id: of the run that trained it.
        class_names: K names, in the order of the probabilities.
        preprocessing: how an image becomes its input.
        temperature: by which its logits are divided for calibrated probabilities.
        seal: finds the test images that it does not predict without a look; None of a model without a record at hand.
        surroundings: makes the block in which `predict` works.
    """

    run_id: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    seal: Callable[[], SealedImages] | None = None
    surroundings: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)

    @abstractmethod
    def probs(self, squares: NDArray[np.uint8], *, raw: bool = False) -> NDArray[np.float64]:
        """Probabilities of squares that `preprocessing.square` made.

        Args:
            squares: uint8 (B, C, S, S).
            raw: without temperature.

        Returns:
            float64 (B, K), each row sums to 1.
        """

    def sealed_images(self) -> SealedImages:
        """The test images that it does not predict without a look, as the record knows them now."""
        return UNKNOWN if self.seal is None else self.seal()

    def predict(
        self,
        images: ImageLike | Iterable[object],  # what mixes text and paths is of no nearer type
        *,
        raw: bool = False,
        top: int | None = None,
        test_look: bool = False,
    ) -> pd.DataFrame:
        """Predicts images: a table with the columns of `imgcls predict --csv`, a row for each image that can be read.

        Args:
            images: paths of files, folders and globs; arrays uint8 (H, W), (H, W, C) or (N, H, W, C) with levels from 0
                to 255, where C is 1 for grey and 3 for RGB; images of Pillow; bytes of image files. One or several, of
                any kind.
            raw: probabilities as the network gives them; by default they are calibrated by the temperature.
            top: further columns `class_1`, `prob_1`, `class_2` ... name so many classes, the most probable first.
            test_look: predict test images too. That is a look at a test split, and is written down before it is taken.

        Returns:
            `image` (the path, or the index of what has none), `prediction` and for each class `prob/CLASS`, in [0, 1].
            Images that cannot be read are logged, and listed in `attrs["unreadable"]`.

        Raises:
            InputError: a path that does not exist, what is not an image, or `top` beyond the number of classes.
            SealedImagesError: test images of this run or of an earlier look among these, and no `test_look`.
            NoReadableImageError: none of the images can be read.
        """
        with self.surroundings():
            return predict(self, given(images), raw=raw, top=top, test_look=test_look)
