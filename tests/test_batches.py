"""Every form of data gives the same images and labels at every door."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keraslight import _batches, compress
from keraslight.errors import InvalidArgumentError
from keraslight.export import to_litert

IMAGES = np.random.default_rng(0).normal(size=(10, 4, 4, 2)).astype("float32")
LABELS = np.arange(10) % 3
BATCHES = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:8], LABELS[4:8]), (IMAGES[8:], LABELS[8:])]


class Loader:
    """As PyTorch's DataLoader: an iterable of lists of tensors, which NumPy can read."""

    def __init__(self, items):
        self.items, self.passes = items, 0

    def __iter__(self):
        self.passes += 1
        return ([Tensor(images), Tensor(labels)] for images, labels in self.items)

    def __len__(self):
        return len(self.items)


class Tensor:
    def __init__(self, values):
        self.values, self.ndim = values, values.ndim

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class Sequence(keras.utils.PyDataset):
    """Keras' own; it gives batches beyond its end, too."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return BATCHES[index % 3]


def pairs():
    yield from BATCHES


LABELLED = {
    "arrays": lambda: (IMAGES, LABELS),
    "list of arrays": lambda: [IMAGES, LABELS.tolist()],
    "tensors": lambda: (tf.constant(IMAGES), tf.constant(LABELS)),
    "foreign tensors": lambda: (Tensor(IMAGES), Tensor(LABELS)),
    "images and labels": lambda: (list(IMAGES), list(LABELS)),
    "batches": lambda: BATCHES,
    "two batches": lambda: [(IMAGES[:5], LABELS[:5]), (IMAGES[5:], LABELS[5:])],
    "single pairs": lambda: list(zip(IMAGES, LABELS, strict=True)),
    "generator": pairs,
    "generator of single pairs": lambda: zip(IMAGES, LABELS, strict=True),
    "function": lambda: pairs,
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4),
    "tf.data of single pairs": lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)),
    "tf.data of unknown length": lambda: (
        tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).filter(lambda _, label: label < 3).batch(4)
    ),
    "PyDataset": Sequence,
    "loader": lambda: Loader(BATCHES),
    "loader of batches of one": lambda: Loader([(IMAGES[n : n + 1], LABELS[n : n + 1]) for n in range(10)]),
}
UNLABELLED = {
    "array": lambda: IMAGES,
    "list of images": lambda: list(IMAGES),
    "two images": lambda: list(IMAGES[:2]),
    "two batches": lambda: [IMAGES[:5], IMAGES[5:]],
    "list of batches of one": lambda: [image[None] for image in IMAGES],
    "list of lists": lambda: [[image[None]] for image in IMAGES],
    "images without labels": lambda: (IMAGES, None),
    "function of TFLite": lambda: lambda: ([image[None]] for image in IMAGES),
    "generator of images": lambda: iter(IMAGES),
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices(IMAGES).batch(3),
    "endless tf.data": lambda: tf.data.Dataset.from_tensor_slices(IMAGES).batch(3).take(4).repeat(),
}


@pytest.mark.parametrize("form", LABELLED)
def test_all_images_and_labels_come_in_order_in_every_pass(form):
    dataset = _batches.batches(LABELLED[form](), 4)
    for _ in range(2):
        parts = list(dataset)
        np.testing.assert_array_equal(np.concatenate([images for images, _ in parts]), IMAGES)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), LABELS)
    assert all(spec.shape[1:].is_fully_defined() for spec in dataset.element_spec)
    assert _batches.steps_in(dataset) == len(parts) == {"two batches": 2, "loader of batches of one": 10}.get(form, 3)
    read = list(_batches.labelled_batches(LABELLED[form]()))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in read]), IMAGES)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in read]), LABELS)


@pytest.mark.parametrize("form", UNLABELLED)
def test_all_images_come_without_labels(form):
    count = {"two images": 2}.get(form, 10)
    read = []
    for images, labels in _batches.labelled_batches(UNLABELLED[form](), whole=False):
        assert labels is None
        read.extend(images)
        if len(read) >= count:
            break
    np.testing.assert_array_equal(read[:count], IMAGES[:count])
    read = []
    for images in _batches.image_batches(UNLABELLED[form](), 4):
        read.extend(images)
        if len(read) >= count:
            break
    np.testing.assert_array_equal(read[:count], IMAGES[:count])


def test_rows_of_numbers_are_inputs_too():
    rows = IMAGES.reshape(10, -1)
    for data in ((rows, LABELS), [rows.tolist(), LABELS.tolist()], (rows, LABELS[:, None])):
        parts = list(_batches.batches(data, 4))
        np.testing.assert_allclose(np.concatenate([inputs for inputs, _ in parts]), rows, rtol=1e-6)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]).reshape(-1), LABELS)


def test_arrays_are_shuffled_as_by_tf_data_and_stay_where_they_are():
    wanted = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).shuffle(10, seed=3).batch(4)
    for (images, labels), (same, too) in zip(wanted, _batches.batches((IMAGES, LABELS), 4, seed=3), strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, too)
    wanted = tf.data.Dataset.from_tensor_slices(IMAGES).shuffle(10, seed=3).batch(4)
    for images, same in zip(wanted, _batches.image_batches(IMAGES, 4, seed=3), strict=True):
        np.testing.assert_array_equal(images, same)
    large = np.zeros((2000, 64, 64, 3), "float32")  # 98 MB
    before = resident()
    for _ in _batches.batches((large, np.zeros(2000)), 32, seed=0):
        pass
    assert resident() - before < 50e6


def resident():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def build():
    keras.utils.set_random_seed(0)
    images = keras.Input((4, 4, 2), name="images")
    x = layers.Flatten()(layers.Conv2D(3, 3, name="conv")(images))
    return keras.Model(images, layers.Dense(3, activation="softmax", name="logits")(x), name="small")


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.mark.parametrize(
    ("form", "validation"), [("tf.data of unknown length", "PyDataset"), ("generator of single pairs", "loader")]
)
def test_pruning_takes_every_form(model, form, validation):
    """Its schedule comes to its end, whether or not the length is known."""
    pruned = compress.prune(
        model, LABELLED[form](), sparsity=0.6, epochs=2, validation_data=LABELLED[validation](), batch_size=4, verbose=0
    )
    assert (pruned.get_layer("logits").kernel.numpy() == 0).mean() >= 0.6


def test_a_filter_that_passes_another_number_in_each_epoch_does_not_end_the_training(model):
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).repeat(4)
    data = data.filter(lambda *_: tf.random.uniform(()) < 0.7).batch(2)
    pruned = compress.prune(model, data, sparsity=0.6, epochs=3, verbose=0)
    assert (pruned.get_layer("logits").kernel.numpy() == 0).mean() >= 0.6


def test_clustering_and_sensitivity_take_a_generator(model):
    clustered = compress.cluster(model, pairs(), clusters=4, epochs=2, layers="logits", verbose=0)
    assert np.unique(clustered.get_layer("logits").kernel).size <= 4
    report = compress.sensitivity(model, pairs(), sparsities=(0.5,))
    assert str(report) == str(compress.sensitivity(model, (IMAGES, LABELS), sparsities=(0.5,)))


def test_quantization_takes_every_form(model, tmp_path):
    """Ranges come from all images, in whatever form they come."""
    bright = [np.full((1, 4, 4, 2), value, "float32") for value in (1, 50, 100, 200)]
    two = compress.quantize_aware(model, calibration_data=[bright[0], bright[3]])
    one = compress.quantize_aware(model, calibration_data=lambda: iter(bright[:1]))
    assert np.isclose(high(two), 200)
    assert np.isclose(high(one), 1)
    trained = compress.train_quantized(model, Loader(BATCHES), epochs=2, validation_data=pairs(), verbose=0)
    assert trained.optimizer.iterations.numpy() == 6
    for data in (bright, lambda: ([image] for image in bright)):
        to_litert(model, tmp_path / "int8.tflite", quantization="int8", representative_data=data)
        assert np.isclose(scale(tmp_path / "int8.tflite"), 200 / 255, rtol=1e-3)
    compress.calibrate(model, (image for image in bright), tmp_path / "calibrated.tflite")
    assert np.isclose(scale(tmp_path / "calibrated.tflite"), 200 / 255, rtol=1e-3)


def high(quantized):
    return max(float(variable.numpy()) for variable in quantized.layers[1].variables if "max" in variable.name)


def scale(path):
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(path)).get_tensor_details()
    return max(each["quantization"][0] for each in details if list(each["shape"]) == [1, 4, 4, 2])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (IMAGES, r"`data` must hold labels: .* Received: images of shape \(10, 4, 4, 2\) alone"),
        (lambda: iter([IMAGES]), r"`data` must hold labels: .* Received: batches of images of shape"),
        (
            tf.data.Dataset.from_tensor_slices(IMAGES).batch(4),
            "`data` must hold labels: .* Received: a data set of Tens",
        ),
        ((IMAGES, LABELS[:7]), "`data` must hold as many labels as images. Received: 10 images, 7 labels"),
        ([(IMAGES, LABELS[:7])], r"`data` must hold as many labels as images. .*a batch of shapes \[\(10, 4"),
        ([], "`data` must hold at least one batch. Received: an empty data set"),
        (iter(()), "`data` must hold at least one batch. Received: an empty data set"),
        ((IMAGES[:0], LABELS[:0]), "`data` must hold at least one image. Received: none"),
        ({"image": IMAGES}, "`data` must hold at least one image, as an array .* Received: dict"),
        ("folder", "`data` must hold at least one image, as an array .* Received: 'folder'"),
        (None, "`data` must hold at least one image, as an array .* Received: None"),
        (7, "`data` must hold at least one image, as an array .* Received: 7"),
        ([{"image": IMAGES, "label": LABELS}], r"must give \(images, labels\) pairs; .* with \['image', 'label'\]"),
        (tf.data.Dataset.from_tensor_slices({"image": IMAGES, "label": LABELS}), r"must give \(images, labels\) pairs"),
        ((list("abc"), LABELS[:3]), "`data` must hold numbers. Received: an array of <U1"),
        (
            ([IMAGES[0], IMAGES[1, :2]], [0, 1]),
            r"must hold images of one shape. Received: shapes \[\(2, 4, 2\), \(4, 4",
        ),
    ],
)
def test_errors_name_the_argument_and_what_came(model, data, message):
    with pytest.raises(InvalidArgumentError, match=message):
        compress.prune(model, data, verbose=0)


def test_errors_of_other_arguments_name_those(model, tmp_path):
    endless = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(4).repeat()
    turned = np.moveaxis(IMAGES, -1, 1)
    with pytest.raises(InvalidArgumentError, match=r"`data` must end; use `data.take\(steps\)`"):
        compress.prune(model, endless, verbose=0)
    with pytest.raises(InvalidArgumentError, match="`data` must end"):
        compress.sensitivity(model, endless)
    with pytest.raises(InvalidArgumentError, match="`validation_data` must hold labels"):
        compress.prune(model, (IMAGES, LABELS), validation_data=IMAGES, verbose=0)
    with pytest.raises(
        InvalidArgumentError, match=r"`calibration_data` must hold .*\(10, 2, 4, 4\), with the channels"
    ):
        compress.quantize_aware(model, calibration_data=turned)
    with pytest.raises(
        InvalidArgumentError, match=r"`representative_data` must hold images of .*: transpose each batch"
    ):
        to_litert(model, tmp_path / "x.tflite", quantization="int8", representative_data=list(turned))
    with pytest.raises(
        InvalidArgumentError, match="`representative_data` must hold at least one image, .* Received: 3"
    ):
        to_litert(model, tmp_path / "x.tflite", quantization="int8", representative_data=3)
    with pytest.raises(InvalidArgumentError, match="`data` must hold batches of images of the model's shape"):
        compress.settle_batch_norms(keras.Sequential([keras.Input((5, 4, 2)), layers.BatchNormalization()]), IMAGES)
