"""Decoded once, mapped ever after; whole or not at all; and nothing of a test split in it."""

import errno
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import block_checksums, decode_cache, decode_workers
from imgcls.data.cache_folder import ABANDONED_AFTER, entries, parse_size, prune, remember, writing
from imgcls.data.cache_folder import cache_folder as where_the_cache_is
from imgcls.data.decode import digest, resize_squares, to_square
from imgcls.data.decode_on_demand import PixelsOnDemand
from imgcls.data.held_out import Look
from imgcls.data.loader import Loader
from imgcls.data.sketches import sketches, thumbnail
from imgcls.errors import ConfigError, DataError
from tests.data.make import cached_files, digests, load, noise, open_source, write, write_class, write_classes

pytestmark = pytest.mark.usefixtures("cache_folder")


@pytest.fixture
def table(tmp_path):
    """Twelve images, two of which cannot be read."""
    write_classes(tmp_path, {"cat": 7, "dog": 5})
    (tmp_path / "cat" / "0003.png").write_bytes(b"")
    (tmp_path / "dog" / "0011.png").write_bytes(b"no image")
    table = open_source(DataConfig(source="folder", path=str(tmp_path)), tmp_path).everything
    for known in where_the_cache_is().glob("content-*.txt"):  # so that tests can count what decoding leaves
        known.unlink()
    return table


def keep_all(digests, readable):
    return readable | digests.any(axis=1)


def keep_none(digests, readable):
    return readable & ~digests.any(axis=1)


def counting(table):
    """The table, and the list of rows that were read."""
    rows = []

    def read(row):
        rows.append(row)
        return table.read(row)

    return replace(table, read=read), rows


