"""Digits, and tasks of the loop on them, for the tests of training."""

from functools import partial

import pytest
import torch

from tests.training.test_loop import load_digits, task_of


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture
def make_task(digits):
    threads = torch.get_num_threads()
    yield partial(task_of, digits)
    torch.set_num_threads(threads)
