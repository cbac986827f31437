"""The loop in several processes: one process is the oracle, in double precision to 1e-10 over three epochs."""

import pytest
import torch
from torch import nn

from imgcls.errors import ConfigError
from imgcls.search.local_worker import _store_on_loopback, _variables
from imgcls.search.worker_start import started
from imgcls.training.sync_batch_norm import check_norms
from tests.training.several import VARIANTS, main

NUMBERS = 2, 3


@pytest.fixture(scope="module")
def came_of(tmp_path_factory):
    """(number of processes, name of the variant) -> what came of it in each process.

    The processes start as those of a sweep do; torchrun starts them in tests/runs/test_several_processes.py.
    """
    found = {}
    for num in (1, *NUMBERS):
        folder, store = tmp_path_factory.mktemp("several"), _store_on_loopback()
        several = [_variables(store.port, rank, num, 0, 1) if num > 1 else {} for rank in range(num)]
        processes = [started(main, folder, variables=variables) for variables in several]
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * num
        for name in VARIANTS:
            found[num, name] = [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(num)]
    return found


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=name)


@pytest.mark.distributed
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in ("float32", "not finite")])
@pytest.mark.parametrize("num", NUMBERS)
def test_several_processes_give_what_one_gives(came_of, num, name):
    (one,), several = came_of[1, name], came_of[num, name]
    assert len(one["history"]) == 3
    for rank in several:
        assert_close(rank["weights"], one["weights"], 1e-10)
        assert torch.equal(rank["logits"], several[0]["logits"])
        torch.testing.assert_close(rank["logits"], one["logits"], rtol=0, atol=1e-10)
        assert rank["history"] == several[0]["history"], "all processes have the same results, times included"
        assert rank["steps"] == one["steps"], "all of them stopped where one was asked to"
    for here, alone in zip(several[0]["history"], one["history"], strict=True):
        assert here["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-10)
        assert here["val"] == pytest.approx(alone["val"], abs=1e-10)


@pytest.mark.distributed
@pytest.mark.parametrize("num", NUMBERS)
def test_in_single_precision_they_are_as_close_as_it_allows(came_of, num):
    """Until the fifth step; later they differ as one thread differs from two."""
    (one,), several = came_of[1, "float32"], came_of[num, "float32"]
    for rank in several:
        assert_close(rank["weights"], one["weights"], 1e-5)
        assert all(torch.equal(rank["weights"][name], several[0]["weights"][name]) for name in one["weights"])


@pytest.mark.distributed
@pytest.mark.parametrize("num", NUMBERS)
def test_a_loss_that_is_not_finite_in_one_process_ends_all_with_the_same_error(came_of, num):
    assert {rank["error"] for rank in came_of[num, "not finite"]} == {came_of[1, "not finite"][0]["error"]}


def test_a_layer_whose_statistics_cannot_be_summed_is_refused():
    check_norms(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)))
    with pytest.raises(ConfigError, match=r"the layer 0 \(InstanceNorm2d\)"):
        check_norms(nn.Sequential(nn.InstanceNorm2d(4, track_running_stats=True)))
