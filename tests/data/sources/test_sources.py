"""Sources against readers that we did not write: ImageFolder, torchvision's data sets, scikit-learn, labels.csv."""

import csv
import gzip
import hashlib
import logging
import os
import pickle
import shutil
import struct
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.datasets.mnist import read_image_file, read_label_file

from imgcls.config.keys import DataConfig
from imgcls.data.sources import packaged
from imgcls.data.sources.packaged import FASHION_CLASSES, FASHION_FOLDER
from imgcls.errors import ConfigError, DataError, UnreadableImageError
from tests.data.make import noise, open_source, write, write_class, write_classes


def folder_source(path):
    return open_source(DataConfig(source="folder", path=str(path)), path)


def listing(table):
    return dict(zip(table.keys, table.labels.tolist(), strict=True))


def as_torchvision_reads(folder, root):
    reference = torchvision.datasets.ImageFolder(folder)
    return reference.classes, {os.path.relpath(path, root): target for path, target in reference.samples}


# --- a folder of images -----------------------------------------------------------------------------------------


def test_class_folders_alone_are_read_as_image_folder_reads_them(tmp_path):
    write_classes(tmp_path, {"zebra": 2, "Ant": 3, "10": 1, "9": 1})
    write_class(tmp_path / "zebra" / "far" / "away", [50, 51], suffix=".JPEG")
    write_class(tmp_path / "Ant", [60], suffix=".tiff")
    (tmp_path / "Ant" / "notes.txt").write_text("no image")
    (tmp_path / "README.md").write_text("no class")
    source = folder_source(tmp_path)
    classes, expected = as_torchvision_reads(tmp_path, tmp_path)
    assert source.given == {}
    assert list(source.class_names) == classes == ["10", "9", "Ant", "zebra"]
    assert listing(source.everything) == expected
    assert len(expected) == 10


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
@pytest.mark.parametrize("test", ["test", "testing"])
def test_split_folders_are_read_under_every_name(tmp_path, val, test):
    for name in ("train", val, test):
        write_classes(tmp_path / name, {"cat": 2, "dog": 1})
    source = folder_source(tmp_path)
    assert source.everything is None
    for split, folder in (("train", "train"), ("val", val), ("test", test)):
        classes, expected = as_torchvision_reads(tmp_path / folder, tmp_path)
        assert listing(source.given[split]) == expected
        assert list(source.class_names) == classes


@pytest.mark.parametrize(("there", "missing"), [("val", "test"), ("test", "val")])
def test_a_missing_split_is_never_replaced_by_the_other(tmp_path, there, missing):
    for name in ("train", there):
        write_classes(tmp_path / name, {"cat": 2, "dog": 2})
    source = folder_source(tmp_path)
    assert there in source.given and missing not in source.given


def test_tables_read_the_file_they_name(tmp_path):
    paths = write_class(tmp_path / "cat", [5, 3, 8]) + write_class(tmp_path / "dog", [1])
    table = folder_source(tmp_path).everything
    for row, (path, key) in enumerate(zip(sorted(paths), table.keys, strict=True)):
        assert str(path) == table.path(row) == str(tmp_path / key)
        assert np.array_equal(np.asarray(table.read(row)), noise(int(path.stem)))


def test_hidden_files_and_folders_are_no_class_and_no_image(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1, ".ipynb_checkpoints": 1})
    write_class(tmp_path / "cat" / ".ipynb_checkpoints", [7])
    write(tmp_path / "dog" / "0009.png", noise(9)).rename(tmp_path / "dog" / "._0009.png")
    source = folder_source(tmp_path)
    assert source.class_names == ("cat", "dog")
    assert source.everything.keys == ("cat/0000.png", "dog/0001.png")


def folder_with_links_out(tmp_path):
    """(root, elsewhere): a file, a folder and a class are links that lead out of root."""
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "root"
    write_classes(elsewhere, {"cat": 2, "more": 2, "dogs": 1})
    (root / "cat").mkdir(parents=True)
    (root / "cat" / "more").symlink_to(elsewhere / "more", target_is_directory=True)
    (root / "cat" / "one.png").symlink_to(elsewhere / "cat" / "0000.png")
    (root / "dog").symlink_to(elsewhere / "dogs", target_is_directory=True)
    return root, elsewhere