READABLE = [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


def mapped_file(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array


BY = {"nobody else": (100.0, 1.0), "threads": (100.0, 0.0), "processes": (1e-9, 0.0)}
"""Who helps to decode -> from how many seconds of work on processes and threads are to pay."""


def helped(monkeypatch, who):
    for name, seconds in zip(("WORTH_PROCESSES", "WORTH_THREADS"), BY[who], strict=True):
        monkeypatch.setattr(decode_workers, name, seconds)


@pytest.mark.parametrize("who", BY)
def test_every_readable_image_is_there_in_the_order_of_the_table(table, monkeypatch, who):
    monkeypatch.setattr(decode_workers, "PIECE_BYTES", 3 * 3 * 36)  # three images are one piece of work
    monkeypatch.setattr(decode_workers, "cores", lambda: 2)
    helped(monkeypatch, who)
    decoded = decode_cache.decode(table, 6, 3)
    assert decoded.kept.tolist() == READABLE
    assert decoded.images.stored.shape == (10, 3, 6, 6) and decoded.images.stored.dtype == np.uint8
    for square, row in zip(decoded.images.stored, READABLE, strict=True):
        assert np.array_equal(square, to_square(table.read(row), 6, 3))
        assert decoded.hashes.digests[row].tobytes() == digest(table.read(row))
        image = table.read(row)
        own = sketches(thumbnail(image)[None], np.array([min(image.size)]))[0]
        assert np.array_equal(decoded.hashes.sketches[row], own) and own.any()
    assert list(decoded.unreadable) == [3, 11]
    assert not decoded.hashes.digests[[3, 11]].any() and not decoded.hashes.sketches[[3, 11]].any()
    assert np.array_equal(decoded.images.sketches, decoded.hashes.sketches[READABLE])
    assert decoded.unreadable[3] == f"{table.path(3)}: empty file"


@pytest.mark.parametrize(("who", "here"), [("nobody else", 12), ("threads", 12), ("processes", 1)])
def test_images_are_decoded_by_those_who_pay(table, monkeypatch, who, here):
    """Of the first, the costs of the others are judged; what processes do leaves no trace in this one."""
    helped(monkeypatch, who)
    table, rows = counting(table)
    assert decode_cache.decode(table, 6, 3).kept.tolist() == READABLE
    assert len(rows) == here


@pytest.mark.parametrize("cores", [1, 2, 64])
@pytest.mark.parametrize("num_rows", [0, 1, 5, 1000])
def test_pieces_are_all_rows_in_order_and_shrink_to_single_ones(monkeypatch, cores, num_rows):
    monkeypatch.setattr(decode_workers, "cores", lambda: cores)
    pieces = list(decode_workers.pieces_of(num_rows, most=50))
    assert [row for piece in pieces for row in piece] == list(range(num_rows))
    sizes = [len(piece) for piece in pieces]
    assert sizes[:1] in ([], [1]) and sizes[1:] == sorted(sizes[1:], reverse=True) and sizes[-1:] in ([], [1])
    assert num_rows < 1000 or cores > 2 or sizes[1] == 50


def columns(decoded):
    """All that decoding gave beside the pixels."""
    return *decoded.hashes, decoded.kept, decoded.images.moments


def test_a_second_call_decodes_nothing(table):
    table, rows = counting(table)
    first = decode_cache.decode(table, 6, 3)
    assert sorted(rows) == list(range(12))
    second = decode_cache.decode(table, 6, 3)
    assert len(rows) == 12
    assert [np.array_equal(*pair) for pair in zip(columns(first), columns(second), strict=True)] == [True] * 6
    assert np.array_equal(first.images.stored, second.images.stored)
    assert first.unreadable == second.unreadable


def opened(folder):
    return open_source(DataConfig(source="folder", path=str(folder)), folder).everything


def test_the_same_images_elsewhere_are_not_decoded_again(tmp_path):
    """As on a second machine, where the folder has another path, and its files other times."""
    write_classes(tmp_path / "one", {"cat": 3, "dog": 2})
    first = decode_cache.decode(opened(tmp_path / "one"), 6, 3)
    shutil.copytree(tmp_path / "one", tmp_path / "a" / "two", copy_function=shutil.copyfile)
    table, rows = counting(opened(tmp_path / "a" / "two"))
    second = decode_cache.decode(table, 6, 3)
    assert rows == [] and np.array_equal(first.images.pixels, second.images.pixels)
    assert decode_cache.decode(table.rows([3, 1]), 6, 3).images.keys == ("dog/0003.png", "cat/0001.png")
    assert len(rows) == 2


@pytest.mark.parametrize("chosen", [None, [3, 1]])
def test_what_an_earlier_version_decoded_is_still_found(tmp_path, chosen):
    """Its entries are named by the place of the files."""
    write_classes(tmp_path / "images", {"cat": 3, "dog": 2})
    table = opened(tmp_path / "images")
    table = table if chosen is None else table.rows(chosen)
    decode_cache.decode(replace(table, stamp=table.earlier_stamp), 6, 3)
    table, rows = counting(table)
    assert decode_cache.decode(table, 6, 3).kept.tolist() == list(range(len(table))) and rows == []


def test_images_that_change_while_they_are_decoded_leave_no_entry(tmp_path, cache_folder):
    """It would be named by what they were."""
    write_classes(tmp_path / "images", {"cat": 3, "dog": 2})
    table = opened(tmp_path / "images")
    before = {path.name for path in cache_folder.iterdir()}

    def read(row):
        if row == 2:
            write(tmp_path / "images" / "cat" / "0000.png", noise(99))
        return table.read(row)

    with pytest.raises(DataError, match="was changed while it was decoded; start again"):
        decode_cache.decode(replace(table, read=read), 6, 3)
    assert {path.name for path in cache_folder.iterdir()} == before
    decoded = decode_cache.decode(opened(tmp_path / "images"), 6, 3)
    assert np.array_equal(decoded.images.pixels[0], to_square(table.read(0), 6, 3))


@pytest.mark.parametrize("change", [{"sides": (7,)}, {"channels": 1}, {"keep_name": "other"}])
def test_another_request_is_another_entry(table, change):
    table, rows = counting(table)
    decode_cache.decode_sides(table, (6,), 3)
    decode_cache.decode_sides(table, **({"sides": (6,), "channels": 3} | change))
    assert len(rows) == 24


def test_a_whole_data_set_is_read_once_and_then_never(tmp_path, monkeypatch):
    write_classes(tmp_path, {"cat": 8, "dog": 8})
    reads = []
    from imgcls.data.sources import folder

    read_image = folder.read_image
    monkeypatch.setattr(folder, "read_image", lambda path: reads.append(path.name) or read_image(path))
    one = load(tmp_path)
    assert set(reads) == {path.name for path in tmp_path.rglob("*.png")}
    reads.clear()
    other = load(tmp_path, seed=1, val_fraction=0.3, mean=(0.5,) * 3)
    assert reads == [] and other.test.fingerprint() == one.test.fingerprint()


def test_images_are_mapped_and_a_split_does_not_copy_them(tmp_path):
    dataset = load(write_classes(tmp_path, {"cat": 20, "dog": 20}))
    for images in (dataset.train, dataset.val, dataset.train.rows([3, 1]), dataset.train.in_content_order()):
        assert mapped_file(images.stored) is not None
        assert np.shares_memory(images.stored, dataset.train.stored)
    assert not dataset.train.stored.flags.writeable
    some = dataset.train.rows([3, 1])
    assert np.array_equal(some.pixels, dataset.train.pixels[[3, 1]])
    assert some.keys == (dataset.train.keys[3], dataset.train.keys[1]) and len(some) == 2


def test_keep_chooses_what_stays(table):
    """The others leave their digests and not a byte of their pixels."""
    kept = [0, 5, 8]
    asked = []

    def keep(digests, readable):
        asked.append((digests.shape, np.flatnonzero(readable).tolist()))
        return np.isin(np.arange(12), [*kept, 3])  # row 3 cannot be read, whoever wants it

    (decoded,) = decode_cache.decode_sides(table, (6,), 3, keep=keep, keep_name="some")
    assert asked == [((12, 32), READABLE)]
    assert decoded.kept.tolist() == kept
    assert np.array_equal(decoded.images.stored, np.stack([to_square(table.read(row), 6, 3) for row in kept]))
    assert np.flatnonzero(decoded.hashes.digests.any(axis=1)).tolist() == READABLE


@pytest.mark.parametrize("keep", [None, keep_none])
@pytest.mark.parametrize("side", [0, 6])
def test_nothing_to_keep_is_no_special_case(table, side, keep):
    (decoded,) = decode_cache.decode_sides(table, (side,), 3, keep=keep, keep_name=str(keep))
    assert decoded.images.stored.shape == (0 if keep else 10, 3, side, side)
    assert np.flatnonzero(decoded.hashes.digests.any(axis=1)).tolist() == READABLE
    empty = decode_cache.decode(table.rows([]), side, 3)
    assert empty.images.stored.shape == (0, 3, side, side) and empty.hashes.digests.shape == (0, 32)


@pytest.mark.parametrize("opened", [False, True])
def test_test_pixels_of_a_carved_split_are_nowhere_in_the_cache(tmp_path, cache_folder, opened):
    """Neither before the split is opened nor after: the next reader would need no look."""
    dataset = load(write_classes(tmp_path, {"cat": 12, "dog": 12}))
    if opened:
        assert len(dataset.test.open(Look("a run", 1, lambda: True))) == 6
    test = set(digests(dataset.test.hashes().digests))
    contents = [path.read_bytes() for path in cached_files(cache_folder)]
    num_test = num_others = 0
    for seed in range(24):
        image = open_source(DataConfig(source="folder", path=str(tmp_path)), tmp_path).everything.read(seed)
        square = to_square(image, 8, 3).tobytes()
        found = any(square in content or square[:64] in content for content in contents)
        if digest(image) in test:
            num_test += 1
            assert not found
        else:
            num_others += 1
            assert found
    assert (num_test, num_others) == (6, 18)


def test_what_is_decoded_and_forgotten_leaves_no_file(table, cache_folder):
    decoded = decode_cache.decode_and_forget(table, 6, 3)
    reference = decode_cache.decode(table, 6, 3)
    assert np.array_equal(decoded.images.stored, reference.images.stored) and decoded.unreadable == reference.unreadable
    assert np.array_equal(decoded.hashes.digests, reference.hashes.digests) and np.array_equal(
        decoded.kept, reference.kept
    )
    assert len(list(cache_folder.iterdir())) == 1


def test_a_text_is_made_once_and_remembered(cache_folder):
    made = []
    for _ in range(2):
        assert remember("a text.json", lambda: made.append(1) or "what was found é") == "what was found é"
    assert made == [1]
    assert [path.name for path in cache_folder.iterdir()] == ["a text.json"]


def test_a_text_that_cannot_be_kept_is_made_each_time(monkeypatch):
    monkeypatch.setenv("IMGCLS_CACHE", "/proc/self")  # a folder in which not even root can make a file
    made = []
    for _ in range(2):
        assert remember("a text.json", lambda: made.append(1) or "found") == "found"
    assert made == [1, 1]


def test_a_text_that_cannot_be_made_leaves_nothing(cache_folder):
    with pytest.raises(ZeroDivisionError):
        remember("a text.json", lambda: str(1 / 0))
    assert cached_files(cache_folder) == []


class Crash(BaseException):
    """Such as KeyboardInterrupt."""


@pytest.mark.parametrize("error", [Crash, MemoryError])
@pytest.mark.parametrize("keep", [None, keep_all])
def test_a_crash_half_way_leaves_no_entry(table, cache_folder, error, keep):
    def read(row):
        if row == 8:
            raise error
        return table.read(row)

    with pytest.raises(error):
        decode_cache.decode_sides(replace(table, read=read), (6,), 3, keep=keep)
    assert list(cache_folder.iterdir()) == []
    (decoded,) = decode_cache.decode_sides(table, (6,), 3, keep=keep)
    assert decoded.kept.tolist() == READABLE


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import cache_folder, decode_cache, decode_source, decode_workers
from imgcls.data.sources import folder

decode_workers.PIECE_BYTES = 1
read_image = folder.read_image

def read(path):
    if path.name == "0023.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return read_image(path)

folder.read_image = read
from imgcls.data.splits import load_dataset
from imgcls.project import Project
load_dataset(DataConfig(source="folder", path=sys.argv[1], image_size=8), AugmentConfig(), Project(Path("/")))
"""


@pytest.mark.slow
def test_a_process_killed_while_it_decodes_leaves_no_entry_and_no_pixel(tmp_path, cache_folder):
    """SIGKILL at the last image, when the pixels of test have been decoded too."""
    write_classes(tmp_path, {"cat": 12, "dog": 12})
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    left = [path for path in cache_folder.iterdir() if not path.name.startswith("content-")]
    assert [path.suffix for path in sorted(left, key=lambda path: path.suffix)] == ["", ".lock"]
    assert all(path.name.startswith("building-") for path in left)
    assert sum(path.stat().st_size for path in cached_files(cache_folder) if not path.name.startswith("content-")) == 0
    assert len(load(tmp_path).train) == 15


LEFT_ALONE = """
import os, signal, sys
from pathlib import Path
from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import cache_folder, decode_cache, decode_source, decode_workers
from imgcls.data.sources import folder

decode_workers.WORTH_PROCESSES = 1e-9
read_image = folder.read_image
parent = os.getpid()

def read(path):
    if {is_late} and path.name == "0005.png" and os.getpid() != parent:
        print(os.getpid(), flush=True)
        os.kill({victim}, signal.SIGKILL)
    return read_image(path)

folder.read_image = read
begin = decode_workers._begin

def begin_without_parent(worker):
    if not {is_late} and worker == 0:
        print(os.getpid(), flush=True)
        os.kill(parent, signal.SIGKILL)
        while os.getppid() == parent:
            pass
    begin(worker)

decode_workers._begin = begin_without_parent
from imgcls.data.splits import load_dataset
from imgcls.project import Project
from imgcls.machine_failures import explain
try:
    load_dataset(DataConfig(source="folder", path=sys.argv[1], image_size=8), AugmentConfig(), Project(Path("/")))
except RuntimeError as error:
    print(explain(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize("is_late", [True, False])
def test_processes_that_decode_end_with_their_parent(tmp_path, is_late):
    """SIGKILL leaves the parent no time to end them. The end of its output comes when the last of them is gone.

    The parent may be killed before they have begun.
    """
    write_classes(tmp_path, {"cat": 12, "dog": 12})
    script = LEFT_ALONE.format(victim="parent", is_late=is_late)
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, timeout=60)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert int(child.stdout)  # printed by one of them


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_decodes_is_said_to_be(tmp_path):
    write_classes(tmp_path, {"cat": 12, "dog": 12})
    script = LEFT_ALONE.format(victim="os.getpid()", is_late=True)
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert "a process that decodes images was killed" in child.stdout.decode()


def test_what_a_killed_process_left_is_cleared_away_the_day_after(table, cache_folder):
    for name, age in (("building-old", ABANDONED_AFTER + 60), ("building-new", 60)):
        file = cache_folder / name / "images.npy"
        file.parent.mkdir()
        file.write_bytes(b"half")
        for path in (file, file.parent):
            os.utime(path, (time.time() - age,) * 2)
    decode_cache.decode(table, 6, 3)
    assert [path.name for path in cache_folder.glob("building-*")] == ["building-new"]


def test_threads_that_build_the_same_entry_get_the_same(table, cache_folder):
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decode_cache.decode(table, 6, 3), range(4)))
    for decoded in results:
        assert np.array_equal(decoded.images.stored, results[0].images.stored)
    assert len(list(cache_folder.iterdir())) == 1


WAITS = """
import sys
from pathlib import Path
from imgcls.config.keys import AugmentConfig, DataConfig
from imgcls.data import decode_cache
from imgcls.data.splits import load_dataset
from imgcls.project import Project

decode_cache.decode_into = None
data = DataConfig(source="folder", path=sys.argv[1], image_size=8)
print(len(load_dataset(data, AugmentConfig(), Project(Path("/"))).train))
"""


@pytest.mark.slow
def test_while_a_process_decodes_another_one_waits_and_finds_the_images_decoded(tmp_path, cache_folder, monkeypatch):
    write_classes(tmp_path, {"cat": 12, "dog": 12})
    build, others = decode_cache._build, []

    def build_beside_another(*arguments):
        if not others:
            command = [sys.executable, "-c", WAITS, str(tmp_path)]
            others.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            assert "another process decodes these images ..." in others[0].stderr.readline()
        build(*arguments)

    monkeypatch.setattr(decode_cache, "_build", build_beside_another)
    mine = load(tmp_path)
    out, err = others[0].communicate()
    assert out == f"{len(mine.train)}\n", err
    assert not list(cache_folder.glob("building-*"))


def test_a_file_changed_in_place_is_decoded_anew(tmp_path):
    """Same name, same size, and the time of change set back, as archives do."""
    write_class(tmp_path / "cat", [0, 1], suffix=".bmp")
    path = write(tmp_path / "dog" / "image.bmp", noise(2))
    before, stat = load(tmp_path, test_fraction=0.0, val_fraction=0.34), path.stat()
    write(path, noise(3))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    after = load(tmp_path, test_fraction=0.0, val_fraction=0.34)
    assert before.fingerprint != after.fingerprint


def test_folders_of_like_files_are_not_taken_for_each_other(tmp_path):
    found = []
    for start, name in ((0, "one"), (50, "two")):
        for seed in range(8):
            path = write(tmp_path / name / ("cat", "dog")[seed % 2] / f"{seed}.bmp", noise(start + seed))
            os.utime(path, (1e9, 1e9))
        found.append(load(tmp_path / name))
    assert found[0].fingerprint != found[1].fingerprint


@pytest.mark.parametrize("decode", [decode_cache.decode, decode_cache.decode_and_forget])
def test_a_cache_that_cannot_be_made_says_what_to_do(table, tmp_path, monkeypatch, decode):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=f"cannot be written to {tmp_path / 'file' / 'cache'}: .*IMGCLS_CACHE"):
        decode(table, 6, 3)


