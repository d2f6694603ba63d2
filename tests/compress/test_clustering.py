"""Weight clustering: the library's algorithm and its reference, the zeros, and what the file packs to."""

import gzip

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from keraslight import compress
from keraslight.errors import CompressionError, InvalidArgumentError
from keraslight.export import litert_runner, to_litert

RANDOM = np.random.default_rng(0)
DATA = (RANDOM.normal(size=(64, 8, 8, 1)).astype("float32"), np.arange(64) % 10)


def small(optimizer="adam"):
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(images)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Conv2D(48, 1, activation="relu", name="expand")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(images, layers.Dense(10, name="logits")(x), name="small")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # else the first step is traced twice
    return model


def values(model, layer):
    return np.unique(model.get_layer(layer).kernel.numpy())


def with_zeros(model):
    """Half of two kernels zero, as pruning leaves them."""
    for name in ("expand", "logits"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel))
    return model


def by_library(model, initialization, steps, **options):
    """The library's wrapper on a tf_keras twin, trained by plain gradient descent; layer name -> kernel."""
    twin = compress.to_tf_keras(model)
    import tf_keras
    from tensorflow_model_optimization.python.core.clustering.keras import cluster, cluster_config

    def wrap(layer):
        if layer.name not in ("expand", "logits"):
            return layer
        kind = cluster_config.CentroidInitialization[initialization]
        mean = cluster_config.GradientAggregation.AVG
        return cluster.cluster_weights(layer, 8, kind, cluster_gradient_aggregation=mean, **options)

    wrapped = tf_keras.models.clone_model(twin, clone_function=wrap)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped.compile(tf_keras.optimizers.SGD(0.5), loss)
    if steps:
        wrapped.fit(*DATA, batch_size=16, epochs=steps // 4, shuffle=False, verbose=0)
    else:
        wrapped(DATA[0][:1])
    stripped = cluster.strip_clustering(wrapped)
    return {name: stripped.get_layer(name).get_weights()[0] for name in ("expand", "logits")}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("kmeans++", "KMEANS_PLUS_PLUS"), ("density", "DENSITY_BASED"), ("linear", "LINEAR")]
)
def test_training_gives_the_librarys_centroids_and_weights(ours, theirs, sparse):
    model = small(keras.optimizers.SGD(0.5))
    if sparse:
        with_zeros(model)
    before = {name: model.get_layer(name).kernel.numpy() for name in ("expand", "logits")}
    start = compress.cluster(model, clusters=8, initialization=ours)
    expected = by_library(model, theirs, 12, preserve_sparsity=sparse)
    callback = compress.Clustering(8, initialization=ours)
    model.fit(*DATA, batch_size=16, epochs=3, shuffle=False, callbacks=[callback], verbose=0)
    for name, kernel in expected.items():
        assert np.abs(kernel - start.get_layer(name).kernel).max() > 1e-4  # it did train
        np.testing.assert_allclose(model.get_layer(name).kernel, kernel, atol=1e-6, err_msg=name)
        assert len(np.unique(kernel)) <= 8
        if sparse:
            assert (kernel[before[name] == 0] == 0).all()


def test_lloyds_algorithm_comes_nearer_to_the_weights():
    model = small()
    kernel = model.get_layer("expand").kernel.numpy()
    errors = {}
    for initialization in ("kmeans", "kmeans++", "density", "linear"):
        clustered = compress.cluster(model, clusters=8, initialization=initialization)
        errors[initialization] = np.square(clustered.get_layer("expand").kernel - kernel).mean()
        assert len(values(clustered, "expand")) <= 8
    assert min(errors, key=errors.get) == "kmeans"
    # A fixed point: every weight is at the nearest centroid, every centroid the mean of its weights.
    found = compress.cluster(model, clusters=8).get_layer("expand").kernel.numpy()
    centroids = np.unique(found)
    np.testing.assert_array_equal(centroids[np.abs(kernel[..., None] - centroids).argmin(-1)], found)
    for centroid in centroids:
        assert kernel[found == centroid].mean() == pytest.approx(centroid, abs=1e-6)


