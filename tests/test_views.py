"""`keraslight.views`: a model that answers for several views of each image."""

import json

import keras
import numpy as np
import pytest

import keraslight
from keraslight import compress
from keraslight.analysis import count_macs, profile
from keraslight.errors import InvalidArgumentError
from keraslight.export import litert_parity, litert_runner, save_servable, to_litert, to_onnx
from keraslight.graph import final_activation, own_preprocessing, remembered_task
from keraslight.layers import ImageNormalization, ImageViews
from keraslight.preprocessing import Preprocessing

SPEC = Preprocessing((12, 16), mean=(0.5,), std=(0.5,))
VIEWS = {"scales": (0.75, 1.0), "rotations": (0.0, 20.0), "flip": True}


def net(units=3, activation="softmax", *, shape=(12, 16, 1), spec=SPEC, batch=None, dtype="float32"):
    keras.utils.set_random_seed(1)
    images = keras.Input(batch_shape=(batch, *shape), dtype=dtype)
    x = images if dtype == "float32" else keras.layers.Rescaling(1.0)(images)
    x = ImageNormalization(spec)(x)
    x = keras.layers.Conv2D(6, 3, strides=2, activation="relu", use_bias=False)(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.BatchNormalization()(x))
    outputs = keras.layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=6))(x)
    return keras.Model(images, outputs if activation is None else keras.layers.Activation(activation)(outputs))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 16, 1)).astype("float32")


def by_hand(model, images, function=lambda x: x):
    """The model's answers to each view, (B, V, K), one image and one view at a time."""
    copies = ImageViews(**VIEWS)
    rows = [
        [np.asarray(function(model(view[None])))[0] for view in np.asarray(copies(image[None]))] for image in images
    ]
    return np.array(rows)


@pytest.mark.parametrize("shape", [(12, 16, 1), (None, None, 1)])
def test_it_takes_the_answer_of_the_most_certain_view(images, shape):
    model = net(shape=shape)
    views = by_hand(model, images)
    wanted = views[np.arange(len(images)), views.max(-1).argmax(-1)]
    made = keraslight.views(model, **VIEWS)
    assert (made.input_shape, made.output_shape) == ((None, *shape), (None, 3))
    np.testing.assert_allclose(made(images), wanted, atol=1e-6)
    assert np.ptp(views, axis=1).max() > 0.01  # the views do differ
    if shape[0] is None:
        assert made(np.zeros((2, 20, 9, 1), "float32")).shape == (2, 3)


def test_logits_become_probabilities_before_they_are_merged(images):
    model = net(activation=None)
    views = by_hand(model, images, keras.ops.softmax)
    made = keraslight.views(model, **VIEWS, merge="mean")
    np.testing.assert_allclose(made(images), views.mean(1), atol=1e-6)
    assert final_activation(made) == "softmax"


@pytest.mark.parametrize(("units", "task"), [(3, "multi-label"), (1, "binary")])
def test_independent_scores_each_have_their_own_most_certain_view(images, units, task):
    views = by_hand(model := net(units, "sigmoid"), images)
    chosen = np.abs(views - 0.5).argmax(1)[:, None]
    made = keraslight.views(model, **VIEWS)
    np.testing.assert_allclose(made(images), np.take_along_axis(views, chosen, 1)[:, 0], atol=1e-6)
    assert (final_activation(made), remembered_task(made)) == ("sigmoid", task)


def test_a_regression_is_averaged_and_nothing_else(images):
    model = net(2, None)
    made = keraslight.views(model, **VIEWS, merge="mean", task="regression")
    np.testing.assert_allclose(made(images), by_hand(model, images).mean(1), rtol=1e-4, atol=1e-4)
    with pytest.raises(
        InvalidArgumentError, match="`merge` must be 'mean' for a regression.*Received: merge='certain'"
    ):
        keraslight.views(model, task="regression")


