"""Images with labels from other libraries' data sets; those that aren't installed are imitated."""

import dataclasses
import importlib.util
import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keraslight.errors import DataError, InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData

SPEC = Preprocessing(size=(8, 8), crop_mode="squash", interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
COUNT = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(COUNT) % 3


def png(image, **options):
    stream = io.BytesIO()
    PIL.Image.fromarray(image).save(stream, "PNG", **options)
    return stream.getvalue()


FILES = [png(image) for image in IMAGES]


class Torch:
    """A PyTorch Dataset: a length and indices, channels first, 0..1."""

    classes = ("x", "y", "z")

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        if not 0 <= index < COUNT:
            raise RuntimeError("PyTorch's data sets need not raise IndexError")
        return np.moveaxis(IMAGES[index], -1, 0).astype(np.float32) / 255, LABELS[index]


class Loader:
    """A PyTorch DataLoader of batches, the last one smaller."""

    dataset = Torch()

    def __len__(self):
        return 3

    def __iter__(self):
        for start in range(0, COUNT, 5):
            items = [self.dataset[index] for index in range(start, min(start + 5, COUNT))]
            yield [np.stack(part) for part in zip(*items, strict=True)]


@dataclasses.dataclass
class ClassLabel:
    names: list


@dataclasses.dataclass
class Several:
    feature: ClassLabel


class Image:
    pass


class HuggingFace:
    """A `datasets.Dataset`: rows are dicts, which `features` describes."""

    def __init__(self, rows, features):
        self.rows, self.features = rows, features

    def __len__(self):
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


def hugging_face(image=PIL.Image.fromarray, key="image", indices=range(COUNT)):
    rows = [{key: image(IMAGES[index]), "label": int(LABELS[index]), "id": index} for index in indices]
    return HuggingFace(rows, {key: Image(), "label": ClassLabel(["x", "y", "z"]), "id": None})


def dataset(images=IMAGES, labels=LABELS):
    return tf.data.Dataset.from_tensor_slices((images, labels))


SOURCES = {
    "tf.data": dataset(),
    "tf.data batched": dataset().batch(5),
    "tf.data of dicts": dataset().map(lambda image, label: {"image": image, "label": label, "id": 3}).batch(4),
    "tf.data of files": dataset(FILES),
    "tf.data of batches of files": dataset(FILES).batch(5),
    "tf.data of floats": dataset(IMAGES.astype(np.float32) / 255),
    "tf.data of 16 bits": dataset(IMAGES.astype(np.uint16) * 256 + IMAGES[::-1]),
    "arrays": (IMAGES, LABELS),
    "list of arrays": (list(IMAGES), LABELS.tolist()),
    "list of files": (FILES, LABELS.tolist()),
    "pillow": ([PIL.Image.fromarray(image) for image in IMAGES], LABELS),
    "batches of pillow": [([PIL.Image.fromarray(i) for i in IMAGES[n : n + 5]], LABELS[n : n + 5]) for n in (0, 5, 10)],
    "batches of files": [(FILES[n : n + 5], LABELS[n : n + 5].tolist()) for n in (0, 5, 10)],
    "torch": Torch(),
    "torch loader": Loader(),
    "pairs": [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)],
    "hugging face": hugging_face(),
    "hugging face files": hugging_face(lambda image: {"bytes": png(image), "path": None}, "img"),
    "hugging face columns": hugging_face(key="photo"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_gives_the_same_images(kind):
    data = ImageData.from_dataset(SOURCES[kind], SPEC)
    np.testing.assert_array_equal(data.pixels, IMAGES)
    assert data.targets.tolist() == LABELS.tolist()
    assert data.labels == (("x", "y", "z") if kind.startswith(("torch", "hugging")) else ("0", "1", "2"))
    wanted = ImageData.from_arrays(IMAGES, LABELS, data.labels, SPEC)
    assert data.fingerprint() == wanted.fingerprint()  # the same split, too
    assert (data.sizes == 8).all()


def example(image=b"", label=(0,), text=None):
    Feature, Bytes, Ints = tf.train.Feature, tf.train.BytesList, tf.train.Int64List
    features = {"image/encoded": Feature(bytes_list=Bytes(value=[image]))}
    features["image/class/label"] = Feature(int64_list=Ints(value=label))
    if text is not None:
        features["image/class/text"] = Feature(bytes_list=Bytes(value=[text]))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write(path, records, compression=""):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_tfrecords(tmp_path, suffix):
    records = [example(file, [label + 1], "xyz"[label].encode()) for file, label in zip(FILES, LABELS, strict=True)]
    kind = "GZIP" if suffix else ""
    paths = [write(tmp_path / f"{n}.tfrecord{suffix}", records[7 * n : 7 * n + 7], kind) for n in (0, 1)]
    data = ImageData.from_dataset(paths, SPEC)
    assert data.labels == ("x", "y", "z")  # labels that start at 1 have names
    np.testing.assert_array_equal(data.pixels, IMAGES)
    assert data.targets.tolist() == LABELS.tolist()
    assert ImageData.from_dataset(paths[0], SPEC).source == str(paths[0])
    several = write(
        tmp_path / "several", [example(file, [1, 0, label]) for file, label in zip(FILES, [0, 1] * 6, strict=True)]
    )
    assert ImageData.from_dataset(str(several), SPEC, labels="abc").targets.tolist() == [[1, 0, 0], [1, 0, 1]] * 6


def test_tfrecords_that_are_none(tmp_path):
    def fails(path, text, **options):
        with pytest.raises(DataError, match=text):
            ImageData.from_dataset(path, SPEC, **options)

    whole = write(tmp_path / "whole", [example(file, [0]) for file in FILES])
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:-5])
    fails(tmp_path / "cut", r"must be complete. Received: .*/cut, after 1\d records: truncated")
    fails(tmp_path / "absent", "Received: .*/absent, which doesn't exist")
    fails(tmp_path, "a folder: use load_directory")
    fails(write(tmp_path / "list.csv", []), "use load_table")
    fails(write(tmp_path / "text", [b"\xff\xff no example"]), "must be tf.train.Example. Received: record 0 of .*/text")
    fails(whole, r"the feature 'pixels'. Received: record 0 of .* with \['image/class/label", image="pixels")
    fails(write(tmp_path / "none", [example(FILES[0], [])]), "'image/class/label' must have a value")


