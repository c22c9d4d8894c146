"""Files of a data set: hidden ones, links, what is left out; and what a cache is keyed by."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from denature.data import DataConfig, load
from denature.data.listing import IMAGE_SUFFIXES, list_folder
from tests.heard import Heard
from tests.layouts import images, pictures, png, read, shards, sizes

HIDDEN = ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png")
HIDDEN_FOLDERS = (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git")


def test_links_to_links_are_listed_once(tmp_path: Path) -> None:
    """Each level would double them."""
    here = tmp_path / "0"
    here.mkdir()
    (here / "x.png").write_bytes(b"x")
    for level in range(1, 40):
        above = tmp_path / str(level)
        above.mkdir()
        for name in ("a", "b"):
            (above / name).symlink_to(here)
        here = above
    listed, left_out = list_folder(here, None)
    assert len(list(listed.everything())) == 1
    assert left_out["repeated link"] == 39


def test_hidden_files_and_folders_are_left_out_everywhere_and_counted(tmp_path: Path) -> None:
    root = images(tmp_path, train__a=3, train__b=3, test__a=1, test__b=1)
    places = (root, root / "train", root / "train" / "a")
    for place in places:
        for name in HIDDEN:
            (place / name).write_bytes(b"no image")
        for name in HIDDEN_FOLDERS:
            images(place / name, a=1)
            (place / name / "0.png").write_bytes(b"no image")
    found = read(root)
    assert (sizes(found), found.classes) == ((6, 0, 2), ("a", "b"))
    assert found.left_out == {"hidden": 3 * (len(HIDDEN) + len(HIDDEN_FOLDERS))}


def test_hidden_shards_are_left_out_and_counted(tmp_path: Path) -> None:
    shards(tmp_path, {"train.parquet": 4, "test.parquet": 2, ".cache/train.parquet": 4})
    (tmp_path / "._train.parquet").write_bytes(b"no parquet")
    found = read(tmp_path)
    assert (sizes(found), found.left_out) == ((4, 0, 2), {"hidden": 2})


def test_hidden_shards_make_no_folder_of_images_one_of_shards(tmp_path: Path) -> None:
    images(tmp_path, a=4, b=4)
    shards(tmp_path / ".cache", {"train.parquet": 4})
    assert read(tmp_path, holdout=0.5).classes == ("a", "b")


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_of_images_is_read(tmp_path: Path, suffix: str) -> None:
    root = images(tmp_path, a=2, b=2)
    (root / "a" / "0.png").rename(root / "a" / f"9{suffix.upper()}")
    assert len(read(root, holdout=0.5).train) == 2


def test_broken_links_and_other_files_are_left_out_by_reason(tmp_path: Path) -> None:
    root = images(tmp_path, a=3, b=3)
    (root / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    os.mkfifo(root / "a" / "pipe.png")
    (root / "b" / "notes.txt").write_text("hello")
    (root / "b" / "photo.heic").write_bytes(b"")
    (root / "LICENSE").write_text("free")
    (root / "0.png").write_bytes(png(0))
    found = read(root, holdout=0.5)
    assert (sizes(found), found.classes) == ((3, 0, 3), ("a", "b"))
    assert found.describe()["left_out"] == {
        "broken link": 3,
        "no regular file": 1,
        ".txt": 1,
        ".heic": 1,
        "no suffix": 1,
        "image outside of class folders": 1,
    }


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    elsewhere = images(tmp_path / "elsewhere", a=3, b=2)
    root = images(tmp_path / "data", c=1)
    (root / "a").symlink_to(elsewhere / "a")
    (root / "c" / "1.png").symlink_to(elsewhere / "b" / "0.png")
    found = read(root, holdout=0.4)
    assert found.classes == ("a", "c")
    assert found.train.labels.tolist() == [0, 0, 0, 1, 1]
    (tmp_path / "link").symlink_to(root)
    assert read(tmp_path / "link", holdout=0.4).digest == found.digest


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    root = images(tmp_path, a=3, b=3)
    (root / "a" / "again").symlink_to(root)
    (root / "b" / "here").symlink_to(root / "b")
    found = read(root, holdout=0.5)
    assert (sizes(found), found.classes) == ((3, 0, 3), ("a", "b"))
    assert found.left_out == {"circular link": 2}


def test_a_folder_that_links_to_its_neighbour_ends(tmp_path: Path) -> None:
    root = images(tmp_path, a=1, b=1)
    (root / "a" / "to").symlink_to(root / "b")
    (root / "b" / "to").symlink_to(root / "a")
    listed, left_out = list_folder(root, IMAGE_SUFFIXES)
    assert (listed.total, left_out) == (4, {"circular link": 2})


def test_what_is_left_out_is_said_at_every_load(tmp_path: Path) -> None:
    root = images(tmp_path, a=2, b=2)
    (root / "a" / ".x.png").write_bytes(b"")
    (root / "b" / "notes.txt").write_text("hello")
    for _ in range(2):
        lines = Heard()
        load(DataConfig(source=str(root), holdout=0.5), progress=lines)
        assert lines.lines == [f"{root}: left out 1 hidden, 1 .txt"]


def test_classes_that_no_training_image_is_of_are_told(tmp_path: Path) -> None:
    """Labels from 1 in one file and from 0 in the other: all answers would be off by one."""
    for split, first in (("train", 1), ("test", 0)):
        cells = [{"bytes": png(number), "path": None} for number in range(4)]
        columns = {"image": cells, "label": [first, first + 1, first, first + 1]}
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    lines = Heard()
    load(str(tmp_path), progress=lines)
    assert lines.lines == [f"{tmp_path}: no training image is of class 0; 2 test images are."]


def test_a_folder_of_one_class_is_told(tmp_path: Path) -> None:
    root = images(tmp_path, img_align_celeba=4)
    (root / "list_attr.csv").write_text("0.png,1")
    lines = Heard()
    load(DataConfig(source=str(root), holdout=0.5), progress=lines)
    assert lines.lines[-1] == f"{root}: all images are of one class, img_align_celeba"


def test_a_folder_without_images_says_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.heic").write_bytes(b"")
    with pytest.raises(Exception, match=r"no image.*found 1 \.heic"):
        read(tmp_path)


# The cache.


def same_time(*files: Path) -> None:
    """Files of one time, as archives unpack them."""
    for file in files:
        os.utime(file, (1_000_000_000, 1_000_000_000))


@pytest.mark.parametrize("change", ["came", "went"])
def test_an_empty_class_folder_is_part_of_the_key(tmp_path: Path, change: str) -> None:
    root = images(tmp_path, b=3, c=3)
    if change == "went":
        (root / "a").mkdir()
    before = read(root, holdout=0.5)
    if change == "went":
        (root / "a").rmdir()
    else:
        (root / "a").mkdir()
    after = read(root, holdout=0.5)
    with_a, without = (after, before) if change == "came" else (before, after)
    assert (with_a.classes, without.classes) == (("a", "b", "c"), ("b", "c"))
    assert with_a.train.labels.tolist() == [1, 1, 1, 2, 2, 2]
    assert without.train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_link_that_points_elsewhere_is_part_of_the_key(tmp_path: Path) -> None:
    for name, value in (("old", 7), ("new", 9)):
        file = tmp_path / name / "a.npz"
        file.parent.mkdir()
        pixels = np.full((4, 8, 8), value, np.uint8)
        np.savez(file, x_train=pixels, y_train=np.arange(4) % 2)
        same_time(file)
    (tmp_path / "data").symlink_to("old")
    assert read(tmp_path / "data" / "a.npz", holdout=0.5).train.images.unique().tolist() == [7]
    (tmp_path / "data").unlink()
    (tmp_path / "data").symlink_to("new")
    assert read(tmp_path / "data" / "a.npz", holdout=0.5).train.images.unique().tolist() == [9]


def test_pictures_that_rows_name_are_part_of_the_key(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    cells = [{"bytes": None, "path": f"{number}.png"} for number in range(4)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({"image": pa.array(cells, kind), "label": [0, 1] * 2}), tmp_path / "train.parquet"
    )
    before = read(tmp_path, holdout=0.5)
    (tmp_path / "0.png").write_bytes(png(99) + b" ")
    assert read(tmp_path, holdout=0.5).digest != before.digest


def test_a_class_list_is_part_of_the_key_whatever_its_time(tmp_path: Path) -> None:
    shards(tmp_path, {"train.parquet": 4})
    listed = tmp_path / "classes.txt"
    for names in (("ant", "bee"), ("cat", "dog")):
        listed.write_text("\n".join(names))
        same_time(listed)
        assert read(tmp_path, holdout=0.5).classes == names


def test_a_split_that_is_renamed_is_read_anew(tmp_path: Path) -> None:
    root = images(tmp_path, train__a=3, train__b=3, val__a=2, test__b=2)
    assert sizes(read(root)) == (6, 2, 2)
    (root / "val").rename(root / "spare")
    shutil.rmtree(root / "test")
    (root / "spare").rename(root / "test")
    found = read(root)
    assert (sizes(found), found.test_origin) == ((6, 0, 2), "test")


def test_class_folders_that_change_places_are_read_anew(tmp_path: Path) -> None:
    """Files of equal size and time: uncompressed pictures out of an archive."""
    for place, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("L", (8, 8), 100 * place).save(tmp_path / name / f"{number}.bmp")
            same_time(tmp_path / name / f"{number}.bmp")
    assert read(tmp_path, holdout=0.34).train.images[:2].unique().tolist() == [0]
    (tmp_path / "a").rename(tmp_path / "between")
    (tmp_path / "b").rename(tmp_path / "a")
    (tmp_path / "between").rename(tmp_path / "b")
    assert read(tmp_path, holdout=0.34).train.images[:2].unique().tolist() == [100]


def test_a_file_that_is_written_over_is_read_anew_whatever_its_time(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    for value in (7, 9):
        made = tmp_path / "made.npz"
        pixels = np.full((4, 8, 8), value, np.uint8)
        np.savez(made, x_train=pixels, y_train=np.arange(4) % 2)
        with open(file, "r+b" if file.exists() else "wb") as over:  # the same file
            over.write(made.read_bytes())
        same_time(file)
        assert read(file, holdout=0.5).train.images.unique().tolist() == [value]


def spoil(kind: str, folder: Path) -> None:
    """Damage what the cache holds of one split."""
    file = folder / {"images": "train.images", "labels": "test.labels.npy"}.get(kind[4:], kind[4:])
    if kind.startswith("cut "):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind.startswith("odd "):
        file.write_bytes(b"x" * file.stat().st_size)
    else:
        file.unlink()


SPOILT = [f"{how} {what}" for how in ("cut", "odd", "off") for what in ("meta.json", "labels")]


@pytest.mark.parametrize("kind", [*SPOILT, "cut images", "off images", "cut train.paths.json"])
def test_what_is_damaged_in_the_cache_is_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("DENATURE_CACHE", str(tmp_path / "cache"))
    root = images(tmp_path / "data", train__a=3, train__b=3, test__a=1, test__b=1)
    before = read(root)
    pixels = before.train.images.clone()
    [folder] = (tmp_path / "cache" / "data").iterdir()
    spoil(kind, folder)
    for _ in range(2):
        after = read(root)
        assert (sizes(after), after.digest) == (sizes(before), before.digest)
        assert (after.train.images == pixels).all()
        assert after.test.labels.tolist() == [0, 1]
        assert [file.name for file in (tmp_path / "cache" / "data").iterdir()] == [folder.name]


# Names.


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
@pytest.mark.parametrize("coding", ["utf-8:strict", "ascii:strict", "cp1252:strict"])
def test_names_in_no_encoding_can_be_printed_anywhere(tmp_path: Path, coding: str) -> None:
    root = os.fsdecode(os.fsencode(tmp_path) + b"/d\xe9")
    pictures(Path(root), {os.fsdecode(b"caf\xe9"): 4, "日本": 4})
    script = f"""import sys
from denature.__main__ import main
for words in [{root!r}], [{root!r}, "--json"], [{root + "no"!r}]:
    sys.argv[1:] = ["data", *words, "--holdout", "0.5"]
    try:
        main()
    except SystemExit as done:
        print("ended with", done.code, file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONIOENCODING": coding}
    done = subprocess.run(
        [sys.executable, "-c", script.encode("ascii", "backslashreplace")],
        capture_output=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout
    *_, said, last = lines = done.stderr.splitlines()
    assert [int(line[-1:]) for line in lines if line.startswith(b"ended with")] == [0, 0, 1]
    assert said.startswith(b"denature: There is no file or folder")
    assert last == b"ended with 1"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_a_class_whose_folder_is_no_unicode_is_spelt_out(tmp_path: Path) -> None:
    pictures(tmp_path, {os.fsdecode(b"caf\xe9"): 4, "tea": 4})
    assert read(tmp_path, holdout=0.5).classes == ("caf\\xe9", "tea")
