import io
import logging
import os

import numpy as np
import PIL.Image
import pytest

from keraslight.errors import DataError, InvalidArgumentError
from keraslight.preprocessing import Preprocessing
from keraslight.training import (
    DIGITS_PREPROCESSING,
    Augmentation,
    ImageData,
    _sources,
    load_digits,
    load_directory,
    load_images,
)


def batches(dataset):
    return [(images.numpy(), targets.numpy()) for images, targets in dataset]


def assert_same(first, second):
    assert len(first) == len(second)
    for (images, targets), (other_images, other_targets) in zip(first, second, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(targets, other_targets)


@pytest.fixture(scope="module")
def digits():
    return load_digits(DIGITS_PREPROCESSING)


def test_digits_are_split_by_class(digits):
    assert digits.labels == tuple("0123456789")
    assert (digits.train_count, digits.validation_count) == (1438, 359)
    assert not set(digits.train_indices) & set(digits.validation_indices)
    counts = np.bincount(digits.targets)
    np.testing.assert_array_equal(np.bincount(digits.validation_arrays()[1]), np.round(counts * 0.2))


def test_the_split_depends_on_the_seed_alone(digits):
    small = DIGITS_PREPROCESSING.replace(size=(8, 8))
    same, other = load_digits(small), load_digits(small, seed=1)
    np.testing.assert_array_equal(digits.validation_indices, same.validation_indices)
    assert not np.array_equal(digits.validation_indices, other.validation_indices)
    # The first held-out images, written down: accuracies in documents refer to this split.
    assert same.validation_indices[:8].tolist() == [3, 7, 13, 19, 36, 38, 43, 48]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_digit_read_from_a_png_file_equals_the_training_pixels(digits, channels):
    preprocessing = DIGITS_PREPROCESSING.with_channels(channels)
    data = digits if channels == 1 else load_digits(preprocessing)
    pixels, _ = data.validation_arrays()
    assert data.originals.shape == (359, 8, 8)
    assert (data.originals.min(), data.originals.max()) == (0, 255)
    for original, expected in zip(data.originals[:40], pixels, strict=False):
        file = io.BytesIO()
        PIL.Image.fromarray(original).save(file, "PNG")
        np.testing.assert_array_equal(preprocessing.decode(file.getvalue()), expected)


def test_training_batches_repeat_for_a_seed_and_differ_between_epochs(data):
    augmentation = Augmentation(shift=0.1, rotate_degrees=10)
    two = batches(data.train(16, augmentation, 7, epochs=2))
    assert_same(two, batches(data.train(16, augmentation, 7, epochs=2)))
    steps = data.steps_per_epoch(16)
    assert len(two) == 2 * steps == 12
    # A resume begins in the middle and must see what an uninterrupted run would have seen.
    assert_same(two[steps:], batches(data.train(16, augmentation, 7, first_epoch=1)))
    assert any(not np.array_equal(a, b) for (_, a), (_, b) in zip(two[:steps], two[steps:], strict=True))
    other = batches(data.train(16, augmentation, 8))
    assert any(not np.array_equal(a, b) for (_, a), (_, b) in zip(two[:steps], other, strict=True))


def test_an_epoch_shows_every_training_image_once(data):
    seen = np.concatenate([images for images, _ in batches(data.train(16))])
    expected = data.pixels[data.train_indices]
    assert sorted(map(bytes, seen.astype(np.uint8))) == sorted(map(bytes, expected))
    assert seen.dtype == np.float32


def test_the_same_image_is_augmented_differently_every_time(data):
    one = ImageData.from_arrays(np.repeat(data.pixels[:1], 8, 0), [0, 1] * 4, "ab", data.preprocessing)
    seen = np.concatenate([images for images, _ in batches(one.train(2, Augmentation(brightness=0.1), epochs=3))])
    assert len({image.tobytes() for image in seen}) == len(seen) == 18
    other = np.concatenate([images for images, _ in batches(one.train(2, Augmentation(brightness=0.1), 1, epochs=3))])
    assert {image.tobytes() for image in seen}.isdisjoint(image.tobytes() for image in other)


def test_validation_is_in_order_and_whole(data):
    read = batches(data.validation(7))
    pixels, targets = data.validation_arrays()
    np.testing.assert_array_equal(np.concatenate([images for images, _ in read]), pixels)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in read]), targets)
    assert len(targets) == data.validation_count == 24