@pytest.mark.parametrize("key", ["validation", "val", "test"])
def test_dicts_of_parts(key):
    parts = {"train": hugging_face(indices=range(8)), key: hugging_face(indices=range(8, 12)), "unsupervised": None}
    data = ImageData.from_dataset(parts, SPEC)
    assert data.validation_indices.tolist() == [8, 9, 10, 11]
    np.testing.assert_array_equal(data.pixels, IMAGES)
    same = ImageData.from_dataset(parts["train"], SPEC, validation=parts[key])
    assert same.fingerprint() == data.fingerprint()


def test_images_of_other_sizes_and_channels_are_fitted():
    gray = np.random.default_rng(1).integers(0, 256, (4, 20, 16), dtype=np.uint8)
    rgba = np.random.default_rng(1).integers(0, 256, (4, 5, 9, 4), dtype=np.uint8)
    images = [*gray, *rgba]
    data = ImageData.from_dataset((images, [0, 1] * 4), SPEC)
    assert data.sizes.tolist() == [[20, 16]] * 4 + [[5, 9]] * 4
    for image, pixels in zip(images, data.pixels, strict=True):
        np.testing.assert_array_equal(pixels, SPEC.decode(png(image)))
    for channels in (1, 4):
        spec = SPEC.with_channels(channels)
        for image, pixels in zip(images, ImageData.from_dataset((images, [0, 1] * 4), spec).pixels, strict=True):
            np.testing.assert_array_equal(pixels, spec.decode(png(image)))
    batches = tf.data.Dataset.from_tensor_slices((gray, [0, 1, 0, 1])).batch(2)
    np.testing.assert_array_equal(ImageData.from_dataset(batches, SPEC).pixels, data.pixels[:4])