def test_default_layers_small_kernels_and_the_model_that_went_in():
    model = small()
    weights = model.get_weights()
    clustered = compress.cluster(model, clusters=16)
    assert [len(values(clustered, name)) for name in ("stem", "depthwise")] == [72, 72]
    assert [len(values(clustered, name)) for name in ("expand", "logits")] == [16, 16]
    for a, b in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    named = compress.cluster(model, clusters=16, layers=["stem", "depth*"])
    assert len(values(named, "stem")) == len(values(named, "depthwise")) == 16
    assert len(values(named, "expand")) == 384
    assert len(values(compress.cluster(model, clusters=60, layers="stem"), "stem")) == 72  # too few to share values


def test_every_epoch_ends_clustered_and_zeros_stay():
    model, seen = with_zeros(small()), []
    zeros = model.get_layer("expand").kernel.numpy() == 0
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: seen.append(len(values(model, "expand")))
    )
    model.fit(*DATA, batch_size=16, epochs=2, callbacks=[compress.Clustering(6), watch], verbose=0)
    assert len(seen) == 8
    assert max(seen) <= 6
    assert (model.get_layer("expand").kernel.numpy()[zeros] == 0).all()
    report = compress.cluster_report(model)
    assert [layer.name for layer in report.layers] == ["expand", "logits"]
    assert report.layers[0].zeros >= zeros.sum()
    assert len(values(compress.cluster(model, clusters=2, preserve_sparsity=False), "expand")) == 2


def test_report_says_values_and_packed_sizes():
    model = compress.cluster(small(), clusters=4)
    report = compress.cluster_report(model, "*")
    assert [layer.values for layer in report.layers] == [72, 72, 4, 4]
    kernel = model.get_layer("expand").kernel.numpy()
    assert report.layers[2].gzip_bytes == len(gzip.compress(kernel.tobytes(), mtime=0))
    total = sum(layer.gzip_bytes for layer in report.layers)
    assert report.gzip_bytes == total
    assert report.gzip_share == total / (4 * (72 + 72 + 384 + 480))
    lines = str(report).splitlines()
    assert lines[3].split()[:4] == ["expand", "1x1x8x48", "4", "0"]
    assert lines[-1].split() == ["total", f"{total:,}", f"({report.gzip_share:.1%})"]


@pytest.mark.slow
def test_a_trained_net_keeps_its_accuracy_and_packs_well(trained, digits, accuracy, tmp_path):
    clustered = compress.cluster(trained, digits[0], clusters=16, epochs=2, batch_size=64, verbose=0)
    report = compress.cluster_report(clustered)
    assert all(layer.values <= 16 for layer in report.layers)
    assert accuracy(clustered) >= accuracy(trained) - 0.01
    dense, small = (
        len(gzip.compress(to_litert(model, tmp_path / f"{n}.tflite").read_bytes(), mtime=0))
        for n, model in enumerate((trained, clustered))
    )
    assert small < 0.35 * dense


@pytest.fixture(scope="module")
def clustered(pruned, digits):
    """`pruned` after clustering. Tests must not change it."""
    return compress.cluster(pruned, digits[0], clusters=16, epochs=1, batch_size=64, verbose=0)


def test_clustering_a_pruned_net_keeps_its_zeros(pruned, clustered, accuracy):
    fused = compress.fuse(pruned)
    for before, after in zip(compress.sparsity(fused).layers, compress.sparsity(clustered).layers, strict=True):
        assert after.zeros >= before.zeros
        assert (
            clustered.get_layer(after.name).kernel.numpy()[fused.get_layer(after.name).kernel.numpy() == 0] == 0
        ).all()
    assert all(layer.values <= 16 for layer in compress.cluster_report(clustered).layers)
    assert accuracy(clustered) >= accuracy(pruned) - 0.015