def test_uint8_images_are_rounded_in_the_file_too(images, tmp_path):
    made = keraslight.views(net(dtype="uint8"), **VIEWS)
    file = to_litert(made, tmp_path / "views.tflite")
    np.testing.assert_allclose(litert_runner(file)(images), made(images.astype("uint8")), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "arguments", "text"),
    [
        (net, {"merge": "max"}, "`merge` must be one of"),
        (net, {"scales": (0,)}, "`scales` must be above 0"),
        (net, {"task": "binary"}, "`task` must fit the model"),
        (lambda: net(1, None), {}, "`task` must say what the outputs are"),
        (lambda: net(batch=4), {}, "`model` must take batches of any size. Received: .*, which takes 4 images"),
        (
            lambda: keras.Sequential([keras.Input((12, 16, 1)), keras.layers.Conv2D(2, 1, activation="softmax")]),
            {},
            "one output, .B, K.: answers for each pixel",
        ),
        (
            lambda: keras.Sequential([keras.Input((12,)), keras.layers.Dense(2, activation="softmax")]),
            {},
            "`model` must have one input of images",
        ),
    ],
)
def test_what_cannot_have_views(model, arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        keraslight.views(model(), **arguments)


@pytest.mark.parametrize(
    "merge", ["certain", pytest.param("mean", marks=pytest.mark.slow), pytest.param("log", marks=pytest.mark.slow)]
)
def test_files_answer_as_the_model_does(images, tmp_path, merge):
    made = keraslight.views(net(), **VIEWS, merge=merge)
    file = to_litert(made, tmp_path / "views.tflite", labels=["a", "b", "c"])
    parity = litert_parity(made, file, images)
    assert parity.agreement == 1
    assert parity.largest_difference < 1e-4
    if merge == "certain":
        to_onnx(made, tmp_path / "views.onnx", check_images=images)
        made.save(tmp_path / "views.keras")
        again = keraslight.load_model(tmp_path / "views.keras")
        np.testing.assert_array_equal(again(images), made(images))


def test_an_int8_file_looks_and_chooses_in_float(images, tmp_path):
    made = keraslight.views(net(), **VIEWS)
    file = to_litert(made, tmp_path / "views.tflite", quantization="int8", representative_data=images)
    assert np.abs(litert_runner(file)(images) - np.asarray(made(images))).max() < 0.1


def test_a_servable_of_views_and_of_images_normalized_one_by_one(images, tmp_path):
    spec = SPEC.replace(per_image=True)
    made = keraslight.views(net(spec=spec), **VIEWS)
    version = save_servable(made, tmp_path / "views", labels=["a", "b", "c"], samples=images)
    assert own_preprocessing(made) == spec
    info = json.loads((version / "assets.extra" / "keraslight.json").read_text())
    assert Preprocessing.from_dict(info["preprocessing"]) == spec
    np.testing.assert_allclose(litert_runner(version / "model.tflite")(images * 0.3), made(images), atol=1e-4)
    np.testing.assert_allclose(litert_runner(version / "model.tflite")(images), made(images), atol=1e-4)


def test_profiles_count_every_view():
    model = net()
    before, after = profile(model), profile(keraslight.views(model, **VIEWS))
    assert after.macs == 8 * before.macs == count_macs(keraslight.views(model, **VIEWS))
    assert after.parameters == before.parameters
    assert after.unknown == ()
    assert after.peak_bytes > 7 * before.peak_bytes


def test_it_shares_the_weights_and_can_be_trained(images):
    model = net()
    made = keraslight.views(model, scales=(0.8, 1.0))
    made.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    before = model.get_weights()[0].copy()
    made.fit(images, np.array([0, 1, 2]), verbose=0)
    assert not np.array_equal(model.get_weights()[0], before)
    assert made.name == f"{model.name}_views"


@pytest.mark.parametrize("aware", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_int8_files_normalize_images_one_by_one_in_float(aware, tmp_path):
    spec = SPEC.replace(per_image=True)
    model = net(spec=spec)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 12, 16, 1)).astype("float32")
    if aware:
        quantized = compress.train_quantized(model, (pixels, np.arange(32) % 3), epochs=1, verbose=0)
        assert own_preprocessing(quantized) == spec
        file = to_litert(quantized, tmp_path / "net.tflite", quantization="int8")
        model = compress.quantized_weights_to_keras(quantized, model)
    else:
        file = to_litert(model, tmp_path / "net.tflite", quantization="int8", representative_data=pixels)
    run, wanted = litert_runner(file), np.asarray(model(pixels))
    for changed in (pixels, pixels * 0.3, pixels * 0.3 + 90):
        assert np.abs(run(changed) - wanted).max() < 0.06