def test_an_image_of_the_models_size_stays_as_it_is():
    data = ImageData.from_dataset((IMAGES, LABELS), SPEC.replace(crop_mode="center", crop_pct=0.5))
    np.testing.assert_array_equal(data.pixels, IMAGES)


def test_pillow_images_are_read_as_their_files():
    image = PIL.Image.fromarray(IMAGES[0])
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    wide = PIL.Image.fromarray(IMAGES[0, ..., 0].astype(np.uint16) * 257)
    files = [png(IMAGES[0], exif=tags)]
    for odd in (image.convert("P"), image.convert("L"), image.convert("LA"), wide, image.convert("1")):
        stream = io.BytesIO()
        odd.save(stream, "PNG")
        files.append(stream.getvalue())
    opened = [PIL.Image.open(io.BytesIO(file)) for file in files]
    data = ImageData.from_dataset((opened, [0, 1] * 3), SPEC)
    for file, pixels in zip(files, data.pixels, strict=True):
        np.testing.assert_array_equal(pixels, SPEC.decode(file))


def test_names_rows_and_lists_of_labels():
    named = ImageData.from_dataset(dataset(labels=np.array(list("cab"))[LABELS]), SPEC)
    assert (named.labels, named.targets[:3].tolist()) == (("a", "b", "c"), [2, 0, 1])
    assert ImageData.from_dataset(dataset(labels=np.array(list("cab"))[LABELS]).batch(5), SPEC).labels == named.labels
    given = ImageData.from_dataset(dataset(labels=np.array(list("cab"))[LABELS]), SPEC, labels=("c", "b", "a"))
    assert given.targets[:3].tolist() == [0, 2, 1]
    rows = ImageData.from_dataset(dataset(labels=np.eye(3)[LABELS]).batch(5), SPEC, labels="abc")
    assert rows.targets.tolist() == np.eye(3)[LABELS].tolist()
    several = hugging_face()
    for row in several.rows:
        row["label"] = [0, row["label"]]
    several.features["label"] = Several(ClassLabel(["x", "y", "z"]))
    data = ImageData.from_dataset(several, SPEC)
    assert (data.labels, data.targets[:3].tolist()) == (("x", "y", "z"), [[1, 0, 0], [1, 1, 0], [1, 0, 1]])


def test_a_file_that_can_not_be_read_is_named_and_skipped():
    data = ImageData.from_dataset(([*FILES[:6], b"broken", *FILES[6:]], [*LABELS[:6], 0, *LABELS[6:]]), SPEC)
    np.testing.assert_array_equal(data.pixels, IMAGES)
    assert data.targets.tolist() == LABELS.tolist()
    ((name, reason),) = data.unreadable
    assert name == "image 6"
    assert reason.startswith("Unknown image file format.")


def test_a_range_of_ones_own():
    symmetric = IMAGES.astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(ImageData.from_dataset((symmetric, LABELS), SPEC, value_range=(-1, 1)).pixels, IMAGES)
    floats = IMAGES.astype(np.float64)
    np.testing.assert_array_equal(ImageData.from_dataset((floats, LABELS), SPEC, value_range=(0, 255)).pixels, IMAGES)


