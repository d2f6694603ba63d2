"""Names of classes are kept exactly from training to the client, or refused with their position."""

import io

import keras
import keraslight_serving.labels
import numpy as np
import pytest
import tensorflow as tf
from keraslight_serving.client import ClassifierClient, InvalidInput
from PIL import Image

from keraslight.errors import DataError, InvalidArgumentError
from keraslight.export import read_metadata, save_servable, to_litert
from keraslight.labels import check_labels, imagenet_labels, read_labels
from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData, load_directory

ODD = [
    *(
        "tea\u2028pot",
        "a\x85b",
        "c\vd",
        "e\ff",
        "g\x1eh",
        "i\x1cj",
        "k\x1dl",
        "p\u2029q",
        "tab\tbed",
        " padded ",
        "0 cat",
    ),
    *("grüße", "猫", "🐈", "[red]x[/red]", '"quoted", \\', "e\u0301", "é", "7", "nul\0x"),
]
SPEC = Preprocessing((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def model():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, keras.layers.Dense(len(ODD), "softmax")(keras.layers.Flatten()(images)))


def test_odd_names_come_back_from_files_and_signatures(model, tmp_path):
    assert read_metadata(to_litert(model, tmp_path / "a.tflite", labels=ODD)).labels == tuple(ODD)
    version = save_servable(model, tmp_path / "net", labels=ODD, preprocessing=SPEC)
    assert read_metadata(version / "model.tflite").labels == tuple(ODD)
    lines = (version / "assets" / "labels.txt").read_bytes().split(b"\n")[:-1]  # as the server reads them
    assert [line.decode() for line in lines] == ODD
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "PNG")
    answer = tf.saved_model.load(str(version)).signatures["encoded"](image_bytes=tf.constant([buffer.getvalue()]))
    names = [ODD[index] for index in answer["indices"].numpy()[0]]
    assert [name.decode() for name in answer["classes"].numpy()[0]] == names


def test_odd_folder_names_are_labels(tmp_path):
    names = [name for name in ODD if not {"\0", "/"} & set(name)]
    for name in names:
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / name / f"{index}.png")
    assert load_directory(tmp_path, SPEC, progress=False).labels == tuple(sorted(names))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"caf\xe9", r"must be text that UTF-8 can encode. Received: .*'caf\\udce9' at index 1"),
        (b"a\nb", r"one per line. Received: a label with a line break, 'a\\nb' at index 1"),
        (b" ", r"more than spaces. Received: a blank label, ' ' at index 0"),
    ],
)
def test_folder_names_that_can_not_be_labels(tmp_path, name, text):
    import os

    for folder in (name, b"a", b"z"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + folder)
    with pytest.raises(DataError, match=text):
        load_directory(tmp_path, SPEC)


BAD_LISTS = [
    (["cat", "a\rb"], r"one per line. Received: a label with a line break, 'a\\rb' at index 1"),
    (["a\n", "cat"], r"a label with a line break, 'a\\n' at index 0"),
    (["cat", "", "dog"], "a blank label, '' at index 1"),
    (["cat", "\u3000\t"], r"a blank label, .* at index 1"),
    (["\ufeffcat", "dog"], r"a label with a byte order mark, '\\ufeffcat' at index 0"),
    (["cat", "dog", 3], "must be strings. Received: 3 at index 2"),
    ([b"cat", "dog"], "must be strings. Received: b'cat' at index 0"),
    (["cat", None], "must be strings. Received: None at index 1"),
    (["cat", "dog", "cat"], "must differ. Received: 'cat' at index 0 and at index 2"),
    (["cat", "do\ud800g"], r"UTF-8 can encode. Received: .* at index 1"),
]


@pytest.mark.parametrize(("labels", "text"), BAD_LISTS)
def test_bad_names_are_refused_at_every_door(labels, text, tmp_path):
    images = keras.Input((8, 8, 3))
    net = keras.Model(images, keras.layers.Dense(len(labels), "softmax")(keras.layers.Flatten()(images)))
    pixels = np.zeros((2 * len(labels), 8, 8, 3), np.uint8)
    for door in (
        lambda: check_labels(labels),
        lambda: to_litert(net, tmp_path / "a.tflite", labels=labels),
        lambda: save_servable(net, tmp_path / "net", labels=labels, preprocessing=SPEC),
        lambda: ImageData.from_arrays(pixels, [*range(len(labels))] * 2, labels, SPEC),
    ):
        with pytest.raises(InvalidArgumentError, match=text):
            door()
    with pytest.raises(InvalidInput, match=text):
        ClassifierClient("localhost:1", labels=labels)
    assert not list(tmp_path.iterdir())


def test_names_of_imagenet_may_repeat_as_there():
    names = list(imagenet_labels())
    assert check_labels(names, 1000) == names == keraslight_serving.labels.check_labels(names)
    names[5] = names[6]
    with pytest.raises(InvalidArgumentError, match="at index 5 and at index 6"):
        check_labels(names)
    with pytest.raises(InvalidArgumentError, match="at index 0 and at index 2"):  # only there
        check_labels(["crane", "eel", "crane"])


GOOD_FILES = [
    (b"cat\ndog", ["cat", "dog"]),
    (b"\xef\xbb\xbfcat\r\ndog\r\n", ["cat", "dog"]),
    (b"cat\ndog\n\n \n", ["cat", "dog"]),
    ("\n".join(ODD).encode() + b"\n", ODD),
    (b"0 cat\n1 dog\n2 big eel\n", ["cat", "dog", "big eel"]),
    (b"0: cat\n1:dog", ["cat", "dog"]),
    (b"0\tcat\n1\tdog", ["cat", "dog"]),
    (b"0,cat\r\n1, dog", ["cat", "dog"]),
    (b"00 cat\n01 dog\n", ["cat", "dog"]),
    (b"1 euro\n2 euro\n", ["1 euro", "2 euro"]),
    (b"0\n1\n2", ["0", "1", "2"]),
    (b"0 cat\nfrog\n", ["0 cat", "frog"]),
]
BAD_FILES = [
    (b"cat\ncaf\xe9\ndog", r"UTF-8 text with one class name per line. Received: .*labels.txt, line 2: b'caf\\xe9'"),
    ("cat\ndog".encode("utf-16"), "line 1"),
    (b"cat\n\ndog", "line 2: a blank label"),
    (b"\n\ncat", "line 1: a blank label"),
    (b"cat\rdog\r", "line 1: a label with a line break"),
    (b"cat\ndog\ncat", "lines 1 and 3: 'cat'"),
    (b"1 dog\n0 cat", "Indices must be in order. Received: .*line 1: '1 dog'"),
    (b"", "which is empty"),
]


@pytest.mark.parametrize(("content", "labels"), GOOD_FILES)
def test_label_files(content, labels, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    assert read_labels(path) == labels == keraslight_serving.labels.read_labels(path)
    with ClassifierClient("localhost:1", labels=path) as client:
        assert client._rankings._labels == labels


@pytest.mark.parametrize(("content", "text"), BAD_FILES)
def test_bad_label_files_are_refused_with_the_line(content, text, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=text):
        read_labels(path)
    with pytest.raises(InvalidInput, match=text):
        ClassifierClient("localhost:1", labels=path)