def test_links_are_followed_as_image_folder_does_where_that_is_allowed(tmp_path):
    root, _ = folder_with_links_out(tmp_path)
    classes, expected = as_torchvision_reads(root, root)
    source = open_source(DataConfig(path=str(root), follow_symlinks=True), root)
    assert list(source.class_names) == classes
    assert listing(source.everything) == expected
    assert len(expected) == 4


def test_links_out_of_the_folder_are_refused_with_what_they_lead_to(tmp_path):
    root, elsewhere = folder_with_links_out(tmp_path)
    with pytest.raises(DataError) as caught:
        folder_source(root)
    assert str(caught.value).splitlines() == [
        f"{root} has links that lead out of it:",
        f"  {root / 'cat' / 'more'} -> {elsewhere / 'more'}",
        f"  {root / 'cat' / 'one.png'} -> {elsewhere / 'cat' / '0000.png'}",
        f"  {root / 'dog'} -> {elsewhere / 'dogs'}",
        "copy what they lead to into the folder, or allow them with data.follow_symlinks = true",
    ]


@pytest.mark.parametrize("target", ["/dev/zero", "../../secret.png", "/etc/passwd", "../../root-not/0000.png"])
def test_a_chain_of_links_is_followed_to_its_end(tmp_path, target):
    root = write_classes(tmp_path / "root", {"cat": 1, "dog": 1})
    write_class(tmp_path / "root-not", [0])  # its name begins like the root's
    write(tmp_path / "secret.png", noise(0))
    (root / ".last.png").symlink_to(target if target.startswith("/") else target.removeprefix("../"))
    (root / "dog" / "middle").symlink_to("../.last.png")
    (root / "cat" / "first.png").symlink_to("../dog/middle")
    end = os.path.realpath(root / ".last.png")
    with pytest.raises(DataError, match=rf"{root}/cat/first\.png -> {end}\n"):
        folder_source(root)


def test_a_link_out_behind_a_link_that_stays_inside_is_found(tmp_path):
    root = write_classes(tmp_path / "root", {"train/cat": 1, "train/dog": 1, "pool": 1})
    write(tmp_path / "secret.png", noise(0))
    (root / "pool" / "deep").mkdir()
    (root / "pool" / "deep" / "secret.png").symlink_to(tmp_path / "secret.png")
    (root / "train" / "dog" / "all").symlink_to("../../pool", target_is_directory=True)
    with pytest.raises(DataError, match=r"deep/secret\.png -> .*secret\.png"):
        folder_source(root)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_folder_that_lies_elsewhere_is_refused(tmp_path, split):
    for name in ("train", "val", "test"):
        write_classes(tmp_path / "root" / name, {"cat": 1, "dog": 1})
    (tmp_path / "root" / split).rename(tmp_path / split)
    (tmp_path / "root" / split).symlink_to(tmp_path / split, target_is_directory=True)
    with pytest.raises(DataError, match=f"root/{split} -> {tmp_path / split}"):
        folder_source(tmp_path / "root")


def test_links_that_stay_inside_are_fine_and_so_is_a_root_that_is_a_link(tmp_path):
    root = write_classes(tmp_path / "root", {"cat": 1, "dog": 1})
    (root / "cat" / "again.png").symlink_to("../dog/0001.png")
    (root / "dog" / "cats").symlink_to(root / "cat", target_is_directory=True)
    (root / "notes.txt").symlink_to("/etc/hostname")  # no image, so nobody reads it
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    (root / "cat" / "round.png").symlink_to("round.png")
    expected = {"cat/0000.png": 0, "cat/again.png": 0, "cat/round.png": 0, "dog/0001.png": 1}
    expected |= {f"dog/cats/{name}.png": 1 for name in ("0000", "again", "round")}
    for where in (root, tmp_path / "link"):
        table = folder_source(where).everything
        assert listing(table) == expected
        with pytest.raises(UnreadableImageError, match="Too many levels of symbolic links"):
            table.read(table.keys.index("cat/round.png"))


def test_a_pipe_a_device_and_a_folder_called_like_images_keep_nobody_waiting(tmp_path):
    write_classes(tmp_path / "root", {"cat": 1, "dog": 1})
    os.mkfifo(tmp_path / "root" / "cat" / "pipe.png")
    (tmp_path / "root" / "cat" / "folder.png").mkdir()
    (tmp_path / "root" / "dog" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "root" / "dog" / "socket.png").symlink_to("../cat/pipe.png")
    table = open_source(DataConfig(path="root", follow_symlinks=True), tmp_path).everything
    assert table.keys == ("cat/0000.png", "cat/pipe.png", "dog/0001.png", "dog/socket.png", "dog/zero.png")
    for row in (1, 3, 4):
        with pytest.raises(UnreadableImageError, match="a pipe, a device or a folder, not a file"):
            table.read(row)