@pytest.mark.parametrize(
    ("source", "options", "text"),
    [
        (dataset().repeat(), {}, "`source` must end"),
        (
            dataset().map(lambda image, label: image),
            {},
            r"give pairs \(image, label\), or dicts. Received: ndarray",
        ),
        (3, {}, "`source` must be a tf.data.Dataset, .* Received: int"),
        (object(), {}, "`source` must be a tf.data.Dataset, .* Received: object"),
        ((IMAGES, LABELS[:-1]), {}, "as many labels as images. Received: 12 images, 11 labels"),
        (
            (IMAGES.astype(np.float32), LABELS),
            {},
            r"0\.\.1, or `value_range` must be given\. Received: .* in image 0",
        ),
        ((IMAGES.astype(np.int32) - 1, LABELS), {}, r"hold 0\.\.255, or `value_range`"),
        ((IMAGES * np.float32(np.nan), LABELS), {}, r"hold 0\.\.1, or"),
        ((IMAGES[..., :2], LABELS), {}, r"with 1, 3 or 4 channels. Received: image 0 of shape \(8, 8, 2\)"),
        ((IMAGES, LABELS), {"labels": "ab"}, r"in 0\.\.1, indices of the class names. Received: 2 for image 2"),
        ((IMAGES, LABELS - 1), {"labels": "abc"}, r"in 0\.\.2, .* Received: -1 for image 0"),
        ((IMAGES, LABELS + 0.5), {}, "must be integers, names, or rows"),
        ((IMAGES, np.eye(3)[LABELS]), {"labels": "ab"}, "must name the 3 columns of the labels. Received: 2"),
        ((IMAGES, ["a", "b", "c"] * 4), {"labels": "ab"}, r"must name all classes. Received: .* without \['c'\]"),
        ((IMAGES, LABELS), {"value_range": (1, 0)}, r"`value_range` must be \(black, white\)"),
        ((IMAGES, LABELS), {"validation": (IMAGES, LABELS), "validation_split": 0.5}, "without images to hold out"),
        ({"val": hugging_face()}, {}, r"must have the key 'train' if it is a dict. Received: \['val'\]"),
        ({"train": 1}, {"validation": 2}, "for a source that isn't a dict"),
        (hugging_face(), {"label": "kind"}, r"`label` must be a column of the data set. Received: 'kind'"),
        (SOURCES["tf.data of dicts"], {"image": "x"}, r"`image` must be a key of the source's items. Received: 'x'"),
    ],
)
def test_sources_that_are_none(source, options, text):
    with pytest.raises(InvalidArgumentError, match=text):
        ImageData.from_dataset(source, SPEC, **options)


def test_parts_that_do_not_fit():
    with pytest.raises(DataError, match="must not have images in common. Received: the same source"):
        ImageData.from_dataset(source := (IMAGES, LABELS), SPEC, validation=source)
    other = hugging_face()
    other.features["label"] = ClassLabel(["z", "y", "x"])
    with pytest.raises(DataError, match=r"the same classes. Received: \['x', 'y', 'z'\] and \['z', 'y', 'x'\]"):
        ImageData.from_dataset(hugging_face(), SPEC, validation=other)
    with pytest.raises(DataError, match=r"one readable image in the validation part\. Received: '2' has 0"):
        ImageData.from_dataset((IMAGES, LABELS), SPEC, validation=(IMAGES[:2], LABELS[:2]))
    with pytest.raises(DataError, match="`source` must have at least one readable image. Received: none, and 1 others"):
        ImageData.from_dataset(([b"broken"], [0]), SPEC)
    with pytest.raises(DataError, match="`source` must have at least one readable image. Received: none, and 0 others"):
        ImageData.from_dataset(dataset().take(0), SPEC)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_the_real_torch():
    import torch

    images = torch.from_numpy(np.moveaxis(IMAGES, -1, 1).copy())
    whole = torch.utils.data.TensorDataset(images.float() / 255, torch.from_numpy(LABELS))
    for source in (whole, torch.utils.data.DataLoader(whole, batch_size=5)):
        np.testing.assert_array_equal(ImageData.from_dataset(source, SPEC).pixels, IMAGES)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("datasets"), reason="datasets is not installed")
def test_the_real_hugging_face_datasets():
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y", "z"])})
    rows = {"image": [{"bytes": file, "path": None} for file in FILES], "label": LABELS.tolist()}
    data = ImageData.from_dataset(datasets.Dataset.from_dict(rows, features=features), SPEC)
    assert data.labels == ("x", "y", "z")
    np.testing.assert_array_equal(data.pixels, IMAGES)