def int8_kernels(path):
    """The int8 constants of a file with more than one axis, by size."""
    interpreter, found = Interpreter(str(path)), []
    for tensor in interpreter.get_tensor_details():
        if tensor["dtype"] is np.int8 and len(tensor["shape"]) > 1:
            try:
                found.append(interpreter.get_tensor(tensor["index"]))
            except ValueError:  # no constant
                continue
    return {kernel.size: kernel for kernel in found}


@pytest.mark.parametrize("keeps", [True, False])
def test_quantization_aware_training_keeps_the_values(keeps, tmp_path):
    """In the file too, where a range for each output channel would give each channel other bytes."""
    model = compress.cluster(with_zeros(small()), clusters=7)
    before = {name: model.get_layer(name).kernel.numpy() for name in ("expand", "logits")}
    quantized = compress.quantize_aware(
        model, calibration_data=DATA[0], preserve_clusters=keeps, preserve_sparsity=keeps, learning_rate=3e-3
    )
    quantized.fit(*DATA, batch_size=16, epochs=2, verbose=0)
    back = compress.quantized_weights_to_keras(quantized, model)
    kernels = int8_kernels(to_litert(quantized, tmp_path / "int8.tflite"))
    for name, kernel in before.items():
        trained, in_file = back.get_layer(name).kernel.numpy(), kernels[kernel.size]
        assert np.abs(trained - kernel).max() > 1e-3
        if keeps:
            assert len(np.unique(trained)) <= 7
            assert len(np.unique(in_file)) <= 7
            np.testing.assert_array_equal(trained == 0, kernel == 0)
            assert (in_file == 0).sum() >= (kernel == 0).sum()
        else:
            assert len(np.unique(trained)) > 100
            assert len(np.unique(in_file)) > 30


def test_long_training_does_not_move_what_has_no_gradient():
    """Thousands of equal float32 numbers have another mean; step after step they would drift away."""
    from keraslight.compress._tfmot.quantizers import KeepClusters

    kernel = RANDOM.choice(np.array([0.1, -0.3, 0.7], np.float32), size=(100, 1000))
    constraint, held = KeepClusters(kernel, keep_zeros=True), kernel
    for _ in range(20):
        held = constraint(held)
    np.testing.assert_array_equal(held, kernel)


def test_a_batch_norm_between_leaves_the_file_a_range_a_channel(tmp_path):
    images = keras.Input((8, 8, 2))
    x = layers.Conv2D(16, 3, name="stem")(images)
    norm = layers.BatchNormalization(name="norm")
    x = layers.ReLU()(norm(layers.Conv2D(24, 3, name="wide")(x)))
    model = keras.Model(images, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D()(x)))
    norm.gamma.assign(np.linspace(0.1, 4, 24))
    compress.Clustering(8, layers="wide").apply(model)
    pixels = RANDOM.normal(size=(32, 8, 8, 2)).astype("float32")
    quantized = compress.quantize_aware(model, calibration_data=pixels)
    path = to_litert(quantized, tmp_path / "int8.tflite")
    (kernel,) = (k for k in int8_kernels(path).values() if k.size == 3 * 3 * 16 * 24)
    assert all(len(np.unique(channel)) <= 8 for channel in kernel)  # (outputs, height, width, inputs)
    expected = model.predict(pixels, verbose=0)
    assert np.abs(litert_runner(path)(pixels) - expected).mean() < 0.1 * expected.std()