@pytest.mark.parametrize(
    "name", [b"bell\x07", b"two\nlines", b"\x1b[31mred", b"latin-\xe9", b"tab\t", "turned\u202e".encode(), b"\x7f"]
)
@pytest.mark.parametrize("place", ["class", "folder", "image", "class of train"])
def test_names_that_cannot_be_shown_are_refused(tmp_path, name, place):
    write_classes(tmp_path, {"train/cat": 1, "train/dog": 1} if "train" in place else {"cat": 1, "dog": 1})
    parents = {"class": b"", "class of train": b"train/", "folder": b"cat/", "image": b"cat/"}
    odd = tmp_path / os.fsdecode(parents[place] + name)
    write(tmp_path / "x.png", noise(5))
    if place != "image":
        odd.mkdir()
    (tmp_path / "x.png").rename(f"{odd}.png" if place == "image" else odd / "x.png")
    with pytest.raises(DataError, match="control characters, or not UTF-8; rename it") as caught:
        folder_source(tmp_path)
    message = str(caught.value)
    assert message.count("\n") == 1 and message.isascii()
    assert message.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "=cmd|' 'C'!A0", "+2+cmd|' 'C'!A0", "-2+HYPERLINK(A1)"])
def test_a_class_that_a_spreadsheet_would_run_is_refused(tmp_path, name):
    write_classes(tmp_path, {name: 1, "dog": 1})
    with pytest.raises(DataError, match="a spreadsheet would compute it"):
        folder_source(tmp_path)


def test_other_names_are_taken_as_they_are(tmp_path):
    names = [
        "-1",
        "+1",
        "+ve",
        '"quoted"',
        "it's",
        "`x`",
        "<b>bold",
        "$\\alpha$",
        "a,b;c",
        "é漢😀",
        "x" * 200,
        "50%",
        "#1",
    ]
    write_classes(tmp_path, dict.fromkeys(names, 1))
    assert folder_source(tmp_path).class_names == tuple(sorted(names))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("~nobody-of-this-name/x", "home"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "embedded null byte"),
        ("loop/x", "Too many levels of symbolic links"),
    ],
)
def test_a_path_that_cannot_be_one_is_refused_by_its_key(tmp_path, path, reason):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigError, match=f"^data.path = .*{reason}.*; name another place$"):
        open_source(DataConfig(path=path), tmp_path)