@pytest.mark.parametrize("keep", [None, keep_all])
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(table, cache_folder, keep):
    """The limit on a file's size stands in for the disk: a write beyond it fails, a mapping would kill."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(DataError, match="make room, or name another folder in IMGCLS_CACHE"):
            decode_cache.decode_sides(table, (64,), 3, keep=keep)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(cache_folder.iterdir()) == []


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("IMGCLS_CACHE", "~/mine")
    assert where_the_cache_is() == Path.home() / "mine"
    monkeypatch.delenv("IMGCLS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert where_the_cache_is() == Path("/var/cache/imgcls")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert where_the_cache_is() == Path.home() / ".cache" / "imgcls"


# --- the budget -------------------------------------------------------------------------------------------------


def entry_names(folder):
    return {path.name for path in folder.iterdir()}


def test_over_the_budget_images_are_decoded_anew_and_are_the_same(table, monkeypatch, cache_folder, caplog):
    kept = decode_cache.decode(table, 6, 3)
    shutil.rmtree(cache_folder)
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", str(12 * 3 * 6 * 6 - 1))
    counted, reads = counting(table)
    with caplog.at_level(logging.INFO):
        anew = decode_cache.decode(counted, 6, 3)
    assert "12 images of 6 x 6 pixels need 1.3KB, more than the 1.3KB" in caplog.text
    assert sorted(reads) == list(range(12))
    assert isinstance(anew.images.stored, PixelsOnDemand) and anew.images.stored.shape == kept.images.stored.shape
    assert [np.array_equal(*pair) for pair in zip(columns(anew), columns(kept), strict=True)] == [True] * 6
    assert anew.unreadable == kept.unreadable
    rows = np.array([9, 0, 3])
    assert np.array_equal(anew.images.stored[rows], kept.images.stored[rows])
    small = replace(anew.images.stored, image_size=4)
    assert np.array_equal(small[rows], resize_squares(np.asarray(kept.images.stored[rows]), 4))
    assert sum(path.stat().st_size for path in cached_files(cache_folder) if path.name == "images.npy") == 0

    reads.clear()
    decode_cache.decode(counted, 6, 3)
    assert reads == []  # the hashes are kept
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "1MB")
    assert not isinstance(decode_cache.decode(table, 6, 3).images.stored, PixelsOnDemand)


def test_one_pass_makes_squares_of_several_sides(table):
    counted, reads = counting(table)
    alone = [decode_cache.decode_and_forget(table, side, 3) for side in (9, 6)]
    for _ in range(2):
        both = decode_cache.decode_sides(counted, (9, 6), 3)
        for decoded, expected in zip(both, alone, strict=True):
            assert [np.array_equal(*pair) for pair in zip(columns(decoded), columns(expected), strict=True)] == [
                True
            ] * 6
            assert np.array_equal(decoded.images.stored, expected.images.stored)
    assert sorted(reads) == list(range(12))
    assert both[0].hashes.sizes[READABLE].tolist() == [[12, 10]] * 10 and not both[0].hashes.sizes[3].any()
    assert [entry.about.split(" x ")[1] for entry in entries()] == ["6", "9"]
    decode_cache.decode_sides(counted, (9, 7), 3, keep=keep_none, keep_name="none")  # other rows, other entries
    assert len(reads) == 24
    decode_cache.decode_sides(counted, (9, 9, 8), 3)  # what is there is not made again
    assert len(reads) == 36 and len(entries()) == 5
    decode_cache.decode_sides(counted, (8,), 3)
    assert len(reads) == 36


@pytest.mark.parametrize(("room", "has_pixels"), [(9**2 + 6**2, [1, 1]), (9**2, [1, 0]), (6**2, [0, 1]), (1, [0, 0])])
def test_with_little_room_the_first_side_comes_first(table, monkeypatch, room, has_pixels, cache_folder):
    expected = decode_cache.decode_sides(table, (9, 6), 3)
    shutil.rmtree(cache_folder)
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", str(len(table) * 3 * room))
    for _ in range(2):
        decoded = decode_cache.decode_sides(table, (9, 6), 3)
        assert [not isinstance(one.images.stored, PixelsOnDemand) for one in decoded] == has_pixels
        for one, other in zip(decoded, expected, strict=True):
            assert np.array_equal(one.images.stored[np.arange(10)], other.images.stored)


def test_what_is_asked_for_together_does_not_push_itself_out(table, monkeypatch):
    """There is room for either of the two, and not for both."""
    decode_cache.decode(table, 30, 3)
    sizes = {entry.about.split(" x ")[1]: entry.num_bytes for entry in entries()}
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", str(sizes["30"] + 100))
    large, small = decode_cache.decode_sides(table, (30, 29), 3)
    assert isinstance(small.images.stored, PixelsOnDemand) and not isinstance(large.images.stored, PixelsOnDemand)
    counted, reads = counting(table)
    decode_cache.decode_sides(counted, (30, 29), 3)
    assert reads == []


def test_an_image_that_changes_between_two_passes_is_an_error(table):
    decode_cache.decode(table, 9, 3)
    shifted = replace(table, read=lambda _: table.read(0))
    with pytest.raises(DataError, match="was changed while it was decoded"):
        decode_cache.decode_sides(shifted, (9, 6), 3)


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_each_fit_has_squares_of_its_own(table, fit, monkeypatch, cache_folder):
    cropped, fitted = decode_cache.decode(table, 6, 3), decode_cache.decode(table, 6, 3, fit=fit)
    expected = np.stack([to_square(table.read(row), 6, 3, fit) for row in READABLE])
    assert np.array_equal(fitted.images.stored, expected) and not np.array_equal(cropped.images.stored, expected)
    assert np.array_equal(decode_cache.decode_and_forget(table, 6, 3, fit=fit).images.stored, expected)
    shutil.rmtree(cache_folder)
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "0")
    assert np.array_equal(decode_cache.decode(table, 6, 3, fit=fit).images.stored[np.arange(10)], expected)


def test_the_least_recently_used_make_room(table, monkeypatch, cache_folder):
    sides = (8, 9, 10)
    for age, side in zip((300, 100, 200), sides, strict=True):
        decode_cache.decode(table, side, 3)
        (entry,) = (path for path in cache_folder.iterdir() if time.time() - path.stat().st_mtime < 50)
        os.utime(entry, (time.time() - age,) * 2)
    by_use = [int(entry.about.split(" x ")[1]) for entry in entries()]
    assert by_use == [9, 10, 8]
    total = sum(entry.num_bytes for entry in entries())
    needed = len(table) * 3 * 12 * 12
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", str(total + needed - 1))
    decode_cache.decode(table, 12, 3)
    assert [int(entry.about.split(" x ")[1]) for entry in entries()] == [12, 9, 10]
    counted, reads = counting(table)
    decode_cache.decode(counted, 10, 3)
    assert reads == []
    assert [int(entry.about.split(" x ")[1]) for entry in entries()] == [10, 12, 9]
    assert len(prune(0)) == 3 and entry_names(cache_folder) == set()


def test_what_is_removed_while_it_is_read_stays_readable(table):
    decoded = decode_cache.decode(table, 6, 3)
    expected = np.array(decode_cache.decode_and_forget(table, 6, 3).images.stored)
    assert len(prune(0)) == 1
    assert np.array_equal(decoded.images.stored, expected)


@pytest.mark.parametrize("text", ["much", "20 GX", "-5", ""])
def test_a_budget_that_is_no_size_is_refused(table, monkeypatch, text):
    with pytest.raises(ConfigError, match=r"--prune = .* is not a size; write a number with a unit, such as 20GB"):
        parse_size(text, "--prune")
    if text:
        monkeypatch.setenv("IMGCLS_CACHE_BYTES", text)
        with pytest.raises(ConfigError, match=r"IMGCLS_CACHE_BYTES = .* is not a size"):
            decode_cache.decode(table, 6, 3)


# --- damage -----------------------------------------------------------------------------------------------------


def spoil(path):
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)


DAMAGES = {"spoiled": spoil, "cut": lambda path: os.truncate(path, path.stat().st_size - 1), "gone": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["images.npy", "digests.npy", "moments.npy", "kept.npy", "meta.json"])
def test_a_damaged_entry_is_made_again(table, cache_folder, name, damage):
    expected = decode_cache.decode(table, 6, 3)
    images, kept = np.array(expected.images.stored), expected.kept
    (entry,) = cache_folder.iterdir()
    DAMAGES[damage](entry / name)
    again = decode_cache.decode(table, 6, 3)
    assert np.array_equal(again.images.stored, images) and np.array_equal(again.kept, kept)
    counted, reads = counting(table)
    decode_cache.decode(counted, 6, 3)
    assert reads == []


def test_of_a_large_file_blocks_all_over_it_are_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(block_checksums, "BLOCK_BYTES", 10)
    monkeypatch.setattr(block_checksums, "CHECKED_BLOCKS", 3)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(95)))
    sums = block_checksums.block_checksums(path)
    assert sums[0] == 95 and len(sums) == 11
    for at, is_seen in ((0, True), (15, False), (45, True), (94, True)):
        contents = bytearray(range(95))
        contents[at] ^= 1
        path.write_bytes(contents)
        assert block_checksums.matches(path, sums) != is_seen


# --- images that change while a run reads them anew ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "can no longer be read: No such file"),
        (lambda path: write(path, noise(99)), "has changed"),
    ],
)
def test_an_image_that_goes_or_changes_is_named(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "0")
    dataset = load(write_classes(tmp_path, {"cat": 12, "dog": 12}))
    loader = Loader(dataset.train, 4, torch.device("cpu"))
    list(loader.in_order())
    change(tmp_path / dataset.train.keys[5])
    with pytest.raises(DataError, match=f"{tmp_path / dataset.train.keys[5]} {message}"):
        list(loader.in_order())


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_decoded_ahead_are_those_of_the_cache(tmp_path, monkeypatch, cache_folder, threads):
    root = write_classes(tmp_path, {"cat": 20, "dog": 20})
    augment = AugmentConfig(random_resized_crop=(0.5, 1.0))
    cached = load(root, augment)
    shutil.rmtree(cache_folder)
    monkeypatch.setenv("IMGCLS_CACHE_BYTES", "0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    anew = load(root, augment)
    assert (anew.fingerprint, anew.mean, anew.std, anew.leaks) == (
        cached.fingerprint,
        cached.mean,
        cached.std,
        cached.leaks,
    )
    assert anew.test.fingerprint() == cached.test.fingerprint()
    for split in ("train", "val"):
        one, other = (Loader(getattr(dataset, split), 4, torch.device("cpu")) for dataset in (cached, anew))
        assert isinstance(getattr(anew, split).stored, PixelsOnDemand)
        for ours, theirs in ((one.in_order(), other.in_order()), (one.shuffled(3, 1, 2), other.shuffled(3, 1, 2))):
            for left, right in zip(ours, theirs, strict=True):
                assert torch.equal(left.images, right.images) and torch.equal(left.labels, right.labels)


WITHOUT_HOME = """
import os
from imgcls.data.cache_folder import cache_folder
from imgcls.errors import DataError