@pytest.mark.parametrize(
    ("dtype", "targets", "split", "text"),
    [
        (np.float32, [0, 0, 1, 1], 0.2, r"uint8 of shape \(4, 12, 12, 1\)\. Received: float32 of shape"),
        (np.uint8, [0, 0, 1, 2], 0.2, r"`targets` must be in 0\.\.1\. Received: 0\.\.2\."),
        (np.uint8, [0, 0, 1, 1], 1, r"`validation_split` must be in \(0, 1\)\. Received: .*=1\."),
    ],
)
def test_arrays_that_do_not_fit(small, dtype, targets, split, text):
    with pytest.raises(InvalidArgumentError, match=text):
        ImageData.from_arrays(np.zeros((4, 12, 12, 1), dtype), targets, "ab", small, validation_split=split)


def test_a_batch_has_an_image(data):
    with pytest.raises(InvalidArgumentError, match=r"`batch_size` must be at least 1\. Received: batch_size=0\."):
        data.train(0)
    assert data.steps_per_epoch(10_000) == len(batches(data.train(10_000))) == 1


def test_rows_of_numbers_are_divided_so_that_both_parts_have_one(small):
    two = ImageData.from_arrays(np.zeros((2, 12, 12, 1), np.uint8), [[0.5, 1], [1, 0]], "ab", small)
    assert (two.train_count, two.validation_count) == (1, 1)


def test_a_class_with_one_image_can_not_be_split(small):
    with pytest.raises(DataError, match=r"at least two readable images, one for each part\. Received: 'b' has 1\."):
        ImageData.from_arrays(np.zeros((3, 12, 12, 1), np.uint8), [0, 0, 1], "ab", small)


COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
RGB = Preprocessing(size=(10, 10), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def folder(tmp_path):
    """Three classes of plain colours in all five formats, six images each."""
    for label, colour in COLOURS.items():
        (tmp_path / label).mkdir()
        for index, suffix in enumerate(("png", "JPG", "bmp", "webp", "gif", "jpeg")):
            PIL.Image.new("RGB", (20, 14 + index), colour).save(tmp_path / label / f"{index}.{suffix}")
    return tmp_path


def test_a_directory_gives_sorted_classes_and_right_pixels(folder):
    (folder / ".hidden").mkdir()
    (folder / "red" / "notes.txt").write_text("no image")
    os.rename(folder / "red" / "0.png", os.fsencode(folder / "red") + b"/caf\xe9.png")  # a name that is not UTF-8
    data = load_directory(folder, RGB)
    assert data.labels == ("blue", "green", "red")
    assert (data.train_count, data.validation_count, data.skipped) == (15, 3, 0)
    for images, targets in batches(data.train(4)) + batches(data.validation(4)):
        assert images.shape[1:] == (10, 10, 3)
        for image, target in zip(images, targets, strict=True):
            colour = list(COLOURS.values())[target]
            np.testing.assert_allclose(image, np.broadcast_to(colour, image.shape), atol=4)  # JPEG's error


def test_images_without_labels_come_from_files_and_folders(folder):
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "red.png").write_bytes((folder / "red" / "0.png").read_bytes())
    (folder / "red" / "notes.txt").write_text("no image")
    everything = load_images(folder, RGB)
    assert (everything.dtype, everything.shape) == (np.uint8, (18, 10, 10, 3))
    # In the order of the paths' names, a limit reaches every class.
    few = load_images(str(folder), RGB, limit=3)
    np.testing.assert_array_equal(few, everything[[0, 6, 12]])
    for image, colour in zip(few, [COLOURS[name] for name in ("blue", "green", "red")], strict=True):
        np.testing.assert_allclose(image, np.broadcast_to(colour, image.shape), atol=4)
    np.testing.assert_array_equal(load_images([folder / "red", folder / "blue" / "0.png"], RGB, limit=100)[-1], few[0])


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("empty", "A folder of images must hold at least one .jpg, .* file. Received: .*/empty"),
        ("nothing", "Images must be in files or folders that exist. Received: .*/nothing"),
        (".", "An image file must be readable. Received: .*/red/9.png: Unknown image file format"),
    ],
)
def test_images_without_labels_that_are_none(folder, path, text):
    (folder / "empty").mkdir()
    (folder / "red" / "9.png").write_bytes(b"this is no image")
    with pytest.raises(DataError, match=text):
        load_images(folder / path, RGB)


