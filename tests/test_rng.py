import hashlib
from itertools import product

import pytest
import torch

from imgcls.rng import derive_seed, generator

PURPOSES = ("weights", "order", "augment", "cutout", "mixup", "cutmix", "forward")


def draws(seed, epoch, step, purpose):
    return torch.rand(8, generator=generator(seed, epoch, step, purpose))


def test_a_draw_is_a_function_of_where_it_stands():
    assert torch.equal(draws(3, 2, 1, "order"), draws(3, 2, 1, "order"))


def test_every_coordinate_matters():
    first = {tuple(draws(*where).tolist()) for where in product((0, 1), (0, 1), (0, 1), PURPOSES)}
    assert len(first) == 8 * len(PURPOSES)


def test_a_draw_depends_on_nothing_drawn_before_and_leaves_no_trace():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    expected = draws(0, 0, 0, "augment")
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(100)
    draws(0, 0, 0, "mixup")
    assert torch.equal(draws(0, 0, 0, "augment"), expected)


def test_coordinates_do_not_run_into_each_other():
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(0, 1, 11) != derive_seed(0, 11, 1)
    assert derive_seed(0, "order", 1) != derive_seed(0, 1, "order")


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 10**30])
def test_a_derived_seed_is_the_first_63_bits_of_a_hash(seed):
    bits = int(hashlib.blake2b(f"{seed}/4/5/order".encode(), digest_size=8).hexdigest(), 16)
    derived = derive_seed(seed, 4, 5, "order")
    assert derived == bits // 2
    assert 0 <= derived < 2**63
    torch.Generator().manual_seed(derived)


def test_derived_seeds_are_spread_over_all_63_bits():
    seeds = [derive_seed(0, epoch, step, "order") for epoch in range(64) for step in range(64)]
    assert len(set(seeds)) == len(seeds)
    # 4096 fair coins a bit: outside 2048 +- 192 (6 sigma) once in 5e8.
    assert all(abs(sum(seed >> bit & 1 for seed in seeds) - 2048) < 192 for bit in range(63))