def test_a_link_back_to_a_folder_above_is_not_walked_in_circles(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert folder_source(tmp_path).everything.keys == ("cat/0000.png", "dog/0001.png")


def test_a_dangling_link_is_an_unreadable_image(tmp_path):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    table = folder_source(tmp_path).everything
    with pytest.raises(UnreadableImageError, match="No such file"):
        table.read(table.keys.index("cat/gone.png"))


def test_one_error_names_every_empty_class_and_every_strange_class(tmp_path):
    write_classes(tmp_path / "train", {"cat": 1, "dog": 1})
    write_classes(tmp_path / "val", {"cat": 1, "dogs": 1})
    write_classes(tmp_path / "test", {"Cat": 1, "dog": 1})
    (tmp_path / "train" / "eel").mkdir()
    (tmp_path / "val" / "dog").mkdir()
    with pytest.raises(DataError) as caught:
        folder_source(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path} cannot be used:"
    assert {line.strip().split(":")[0] for line in lines[1:]} == {
        str(tmp_path / "train" / "eel"),
        str(tmp_path / "val" / "dogs"),
        str(tmp_path / "val" / "dog"),
        str(tmp_path / "test" / "Cat"),
    }


def test_val_may_lack_a_class_folder_but_not_hold_an_empty_one(tmp_path):
    write_classes(tmp_path / "train", {"cat": 1, "dog": 1})
    write_classes(tmp_path / "val", {"dog": 1})
    assert listing(folder_source(tmp_path).given["val"]) == {"val/dog/0000.png": 1}


def test_a_folder_that_cannot_be_listed_is_an_offender_and_not_left_out(tmp_path, monkeypatch):
    write_classes(tmp_path, {"cat": 1, "dog": 1})
    locked = tmp_path / "cat" / "locked"
    write_class(locked, [9])
    scandir = os.scandir

    def refuse(path="."):
        if os.fspath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(locked))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root, as which tests may run, may list any folder
    with pytest.raises(DataError, match=f"{locked}: Permission denied"):
        folder_source(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: (root / ".hidden").mkdir(), "no class folders"),
        (lambda root: write(root / "image.png", noise(0)), "no class folders"),
        (lambda root: (root / "cat").mkdir(), "no image in this class"),
        (lambda root: (root / "train").mkdir(), "no class folders; expected train/CLASS/IMAGE.png"),
        (lambda root: write_classes(root / "test", {"cat": 1}), "test/ but no train/"),
        (lambda root: [write_classes(root / n, {"cat": 1}) for n in ("train", "val", "valid")], "val/ and valid/"),
    ],
)
def test_a_folder_without_what_is_needed_says_so(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        folder_source(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_folder_and_a_missing_path_say_so(tmp_path):
    with pytest.raises(DataError, match=f"the folder {tmp_path / 'nowhere'} does not exist"):
        folder_source(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"needs data\.path"):
        open_source(DataConfig(source="folder"), tmp_path)


def test_a_relative_path_starts_at_the_root(tmp_path):
    write_classes(tmp_path / "pets", {"cat": 1, "dog": 1})
    assert len(open_source(DataConfig(source="folder", path="pets"), tmp_path).everything) == 2


def test_an_unknown_source_lists_the_known_ones(tmp_path):
    with pytest.raises(
        DataError, match="'flodder' is unknown; use folder, elpv, digits, fashion-mnist or torchvision:"
    ):
        open_source(DataConfig(source="flodder"), tmp_path)
    with pytest.raises(DataError, match=r"torchvision:NAME; did you mean 'digits'\?$"):
        open_source(DataConfig(source="digit"), tmp_path)


def test_the_stamp_changes_with_the_files_and_not_with_their_place(tmp_path):
    root = write_classes(tmp_path / "one", {"cat": 1, "dog": 1})
    path = root / "cat" / "0000.png"
    stamps = [folder_source(root).everything.stamp]
    assert folder_source(root).everything.stamp == stamps[0]
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))  # same name, same size …
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # … and the old time, as `cp -p` and `tar` set it
    stamps.append(folder_source(root).everything.stamp)
    shutil.copytree(root, tmp_path / "two")
    stamps.append(folder_source(tmp_path / "two").everything.stamp)
    (tmp_path / "two" / "cat" / "0000.png").rename(tmp_path / "two" / "cat" / "0001.png")
    stamps.append(folder_source(tmp_path / "two").everything.stamp)
    assert stamps[1] == stamps[2] and len(set(stamps)) == 3


def test_files_are_read_once_for_their_stamp_and_where_nothing_can_be_kept_each_time(tmp_path, cache_folder):
    root = write_classes(tmp_path / "one", {"cat": 1, "dog": 1})
    stamp = folder_source(root).everything.stamp
    (kept,) = cache_folder.glob("content-*.txt")
    kept.write_text("remembered")
    assert folder_source(root).everything.stamp == "remembered"
    kept.unlink()
    cache_folder.rmdir()
    cache_folder.write_text("not a folder")
    with pytest.raises(DataError, match="cannot be written"):
        folder_source(root)
    cache_folder.unlink()
    assert folder_source(root).everything.stamp == stamp


def test_a_subset_reads_its_own_rows(tmp_path):
    write_class(tmp_path / "cat", range(6))
    write_class(tmp_path / "dog", range(6, 8))
    subset = folder_source(tmp_path).everything.rows([7, 2])
    assert subset.keys == ("dog/0007.png", "cat/0002.png") and subset.labels.tolist() == [1, 0]
    assert [np.array_equal(np.asarray(subset.read(i)), noise(seed)) for i, seed in enumerate((7, 2))] == [True, True]
    assert subset.path(1) == str(tmp_path / "cat" / "0002.png")
    assert subset.rows([1]).keys == ("cat/0002.png",)


# --- data sets that packages bring ------------------------------------------------------------------------------


