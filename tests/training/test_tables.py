"""Lists of files and labels, and which images are held out."""

import os
import sys

import numpy as np
import PIL.Image
import pytest

from keraslight.cli import _common
from keraslight.errors import DataError, InvalidArgumentError, MissingDependencyError
from keraslight.preprocessing import Preprocessing
from keraslight.training import load_directory, load_table, load_test

SPEC = Preprocessing(size=(10, 10), mean=(0.5,) * 3, std=(0.5,) * 3)
NAMES = [f"{label}{index}.png" for label in "ab" for index in range(5)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Ten images, whose gray is ten times their index."""
    root = tmp_path_factory.mktemp("photos")
    for index, name in enumerate(NAMES):
        PIL.Image.new("RGB", (12, 10), (10 * index,) * 3).save(root / name)
    return root


@pytest.fixture
def table(photos, tmp_path):
    """A function that writes a table next to the images' folder and loads it."""
    link = tmp_path / "images"
    link.symlink_to(photos)

    def load(header, rows, name="list.csv", separator="\n", **options):
        lines = [header, *rows] if isinstance(rows, list) else [header, *(rows(name) for name in NAMES)]
        (tmp_path / name).write_text(separator.join(lines), "utf-8", newline="")
        return load_table(tmp_path / name, SPEC, **options)

    return load


def grays(data):
    return (data.pixels[:, 0, 0, 0] / 10).astype(int).tolist()


@pytest.mark.parametrize("header", ["file,label", "filename,label", "file_name,label", "path,label", "image,label"])
def test_files_and_labels(table, header):
    data = table(header, lambda name: f"images/{name},class {name[0]}")
    assert data.labels == ("class a", "class b")
    assert grays(data) == list(range(10))
    assert data.targets.tolist() == [0] * 5 + [1] * 5
    assert (data.train_count, data.validation_count) == (8, 2)
    assert data.weights is None


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_as_programs_write_it(table, mark, end):
    rows = [f'"images/{name}"{mark}"{name[0]}, or ""{name[0]}"""' for name in NAMES]
    data = table(f"\ufefffile{mark}label", [*rows, ""], separator=end)
    assert data.labels == ('a, or "a"', 'b, or "b"')


def test_absolute_paths_and_names_that_are_not_utf8(photos, tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(odd, "wb") as file:
        file.write((photos / NAMES[0]).read_bytes())
    rows = [os.fsencode(photos / name) + b"," + name[:1].encode() for name in NAMES[1:]]
    (tmp_path / "list.csv").write_bytes(b"\n".join([b"file,label", odd + b",a", *rows]))
    assert grays(load_table(tmp_path / "list.csv", SPEC)) == list(range(10))


@pytest.mark.parametrize("mark", [";", "|", ", "])
def test_several_labels_in_one_column(table, mark):
    labels = {"a": ["sea", "sky"], "b": ["sky"]}
    data = table(
        "file,labels", lambda name: f'images/{name},"{mark.join(labels[name[0]]) if name != "b4.png" else ""}"'
    )
    assert data.labels == ("sea", "sky")
    assert data.targets.dtype == np.float32
    assert data.targets.tolist() == [[1, 1]] * 5 + [[0, 1]] * 4 + [[0, 0]]


def test_a_separator_of_ones_own(table):
    rows = [f'images/{name},"red, dark / {name[0]}"' for name in NAMES]
    assert table("file,labels", rows, separators="/").labels == ("a", "b", "red, dark")


def test_a_column_per_label(table):
    rows = [f"images/{name},{int('a' in name)},{name == 'b1.png'}" for name in NAMES]
    data = table("file,sea,sky", rows)
    assert data.labels == ("sea", "sky")
    assert data.targets[:, 0].tolist() == [1] * 5 + [0] * 5
    assert data.targets[:, 1].tolist() == [name == "b1.png" for name in NAMES]
    assert table("file,sea,sky", rows, label=["sky"]).labels == ("sky",)
    numbers = table("file,age", [f"images/{name},{index / 4}" for index, name in enumerate(NAMES)], label=["age"])
    assert numbers.targets[:, 0].tolist() == [index / 4 for index in range(10)]


def test_split_and_weights(table):
    parts = ["train"] * 3 + ["Val", " validation"] + ["training"] * 3 + ["valid", "test"]
    rows = [
        f"images/{name},{name[0]},{part},{index}" for index, (name, part) in enumerate(zip(NAMES, parts, strict=True))
    ]
    data = table("file,label,split,weight", rows)
    assert grays(data) == list(range(9))  # not those for testing, because there are others to hold out
    assert data.validation_indices.tolist() == [3, 4, 8]
    assert data.weights.tolist() == list(range(9))
    for_test = [f"images/{name},{name[0]},{'test' if name[1] == '4' else 'train'}" for name in NAMES]
    tested = table("file,label,split", for_test)
    assert tested.validation_indices.tolist() == [4, 9]
    with pytest.raises(InvalidArgumentError, match="is for a table without images to hold out. Received: 0.5"):
        table("file,label,split,weight", rows, validation_split=0.5)


def test_the_test_part_of_a_table_is_kept_for_the_end(table, tmp_path):
    parts = dict(zip(NAMES, ["train", "train", "val", "test", "test"] * 2, strict=True))
    rows = [f"images/{name},{name[0]},{part}" for name, part in parts.items()]
    data = table("file,label,split", rows)
    test = load_test(tmp_path / "list.csv", SPEC, progress=False)
    assert (grays(data), grays(test)) == ([0, 1, 2, 5, 6, 7], [3, 4, 8, 9])
    assert test.labels == data.labels
    assert test.targets.tolist() == [0, 0, 1, 1]
    assert (test.train_count, test.validation_count) == (0, 4)
    assert "0 for training and 4 held out" in str(test)
    table("file,label,split", [row.replace("val", "train") for row in rows])  # test takes its place
    assert load_test(tmp_path / "list.csv", SPEC, progress=False) is None
    table("file,label", lambda name: f"images/{name},{name[0]}")
    assert load_test(tmp_path / "list.csv", SPEC, progress=False) is None


def test_the_test_part_of_a_folder(photos, tmp_path, caplog):
    for index, name in enumerate(NAMES):
        part = ("training", "training", "valid", "Test", "Test")[index % 5]
        (tmp_path / part / name[0]).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / name[0] / name).write_bytes((photos / name).read_bytes())
    (tmp_path / "Test" / "a" / "broken.png").write_bytes(b"")
    data = load_directory(tmp_path, SPEC, progress=False)
    assert not data.ignored
    test = load_test(tmp_path, SPEC, progress=False)
    assert (grays(test), test.targets.tolist(), test.skipped) == ([3, 4, 8, 9], [0, 0, 1, 1], 1)
    assert load_test(tmp_path / "Test", SPEC, progress=False) is None
    (tmp_path / "Test" / "a" / "again.png").hardlink_to(tmp_path / "training" / "a" / "a0.png")
    with pytest.raises(DataError, match="training/ and Test/ must not have images in common. Received: 1 in both"):
        load_test(tmp_path, SPEC, progress=False)
    (tmp_path / "Test" / "c").mkdir()
    with pytest.raises(DataError, match="training/ and Test/ must have the same class folders"):
        load_test(tmp_path, SPEC, progress=False)


def test_broken_images_of_a_table_are_skipped_with_their_rows(table, photos, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "scan.tif").write_bytes(b"II*\0" + bytes(20))
    rows = [f"images/{name},{name[0]},{index + 1}" for index, name in enumerate(NAMES)]
    data = table("file,label,weight", ["empty.png,a,9", *rows[:5], "scan.tif,b,9", *rows[5:]])
    assert grays(data) == list(range(10))
    assert data.weights.tolist() == list(range(1, 11))
    assert [name for name, _ in data.unreadable] == ["empty.png", "scan.tif"]
    assert "TIFF files are not supported" in data.unreadable[1][1]


GOOD = [f"images/{name},{name[0]}" for name in NAMES]


@pytest.mark.parametrize(
    ("header", "rows", "error", "text"),
    [
        ("file,label", ["no.png,a", *GOOD, "nor.png,b"], DataError, r"2 of 12 that don't: no\.png, nor\.png\."),
        ("file,label", [*GOOD, GOOD[2]], DataError, r"in one row .* Received: 'images/a2\.png' in rows 3 and 11"),
        ("file,label", [], DataError, "at least one row below its header"),
        ("photo,label", GOOD, DataError, r"must have a column 'file', .* Received: .*\['photo', 'label'\]"),
        ("file,label", ["images/a0.png"], DataError, "as many cells as its header, 2. Received: 1 in line 2"),
        ("file,file", GOOD, DataError, r"different names. Received: \['file'\] twice"),
        ("file,label", [*GOOD, ",a"], DataError, "must name a file. Received: '' in row 11"),
        ("file,label", [*GOOD[1:], "images/a0.png, "], DataError, "must hold class names. Received: ' ' in row 10"),
        ("file,label", ['"images/a0.png,a'], DataError, "must be a CSV file. Received: .*, line 2"),
        ("file,sea", GOOD, DataError, "'sea' of a table must hold finite numbers. Received: 'a' in row 1"),
        ("file,sea", [f"images/{name},2" for name in NAMES], DataError, "with 0 or 1 .* Received: '2' in column 'sea'"),
        ("file", [f"images/{name}" for name in NAMES], DataError, "at least one column of labels"),
        ("file,label,weight", [f"{row},x" for row in GOOD], DataError, "'weight' .* Received: 'x' in row 1"),
        ("file,label,weight", [f"{row},-1" for row in GOOD], DataError, r"of at least 0\. Received: '-1' in row 1"),
        ("file,label,split", [f"{row},dev" for row in GOOD], DataError, "'split' .* Received: 'dev' in row 1"),
        ("file,label,split", [f"{row},train" for row in GOOD], DataError, "Received: none in the split of held-out"),
        (
            "file,label,split",
            [f"{row},{'val' if row[-1] == 'b' else 'train'}" for row in GOOD],
            DataError,
            r"one readable image in split 'train'\. Received: 'b' has 0",
        ),
        ("file,label", [f"images/{name},a" for name in NAMES], DataError, "at least two classes"),
    ],
)  # fmt: skip
def test_tables_that_are_none(table, header, rows, error, text):
    with pytest.raises(error, match=text):
        table(header, rows)


def test_columns_and_tables_that_are_not_there(table, tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"`label` must be a column of the table. Received: 'kind'"):
        table("file,label", GOOD, label="kind")
    with pytest.raises(InvalidArgumentError, match=r"`file` must be a column of the table. Received: 'photo'"):
        table("file,label", GOOD, file="photo")
    with pytest.raises(DataError, match="must be a file that can be read. Received: .*/absent.csv"):
        load_table(tmp_path / "absent.csv", SPEC)


def test_the_same_file_in_both_parts_under_two_names(table, photos, tmp_path):
    (tmp_path / "copy.png").symlink_to(photos / NAMES[0])
    rows = [f"images/{name},{name[0]},{'val' if name[1] in '34' else 'train'}" for name in NAMES]
    with pytest.raises(DataError, match=r"must not have images in common. Received: 1 in both: .*copy\.png"):
        table("file,label,split", [*rows, "copy.png,a,val"])


def test_a_parquet_table_needs_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'keraslight\[parquet\]'"):
        load_table(tmp_path / "list.parquet", SPEC)


def test_parquet_tables(photos):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def load(**columns):
        parquet.write_table(pyarrow.table({"file": NAMES, **columns}), photos / "list.parquet")
        return load_table(photos / "list.parquet", SPEC)

    named = load(label=[name[0] for name in NAMES], weight=np.arange(10.0), split=["train", "val"] * 5)
    assert named.labels == ("a", "b")
    assert named.weights.tolist() == list(range(10))
    assert named.validation_indices.tolist() == [1, 3, 5, 7, 9]
    assert load(label=[7 + (name[0] == "b") for name in NAMES]).labels == ("7", "8")
    assert load(sea=[True] * 5 + [False] * 5).targets[:, 0].tolist() == [1] * 5 + [0] * 5
    several = load(labels=[["x", "y"]] * 5 + [[]] * 5)
    assert several.targets.tolist() == [[1, 1]] * 5 + [[0, 0]] * 5
    with pytest.raises(DataError, match="must hold class names. Received: None in row 1 of"):
        load(label=[None, *"abababab", "a"])
    (photos / "list.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(DataError, match="must be a Parquet file. Received: "):
        load_table(photos / "list.parquet", SPEC)


@pytest.fixture
def folder(photos, tmp_path):
    """Two classes of five images."""
    for name in NAMES:
        (tmp_path / "all" / name[0]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name[0] / name).write_bytes((photos / name).read_bytes())
    return tmp_path / "all"


def test_images_to_hold_out_from_another_folder(folder, tmp_path):
    for label in "ab":
        (tmp_path / "val" / label).mkdir(parents=True)
        (folder / label / f"{label}0.png").rename(tmp_path / "val" / label / f"{label}0.png")
    (tmp_path / "val" / "notes.txt").write_text("mine")
    data = load_directory(folder, SPEC, validation=tmp_path / "val")
    assert (data.train_count, data.validation_count) == (8, 2)
    assert grays(data)[8:] == [0, 5]
    assert data.validation_indices.tolist() == [8, 9]
    assert data.ignored == ("val/notes.txt",)
    with pytest.raises(InvalidArgumentError, match="`validation_split` is for a folder without images to hold out"):
        load_directory(folder, SPEC, validation=tmp_path / "val", validation_split=0.5)
    (tmp_path / "val" / "b" / "again.png").hardlink_to(folder / "b" / "b1.png")
    with pytest.raises(DataError, match=r"must not have images in common. Received: 1 in both: .*again\.png"):
        load_directory(folder, SPEC, validation=tmp_path / "val")
    (tmp_path / "val" / "c").mkdir()
    with pytest.raises(DataError, match=r"same class folders.*only .*all/ has \[\] and only .*val/ has \['c'\]"):
        load_directory(folder, SPEC, validation=tmp_path / "val")
    with pytest.raises(DataError, match="must not have images in common. Received: 8 in both"):
        load_directory(folder, SPEC, validation=folder)


@pytest.mark.parametrize("kind", ["list", "file"])
def test_images_to_hold_out_from_a_list(folder, tmp_path, kind):
    def load(*names):
        if kind == "list":
            return load_directory(folder, SPEC, validation=list(names))
        (tmp_path / "list.txt").write_text("\n".join(map(str, names)) + "\n\n")
        return load_directory(folder, SPEC, validation=str(tmp_path / "list.txt"))

    (folder / "b" / "broken.png").write_bytes(b"")
    data = load("a/a3.png", folder / "b" / "b0.png", "b/broken.png")
    assert data.validation_indices.tolist() == [3, 5]
    with pytest.raises(DataError, match=r"must list images in .* Received: 2 others: .*none\.png, .*x"):
        load("a/none.png", "x", "b/b0.png")
    with pytest.raises(DataError, match=r"one readable image in `validation`\. Received: 'b' has 0"):
        load("a/a3.png")
    with pytest.raises(DataError, match=r"one readable image in the training part\. Received: 'a' has 0"):
        load(*(f"a/a{index}.png" for index in range(5)), "b/b0.png")
    with pytest.raises(InvalidArgumentError, match="must name at least one image. Received: none"):
        load()


def test_images_to_hold_out_that_are_nowhere(folder, tmp_path):
    with pytest.raises(DataError, match="or a list of paths. Received: .*/absent, which doesn't exist"):
        load_directory(folder, SPEC, validation=tmp_path / "absent")
    for part in ("train", "val"):
        for label in "ab":
            (tmp_path / "parts" / part / label).mkdir(parents=True)
    for validation in (folder, ["a/1.png"]):
        with pytest.raises(InvalidArgumentError, match="`validation` is for a folder without images to hold out"):
            load_directory(tmp_path / "parts", SPEC, validation=validation)


def test_the_command_line_takes_tables_lists_and_caches(folder, tmp_path):
    (tmp_path / "list.CSV").write_text("\n".join(["file,label", *(f"all/{n[0]}/{n},{n[0]}" for n in NAMES)]))
    (tmp_path / "held_out.txt").write_text("a/a0.png\nb/b0.png\n")
    table = _common.load_images(str(tmp_path / "list.CSV"), SPEC, cache=tmp_path / "cache")
    listed = _common.load_images(str(folder), SPEC, validation=str(tmp_path / "held_out.txt"), cache=tmp_path / "cache")
    assert (table.validation_count, listed.validation_indices.tolist()) == (2, [0, 5])
    assert isinstance(table.pixels, np.memmap)
    assert isinstance(listed.pixels, np.memmap)
    for data in ("digits", "photos.csv"):
        with pytest.raises(InvalidArgumentError, match="`--validation` is for a folder of images; .* Received: "):
            _common.load_images(data, SPEC, validation="held_out.txt")
    with pytest.raises(InvalidArgumentError, match="`--cache` is for image files. Received: --cache cache with"):
        _common.load_images("digits", SPEC, cache="cache")