for name in ("HOME", "IMGCLS_CACHE", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
os.setuid(54321)
try:
    cache_folder()
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process as a user without an entry in /etc/passwd")
@pytest.mark.slow
def test_a_user_without_a_home_is_told_to_name_a_folder():
    done = subprocess.run([sys.executable, "-c", WITHOUT_HOME], capture_output=True, text=True, check=True)
    assert "this user has no home folder" in done.stdout and "IMGCLS_CACHE" in done.stdout


def test_a_home_of_nobody_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("IMGCLS_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(DataError, match="IMGCLS_CACHE = '~nobody-of-this-name/cache' names a home folder"):
        where_the_cache_is()


@pytest.mark.parametrize(
    ("number", "path", "said"),
    [
        (errno.ENOSPC, "cache/x", "make room, or name another folder in IMGCLS_CACHE"),
        (errno.EACCES, "cache/x", "Permission denied; name another folder in IMGCLS_CACHE"),
        (errno.EROFS, "", "Read-only file system; name another folder"),
        (errno.EMFILE, "cache/x", ""),  # what this process may take is no matter of the folder
        (errno.ENOMEM, "", ""),
        (errno.ENOENT, "images/x.png", ""),  # nor is an image that has gone
    ],
)
def test_only_what_the_cache_folder_refuses_is_told_of_it(tmp_path, monkeypatch, number, path, said):
    monkeypatch.setenv("IMGCLS_CACHE", str(tmp_path / "cache"))
    raised = OSError(number, os.strerror(number), *([str(tmp_path / path)] if path else []))
    with pytest.raises((DataError, OSError)) as caught, writing():
        raise raised
    assert (said in str(caught.value)) if said else caught.value is raised