def test_solar_cells_are_those_that_labels_csv_names(tmp_path):
    """Half and more is defective: the boundary of the paper is 0.5."""
    import elpv_dataset as package

    folder = Path(package.__file__).parent / "data"
    with (folder / "labels.csv").open() as file:
        rows = [[field for field in row if field] for row in csv.reader(file, delimiter=" ") if row]
    source = open_source(DataConfig(source="elpv"), tmp_path)
    table = source.everything
    assert source.class_names == ("functional", "defective") and (source.channels, source.native_side) == (1, 300)
    assert len(table) == 2624
    assert np.bincount(table.labels).tolist() == [1803, 821]
    assert table.keys == tuple(row[0] for row in rows)
    assert table.labels.tolist() == [int(float(row[1]) >= 0.5) for row in rows]
    for row in (0, 1000, 2623):
        assert table.path(row) == str(folder / rows[row][0])
        assert np.array_equal(np.asarray(table.read(row)), np.asarray(Image.open(folder / rows[row][0])))


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table = open_source(DataConfig(source="digits"), FASHION_FOLDER).everything
    assert len(table) == 1797 and np.array_equal(table.labels, bunch.target)
    for row in (0, 900, 1796):  # 17 levels, 0 to 16, spread over 0 to 255
        assert np.array_equal(np.asarray(table.read(row)), np.rint(bunch.images[row] * 255 / 16))