def test_images_without_labels_need_a_path_and_a_limit_above_0(folder):
    with pytest.raises(InvalidArgumentError, match="`paths` must name at least one file or folder. Received: none"):
        load_images([], RGB)
    with pytest.raises(InvalidArgumentError, match="`limit` must be at least 1, or None. Received: 0"):
        load_images(folder, RGB, limit=0)


def test_images_too_many_for_the_memory_give_the_same_batches(folder, monkeypatch):
    in_memory = load_directory(folder, RGB)
    monkeypatch.setattr(_sources, "MEMORY_LIMIT_BYTES", 100)
    from_files = load_directory(folder, RGB)
    assert from_files.pixels is None
    augmentation = Augmentation(shift=0.1)
    assert_same(
        batches(in_memory.train(4, augmentation, 3, epochs=2)), batches(from_files.train(4, augmentation, 3, epochs=2))
    )
    for first, second in zip(in_memory.validation_arrays(), from_files.validation_arrays(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("limit", [100, 1 << 20])
def test_a_corrupt_image_is_named_and_skipped(folder, caplog, monkeypatch, limit):
    monkeypatch.setattr(_sources, "MEMORY_LIMIT_BYTES", limit)
    no_image, truncated = folder / "green" / "0.png", folder / "red" / "1.JPG"
    no_image.write_bytes(b"this is no image")
    truncated.write_bytes(truncated.read_bytes()[:-200])
    with caplog.at_level(logging.WARNING, "keraslight.training"):
        data = load_directory(folder, RGB)
    first, second, total = caplog.messages
    assert first.startswith(f"Skipped {no_image}: Unknown image file format.")
    assert second.startswith(f"Skipped {truncated}: ")
    assert "jpeg" in second.lower()
    assert total == f"Skipped 2 of 18 images in {folder}: they can't be read."
    assert data.skipped == 2
    assert np.bincount(data.targets).tolist() == [6, 5, 5]
    for images, targets in batches(data.train(4)) + batches(data.validation(4)):
        for image, target in zip(images, targets, strict=True):
            assert image.mean((0, 1)).argmax() == 2 - target


def test_a_bar_shows_the_check_on_a_terminal(folder, capsys, monkeypatch):
    load_directory(folder, RGB)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    load_directory(folder, RGB, progress=False)
    assert capsys.readouterr() == ("", "")
    load_directory(folder, RGB)
    assert "Checking images" in capsys.readouterr().err


def test_an_empty_class_is_named(folder):
    (folder / "grey").mkdir()
    with pytest.raises(DataError, match=r"Every class needs at least two readable images.*Received: 'grey' has 0\."):
        load_directory(folder, RGB)


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(DataError, match=r"one folder per class\. Received: .*absent, not a folder\."):
        load_directory(tmp_path / "absent", RGB)
    with pytest.raises(DataError, match=r"at least two class folders\. Received: .* with 0, \[\]\."):
        load_directory(tmp_path, RGB)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match=r"at least two class folders\. Received: .* with 1, \['cat'\]\."):
        load_directory(tmp_path, RGB)


def test_the_fingerprint_tells_data_apart(data, small):
    changed = data.pixels.copy()
    changed[3, 3, 3] ^= 1
    targets = data.targets
    other = ImageData.from_arrays(changed, targets, data.labels, small)
    same = ImageData.from_arrays(data.pixels.copy(), targets, data.labels, small)
    assert data.fingerprint() == same.fingerprint() != other.fingerprint()