@pytest.mark.slow  # `test_quantization_aware_training_keeps_the_values` does the same with a few images
def test_pruned_clustered_and_quantized_keeps_accuracy_and_packs_smaller(pruned, clustered, digits, accuracy, tmp_path):
    sizes, (images, labels) = {}, digits[1]
    for keeps in (True, False):
        options = {"preserve_clusters": keeps, "epochs": 1, "batch_size": 64, "verbose": 0}
        path = to_litert(compress.train_quantized(clustered, digits[0], **options), tmp_path / f"{keeps}.tflite")
        sizes[keeps] = len(gzip.compress(path.read_bytes(), mtime=0))
        assert (litert_runner(path)(images).argmax(-1) == labels).mean() >= accuracy(pruned) - 0.015
    assert sizes[True] < 0.9 * sizes[False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"clusters": 2},
            "`clusters` must be at least 2, or 3 to preserve.*Received: clusters=2, preserve_sparsity=True",
        ),
        ({"clusters": 1, "preserve_sparsity": False}, "Received: clusters=1, preserve_sparsity=False"),
        ({"initialization": "random"}, "`initialization` must be one of .*Received: 'random'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        compress.cluster(small(), **arguments)


def test_errors_say_what_came():
    with pytest.raises(InvalidArgumentError, match="must match a Conv2D.*Received: 'nothing'; the model has .*'stem'"):
        compress.cluster(small(), layers="nothing")
    with pytest.raises(InvalidArgumentError, match="`epochs` must be at least 1. Received: 0"):
        compress.cluster(small(), DATA, epochs=0)
    model = small()
    model.compile("adam", "mse", steps_per_execution=2)
    with pytest.raises(
        InvalidArgumentError, match=r"Clustering needs `compile\(steps_per_execution=1\)`.*Received: .*=2"
    ):
        model.fit(*DATA, callbacks=[compress.Clustering()], verbose=0)

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(CompressionError, match=r"must be a functional Keras 3 model.*of class Own"):
        compress.cluster(Own(name="own"), DATA)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_kernels_of_any_precision_are_clustered_as_in_float32(dtype):
    def clustered(dtype):
        keras.utils.set_random_seed(0)
        images = keras.Input((8, 8, 1), dtype=dtype)
        x = layers.Conv2D(8, 3, dtype=dtype)(images)
        model = keras.Model(images, layers.Dense(24, name="logits", dtype=dtype)(layers.Flatten(dtype=dtype)(x)))
        kernel = model.get_layer("logits").kernel
        drawn = np.random.default_rng(0).integers(-100, 101, kernel.shape)  # over 64: the same in every precision
        kernel.assign(drawn.astype("float32") / 64)
        clustering = compress.Clustering(8)
        clustering.apply(model)
        first = kernel.numpy().astype("float64")
        clustering.on_train_batch_end(0)  # nothing was trained
        np.testing.assert_array_equal(kernel.numpy().astype("float64"), first)
        assert kernel.dtype == dtype
        return first

    found, wanted = clustered(dtype), clustered("float32")
    assert len(np.unique(found)) == len(np.unique(wanted)) == 8
    precision = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-6}[dtype]
    np.testing.assert_allclose(found, wanted, rtol=precision)


def test_a_centroid_stays_at_zero_while_the_others_settle():
    from keraslight.compress._tfmot.clustering import centroids

    kernel = np.array([0, 0, 0, 0.3, 0.4, 0.5, -1.0, -1.2, 2.0, 2.2, 0.1, 0.2], np.float32)
    found = centroids(kernel, 4, "kmeans", keep_zero=True)
    assert 0 in found
    free = centroids(kernel, 4, "kmeans", keep_zero=False)
    assert 0 not in free
    nearest = free[np.abs(kernel[:, None] - free).argmin(1)]
    for centroid in free:
        assert kernel[nearest == centroid].mean() == pytest.approx(centroid, abs=1e-6)


def test_a_cluster_moves_by_the_mean_of_its_steps():
    import tensorflow as tf

    from keraslight.compress._tfmot.quantizers import KeepClusters

    held = np.array([[1, 1, 1, 2], [2, 0, 0, 1]], np.float32)
    steps = np.array([[0.1, 0.2, 0.3, -0.4], [0.2, 0.5, 0.5, 0.2]], np.float32)
    moved = KeepClusters(held)(tf.constant(held + steps)).numpy()
    np.testing.assert_allclose(moved, [[1.2, 1.2, 1.2, 1.9], [1.9, 0, 0, 1.2]], rtol=1e-6)