@pytest.mark.skipif(not FASHION_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
@pytest.mark.parametrize(("split", "stem", "size"), [("train", "train", 60000), ("test", "t10k", 10000)])
def test_fashion_mnist_is_what_torchvision_reads(tmp_path, split, stem, size):
    files = {}
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        files[kind] = tmp_path / kind
        files[kind].write_bytes(gzip.decompress((FASHION_FOLDER / f"{stem}-{kind}.gz").read_bytes()))
    images, labels = read_image_file(files["images-idx3-ubyte"]), read_label_file(files["labels-idx1-ubyte"])
    source = open_source(DataConfig(source="fashion-mnist"), tmp_path)
    table = source.given[split]
    assert list(source.class_names) == torchvision.datasets.FashionMNIST.classes
    assert (source.channels, source.native_side, sorted(source.given)) == (1, 28, ["test", "train"])
    assert len(table) == size and np.array_equal(table.labels, labels)
    rng = np.random.default_rng(0)
    for row in [0, size - 1, *rng.integers(0, size, 200).tolist()]:
        assert np.array_equal(np.asarray(table.read(row)), images[row])


# --- torchvision's data sets, from files written here -----------------------------------------------------------


def idx(array):
    """An IDX file: two zeros, type, number of dimensions, shape, big-endian values."""
    kinds = {"uint8": 8, "int32": 12}
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kinds[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(folder, names, num, *, labels=None, num_classes=10):
    """Images and labels in two IDX files; returns both."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(num).integers(0, 256, (num, 28, 28), np.uint8)
    labels = (np.arange(num) % num_classes).astype(np.uint8) if labels is None else labels
    for name, array in zip(names, (images, labels), strict=True):
        (folder / name).write_bytes(idx(array))
    return images, labels


def write_mnist(root, name):
    """The four files that MNIST and its kin read; returns the images and labels of train and of test."""
    raw = root / name / "raw"
    train = write_idx(raw, ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), 40)
    return train, write_idx(raw, ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"), 20)


def torchvision_source(name, root):
    return open_source(DataConfig(source=f"torchvision:{name}", path=str(root)), root)


def pixels(table):
    return np.stack([np.asarray(table.read(row)) for row in range(len(table))])


def test_mnist_keeps_its_own_test_split(tmp_path):
    train, test = write_mnist(tmp_path, "MNIST")
    source = torchvision_source("MNIST", tmp_path)
    assert source.everything is None and sorted(source.given) == ["test", "train"]
    assert source.class_names == tuple(torchvision.datasets.MNIST.classes)
    assert (source.channels, source.native_side) == (1, 28)
    for split, (images, labels) in (("train", train), ("test", test)):
        assert np.array_equal(pixels(source.given[split]), images)
        assert np.array_equal(source.given[split].labels, labels)


def test_cifar10_from_its_pickles(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = ["data_batch_1", "data_batch_2", "test_batch"]
    batches = [{"data": rng.integers(0, 256, (10, 3072), np.uint8), "labels": list(range(10))} for _ in names]
    classes = [f"class {i}" for i in range(10)]
    md5 = {}
    for name, content in [*zip(names, batches, strict=True), ("batches.meta", {"label_names": classes})]:
        (folder / name).write_bytes(pickle.dumps(content))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[name, md5[name]] for name in names[:2]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": md5["batches.meta"]})
    source = torchvision_source("CIFAR10", tmp_path)
    assert source.class_names == tuple(classes) and (source.channels, source.native_side) == (3, 32)
    assert len(source.given["train"]) == 20 and len(source.given["test"]) == 10
    assert source.given["test"].labels.tolist() == list(range(10))
    # A row is 1,024 bytes of red, then green, then blue (cs.toronto.edu/~kriz/cifar.html).
    expected = batches[2]["data"].reshape(10, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(pixels(source.given["test"]), expected)


def test_fashion_mnist_is_the_same_from_debian_and_from_torchvision(tmp_path, monkeypatch):
    write_mnist(tmp_path, "FashionMNIST")
    debian = tmp_path / "debian"
    debian.mkdir()
    for file in (tmp_path / "FashionMNIST" / "raw").iterdir():
        (debian / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    found = []
    for folder in (debian, tmp_path / "nowhere"):
        monkeypatch.setattr(packaged, "FASHION_FOLDER", folder)
        found.append(open_source(DataConfig(source="fashion-mnist", path=str(tmp_path)), tmp_path))
    one, other = found
    assert one.class_names == other.class_names == FASHION_CLASSES
    assert (one.channels, one.native_side) == (other.channels, other.native_side) == (1, 28)
    for split in ("train", "test"):
        assert listing(one.given[split]) == listing(other.given[split])
        assert np.array_equal(pixels(one.given[split]), pixels(other.given[split]))


def test_a_broken_fashion_mnist_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "FASHION_FOLDER", tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    for content in (gzip.compress(idx(np.zeros((2, 28, 28), np.uint8)))[:-9], gzip.compress(b"\0"), b"no gzip"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=str(path)):
            open_source(DataConfig(source="fashion-mnist"), tmp_path)


def test_emnist_and_qmnist_which_hide_their_arguments(tmp_path):
    raw = tmp_path / "EMNIST" / "raw"
    for split, num in (("train", 94), ("test", 47)):
        write_idx(raw, [f"emnist-balanced-{split}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")], num,
                  num_classes=47)  # fmt: skip
    source = torchvision_source("EMNIST", tmp_path)
    assert len(source.class_names) == 47 and [len(source.given[split]) for split in ("train", "test")] == [94, 47]

    raw = tmp_path / "QMNIST" / "raw"
    for split, num in (("train", 30), ("test", 10)):
        labels = np.zeros((num, 8), np.int32)
        labels[:, 0] = np.arange(num) % 10
        write_idx(raw, (f"qmnist-{split}-images-idx3-ubyte", f"qmnist-{split}-labels-idx2-int"), num, labels=labels)
    source = torchvision_source("QMNIST", tmp_path)
    assert source.given["test"].labels.tolist() == list(range(10))


def test_a_val_split_that_is_called_valid_is_val(tmp_path):
    for name, size in (("train", 3), ("valid", 2), ("test", 1)):
        write_classes(tmp_path / "country211" / name, {"AD": size, "AE": size})
    source = torchvision_source("Country211", tmp_path)
    assert {split: len(table) for split, table in source.given.items()} == {"train": 6, "val": 4, "test": 2}
    assert source.channels == 3 and source.native_side is None


def test_a_data_set_without_test_has_none(tmp_path):
    """ImageNet brings train and val; its val must not become test."""
    wnids = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    torch.save((wnids, []), tmp_path / "meta.bin")
    for name in ("train", "val"):
        write_classes(tmp_path / name, dict.fromkeys(wnids, 2))
    source = torchvision_source("ImageNet", tmp_path)
    assert sorted(source.given) == ["train", "val"]
    assert source.class_names == ("tench/Tinca tinca", "goldfish")


def test_a_data_set_that_knows_trainval_alone(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    for split, seeds in (("trainval", (1, 2)), ("test", (3,))):
        lines = [f"{breed}_{seed} {label} 1 1\n" for label, breed in ((1, "Bengal"), (2, "pug")) for seed in seeds]
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))
    for seed in (1, 2, 3):
        for breed in ("Bengal", "pug"):
            write(base / "images" / f"{breed}_{seed}.jpg", noise(seed))
    source = torchvision_source("OxfordIIITPet", tmp_path)
    assert {split: len(table) for split, table in source.given.items()} == {"train": 4, "test": 2}


def test_a_data_set_without_any_split_is_one_table(tmp_path):
    write_classes(tmp_path / "eurosat" / "2750", {"Forest": 3, "River": 2})
    source = torchvision_source("EuroSAT", tmp_path)
    assert source.given == {} and source.class_names == ("Forest", "River")
    assert source.everything.labels.tolist() == [0, 0, 0, 1, 1]
    assert np.array_equal(np.asarray(source.everything.read(4)), noise(4))


def test_an_unreadable_file_of_a_torchvision_data_set_is_named(tmp_path):
    root = write_classes(tmp_path / "eurosat" / "2750", {"Forest": 3, "River": 2})
    (root / "River" / "0004.png").write_bytes(b"")
    table = torchvision_source("EuroSAT", tmp_path).everything
    with pytest.raises(UnreadableImageError):
        table.read(4)
    assert table.path(4) == "torchvision:EuroSAT/4"


def test_other_files_under_the_same_root_give_another_stamp(tmp_path):
    write_mnist(tmp_path, "MNIST")
    root = write_classes(tmp_path / "eurosat" / "2750", {"Forest": 2, "River": 2})
    before = [torchvision_source(name, tmp_path) for name in ("MNIST", "EuroSAT")]
    write_idx(tmp_path / "MNIST" / "raw", ("train-images-idx3-ubyte", "spare-labels"), 40)
    content = np.random.default_rng(1).integers(0, 256, (40, 28, 28), np.uint8)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(idx(content))
    write(root / "Forest" / "0000.png", noise(99))
    after = [torchvision_source(name, tmp_path) for name in ("MNIST", "EuroSAT")]
    assert before[0].given["train"].stamp != after[0].given["train"].stamp
    assert before[1].everything.stamp != after[1].everything.stamp


def test_test_classes_that_train_lacks_are_refused(tmp_path):
    write_classes(tmp_path / "country211" / "train", {"AD": 1, "AE": 1})
    write_classes(tmp_path / "country211" / "test", {"AD": 1, "ZW": 1})
    write_classes(tmp_path / "country211" / "valid", {"AD": 1, "AE": 1})
    with pytest.raises(DataError, match="its classes in test are not those in train"):
        torchvision_source("Country211", tmp_path)


@pytest.mark.parametrize("name", ["CIFAR11", "ImageFolder", "wrap_dataset_for_transforms_v2", "__name__"])
def test_no_data_set_of_that_name(tmp_path, name):
    with pytest.raises(DataError, match="no data set"):
        torchvision_source(name, tmp_path)


@pytest.mark.parametrize("name", ["PhotoTour", "CocoDetection", "UCF101"])
def test_a_data_set_that_needs_more_than_a_name(tmp_path, name):
    with pytest.raises(DataError, match=f"torchvision:{name} needs more than a name"):
        torchvision_source(name, tmp_path)


def test_without_a_network_the_error_says_where_files_belong(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=f"CIFAR10 under {tmp_path}: .*no network.*put its files there by hand"):
        torchvision_source("CIFAR10", tmp_path)


class Attributes(torch.utils.data.Dataset):
    """Like CelebA: an image has many labels, or in test none."""

    def __init__(self, split="train"):
        if split not in ("train", "test"):
            raise ValueError(f"Unknown value '{split}' for argument split.")
        self.split = split

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return Image.fromarray(noise(index)), {"many": torch.zeros(40), "one": index % 2, "none": None}[self.kind]


@pytest.mark.parametrize(("train", "test"), [("many", "one"), ("one", "none")])
def test_images_without_one_class_each(tmp_path, monkeypatch, caplog, train, test):
    kinds = {"train": train, "test": test}
    monkeypatch.setattr(Attributes, "kind", property(lambda self: kinds[self.split]), raising=False)
    monkeypatch.setattr(torchvision.datasets, "Attributes", Attributes, raising=False)
    if train == "many":
        with pytest.raises(DataError, match="does not give each image one class"):
            torchvision_source("Attributes", tmp_path)
    else:
        with caplog.at_level(logging.WARNING):
            source = torchvision_source("Attributes", tmp_path)
        assert sorted(source.given) == ["train"] and "test has no labels and is left out" in caplog.text


def test_a_path_that_the_source_does_not_use_is_said(tmp_path, caplog):
    open_source(DataConfig(source="digits", path="photographs"), tmp_path)
    assert "data.path = 'photographs' is not used" in caplog.text
    caplog.clear()
    open_source(DataConfig(source="digits"), tmp_path)
    assert not caplog.text
