"""Quantization-aware models, saved and loaded again."""

import keras
import numpy as np
import pytest
from keras import layers

from keraslight import compress
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.export import litert_runner, to_litert
from keraslight.graph import own_preprocessing
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing

IMAGES = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32")
LABELS = np.arange(8) % 3


@pytest.fixture(scope="module")
def model():
    """With a normalization, a pruned and a clustered kernel, a cut depthwise one, a bare operation, a float layer."""
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = ImageNormalization(Preprocessing((16, 16)))(images)
    pruned, clustered = layers.Conv2D(8, 3, padding="same", name="pruned"), layers.Conv2D(8, 3, name="clustered")
    x = layers.ReLU()(layers.BatchNormalization()(pruned(x)))
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(7, padding="same", name="cut")(clustered(x)))
    x = layers.GroupNormalization(2, name="float")(x + 1)
    x = layers.GlobalAveragePooling2D()(keras.ops.hard_silu(x))
    made = keras.Model(images, layers.Dense(3, activation="softmax")(x))
    kernel = pruned.kernel.numpy()
    pruned.kernel.assign(np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel))
    clustered.kernel.assign(np.round(clustered.kernel.numpy() * 20) / 20 + 0.001)
    return made


@pytest.mark.parametrize("suffix", [".keras", pytest.param(".h5", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*HDF5 file via:UserWarning")
def test_a_loaded_model_is_the_saved_one(model, suffix, tmp_path):
    quantized = compress.train_quantized(model, (IMAGES, LABELS), epochs=1, verbose=0)
    wanted = np.asarray(quantized(IMAGES))
    quantized.save(str(tmp_path / f"model{suffix}"))
    loaded = compress.load_quantized(tmp_path / f"model{suffix}")
    assert np.array_equal(np.asarray(loaded(IMAGES)), wanted)
    assert compress.quantization_report(loaded) == compress.quantization_report(quantized)
    assert own_preprocessing(loaded) == own_preprocessing(model)
    for back, again in zip(
        compress.quantized_weights_to_keras(quantized, model).get_weights(),
        compress.quantized_weights_to_keras(loaded, model).get_weights(),
        strict=True,
    ):
        assert np.array_equal(back, again)
    assert int(loaded.optimizer.iterations) == int(quantized.optimizer.iterations)
    files = [to_litert(q, tmp_path / f"{n}.tflite") for n, q in enumerate((quantized, loaded))]
    assert np.array_equal(*(litert_runner(file)(IMAGES) for file in files))
    loaded.fit(IMAGES, LABELS, epochs=1, verbose=0)
    trained = compress.quantized_weights_to_keras(loaded, model)
    before, after = (m.get_layer("pruned").kernel.numpy() for m in (model, trained))
    assert np.array_equal(before == 0, after == 0)
    assert not np.array_equal(before, after)
    values = len(np.unique(model.get_layer("clustered").kernel.numpy()))
    assert len(np.unique(trained.get_layer("clustered").kernel.numpy())) <= values


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match="not a file"):
        compress.load_quantized(tmp_path / "none.keras")
    (tmp_path / "junk.keras").write_bytes(b"junk")
    with pytest.raises(CompressionError, match="junk"):
        compress.load_quantized(tmp_path / "junk.keras")
    images = keras.Input((4,))
    compress.to_tf_keras(keras.Model(images, layers.Dense(2)(images))).save(str(tmp_path / "float.keras"))
    with pytest.raises(InvalidArgumentError, match="without quantizers"):
        compress.load_quantized(tmp_path / "float.keras")
