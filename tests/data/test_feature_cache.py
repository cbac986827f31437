"""Features are computed once, kept whole, made again where they are damaged, and shared by processes."""

import multiprocessing
import os
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from imgcls.data import cache_folder as cache_folder_module
from imgcls.data import feature_cache
from imgcls.data.cache_folder import ABANDONED_AFTER, abandoned, entries, only_one, prune
from imgcls.data.feature_cache import FeatureRows, kept_features
from imgcls.data.loader import Loader
from imgcls.errors import Interrupted
from imgcls.files import lock

SHAPE = (10, 2, 3)
NAME = "features-of-a-test"


@pytest.fixture(autouse=True)
def _cache(cache_folder):
    feature_cache._without_entry.clear()
    return cache_folder


def numbers():
    return np.random.default_rng(0).standard_normal(SHAPE, np.float32)


class Made:
    """Features in blocks of 4 images, and how often they were made."""

    def __init__(self, block=4):
        self.times, self._block = 0, block

    def __call__(self):
        self.times += 1
        for start in range(0, SHAPE[0], self._block):
            yield numbers()[start : start + self._block]


def kept(made):
    return kept_features(NAME, "features of a test", SHAPE, made)


def test_features_are_made_once_and_mapped(cache_folder):
    made = Made()
    for _ in range(2):
        features = kept(made)
        assert np.array_equal(features, numbers()) and features.dtype == np.float32
    assert made.times == 1 and isinstance(features, np.memmap)
    (entry,) = entries()
    assert (entry.about, entry.path) == ("features of a test", cache_folder / NAME)
    assert prune(0) == [entry] and np.array_equal(features, numbers())
    assert list(cache_folder.iterdir()) == []


@pytest.mark.parametrize("name", ["features.npy", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "other bytes", "gone"])
def test_a_damaged_entry_is_made_again(cache_folder, name, damage):
    made, path = Made(), cache_folder / NAME / name
    kept(made)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-4] if damage == "cut" else content[:-4] + b"\0\1\2\3")
    assert np.array_equal(kept(made), numbers())
    assert made.times == 2
    kept(made)
    assert made.times == 2


def test_an_entry_of_another_shape_is_made_again():
    kept(Made())
    other = np.zeros((3, 1, 3), np.float32)
    assert np.array_equal(kept_features(NAME, "", other.shape, lambda: iter([other])), other)


def test_a_stop_or_an_error_leaves_no_entry(cache_folder):
    def stopped():
        yield numbers()[:4]
        raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        kept(stopped)
    assert list(cache_folder.iterdir()) == []


def test_features_beyond_the_budget_are_made_once_by_each_process(monkeypatch, cache_folder):
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "100")
    made = Made()
    for _ in range(2):
        assert np.array_equal(kept(made), numbers())
    assert made.times == 1 and list(cache_folder.iterdir()) == []


def test_what_was_used_least_makes_room(monkeypatch):
    kept(Made())
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", str(entries()[0].num_bytes + 10))
    kept_features("features-of-another", "another", SHAPE, Made())
    assert [entry.about for entry in entries()] == ["another"]


def _ask(path, here, both):
    def made():
        with path.open("a") as file:
            file.write("made\n")
        both.wait(timeout=60)  # until the other process is about to ask
        yield numbers()

    if here:
        both.wait(timeout=60)
    assert np.array_equal(kept(made), numbers())


def test_of_two_processes_one_makes_the_features_and_the_other_waits(tmp_path):
    context, log = multiprocessing.get_context("fork"), tmp_path / "log"
    both = context.Barrier(2)
    processes = [context.Process(target=_ask, args=(log, here, both)) for here in (False, True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text() == "made\n"


def _is_free(path, answers):
    with path.open("a+b") as file:
        answers.put(lock(file.fileno(), path, wait=False))


def _builds(answers):
    with only_one("x", "builds"):
        answers.put("built")


def test_a_lock_whose_file_its_last_holder_removed_is_asked_for_again(cache_folder, monkeypatch):
    context, path, asked = multiprocessing.get_context("fork"), cache_folder / "building-x.lock", []

    def lock_as_its_holder_leaves(*arguments, **options):
        asked.append(path)
        if len(asked) == 1:
            path.unlink()
        return lock(*arguments, **options)

    monkeypatch.setattr(cache_folder_module, "lock", lock_as_its_holder_leaves)
    with only_one("x", "builds"):
        assert len(asked) == 2
        answers = context.Queue()
        other = context.Process(target=_is_free, args=(path, answers))
        other.start()
        assert answers.get(timeout=60) is False
        other.join()
    assert not path.exists()


def test_of_the_threads_of_a_process_one_at_a_time_builds(cache_folder, monkeypatch):
    seen = queue.Queue()

    def build():
        with only_one("x", "builds"):
            seen.put("builds")

    monkeypatch.setattr(cache_folder_module, "stop_requested", lambda: seen.put("waits"))
    with ThreadPoolExecutor(1) as pool:
        with only_one("x", "builds"):
            built = pool.submit(build)
            assert seen.get(timeout=60) == "waits"
            with only_one("y", "builds"):  # an entry that nobody builds is not waited for
                pass
        built.result(timeout=60)
    assert "builds" in seen.queue
    assert not list(cache_folder.iterdir())


def test_a_child_does_not_wait_for_a_thread_that_only_its_parent_has():
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with ThreadPoolExecutor(1) as pool:
        begun, may_end = threading.Event(), threading.Event()

        def build():
            with only_one("x", "builds"):
                begun.set()
                may_end.wait(60)

        built = pool.submit(build)
        assert begun.wait(60)
        child = context.Process(target=_builds, args=(answers,))
        child.start()
        may_end.set()
        built.result(timeout=60)
        assert answers.get(timeout=60) == "built"
        child.join()


def test_features_beyond_the_budget_are_computed_by_one_of_two_threads(monkeypatch):
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "0")
    made = Made()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: kept(made), range(2))
    assert made.times == 1
    assert np.array_equal(first, numbers()) and np.array_equal(second, numbers())


def test_the_lock_of_a_killed_process_is_removed_the_day_after(cache_folder):
    old, new = cache_folder / "building-old.lock", cache_folder / "building-new.lock"
    for path, age in ((old, ABANDONED_AFTER + 60), (new, 60)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    assert abandoned() == [old]
    kept(Made())
    assert [path.name for path in cache_folder.glob("building-*")] == [new.name]


def test_a_lock_that_a_killed_process_left_is_no_younger_than_its_next_holder(cache_folder):
    path = cache_folder / "building-x.lock"
    path.touch()
    os.utime(path, (time.time() - 2 * ABANDONED_AFTER,) * 2)
    assert abandoned() == [path]
    with only_one("x", "builds"):
        assert abandoned() == []


@pytest.mark.parametrize("block", [1, 10])
def test_a_loader_gives_the_rows_that_are_asked_for(block):
    features = kept(Made(block))
    at, labels = np.array([3, 3, 9, 0]), np.arange(4)
    every = Loader(FeatureRows(features, at, labels), 3, torch.device("cpu"))
    batches = list(every.in_order())
    assert np.array_equal(torch.cat([batch.images for batch in batches]).numpy(), numbers()[at])
    one = Loader(FeatureRows(features[:, 0], at, labels), 3, torch.device("cpu"))
    assert np.array_equal(torch.cat([batch.images for batch in one.in_order()]).numpy(), numbers()[at, 0])
    seen = torch.cat([batch.labels for batch in every.shuffled(seed=1, epoch=0)])
    assert sorted(seen.tolist()) == [0, 1, 2, 3]
