"""Int8 answers of every kind of layer, both ways, against Keras' own to a few steps of 8 bits."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers, ops

from keraslight import compress, layers as own
from keraslight.export import to_litert

# On the grid of the input's 256 steps, so that only the layers round.
_RNG = np.random.default_rng(0)
IMAGES = (np.clip(np.round(_RNG.normal(size=(16, 8, 8, 6)) * 40), -128, 127) / 32).astype("float32")
IMAGES[:, 0, 0, :2] = -4, 127 / 32
LOWEST = [[0, 0], [1, 1], [1, 1], [0, 0]]
# Not an activation without arguments: threshold.
ACTIVATIONS = sorted(
    {name for name in dir(keras.activations) if not name.startswith("_")}
    - {"get", "serialize", "deserialize", "threshold", "hard_swish", "swish"}
)


def conv(x, channels=6):
    return layers.Conv2D(channels, 1)(x)


def between(x):
    """A convolution whose values lie between the multiples of 1/2048, as `build` rounds its kernel: away from jumps."""
    return layers.Conv2D(6, 1, bias_initializer=keras.initializers.Constant(2**-12))(x)


def rows(x):
    return layers.Reshape((64, 6))(x)


def dead(x):
    return layers.ReLU()(layers.Conv2D(6, 1, bias_initializer=keras.initializers.Constant(-100))(x))


CASES = {
    "activations": {name: lambda x, name=name: layers.Activation(name)(x) for name in ACTIVATIONS},
    "activations of convolutions": {
        name: lambda x, name=name: layers.Conv2D(4, 1, activation=name)(x)
        for name in ("celu", "selu", "mish", "log_sigmoid", "squareplus", "sparse_plus", "silu", "leaky_relu")
    },
    "activation layers": {
        "relu4": lambda x: layers.ReLU(4.0)(x),
        "leaky": lambda x: layers.LeakyReLU(0.01)(x),
        "prelu": lambda x: layers.PReLU(alpha_initializer=keras.initializers.Constant(0.2))(x),
        "elu": lambda x: layers.ELU(0.5)(x),
        "softmax": lambda x: layers.Softmax(axis=1)(x),
        "celu": lambda x: ops.celu(x, 0.3),
        "threshold": lambda x: ops.threshold(x, 0.1, 0.2),
        "minimum": lambda x: ops.minimum(x, 1.0),
        "where": lambda x: ops.where(x > 0, x, 0.1 * x),
    },
    "normalizations": {
        "batch": lambda x: layers.BatchNormalization()(x),
        "layer": lambda x: layers.LayerNormalization()(x),
        "layer of maps": lambda x: layers.LayerNormalization(axis=(1, 2, 3))(x),
        "group": lambda x: layers.GroupNormalization(2)(x),
        "instance": lambda x: layers.GroupNormalization(-1)(x),
        "rms": lambda x: layers.RMSNormalization()(x),
        "unit": lambda x: layers.UnitNormalization()(x),
        "unit of rows": lambda x: layers.UnitNormalization(axis=1)(x),
        "operation": lambda x: ops.normalize(x),
        "constants": lambda x: layers.Normalization(mean=[0.1] * 6, variance=[0.5] * 6)(x),
        "rescaling": lambda x: layers.Rescaling(0.5, 0.1)(x),
        "spectral": lambda x: layers.SpectralNormalization(layers.Conv2D(3, 3))(x),
        "batch of vectors": lambda x: layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x)),
        "unit of zeros": lambda x: layers.UnitNormalization()(layers.ReLU()(x)),
        "group of zeros": lambda x: layers.GroupNormalization(2)(dead(x)),
        "no factor": lambda x: layers.BatchNormalization(gamma_initializer="zeros", beta_initializer="ones")(conv(x)),
    },
    "pooling": {
        "maximum": lambda x: layers.MaxPooling2D()(x),
        "padded maximum": lambda x: layers.MaxPooling2D(3, 2, "same")(x),
        "average": lambda x: layers.AveragePooling2D(2)(x),
        "padded average": lambda x: layers.AveragePooling2D(3, 2, "same")(x),
        "global average": lambda x: layers.GlobalAveragePooling2D()(x),
        "global maximum": lambda x: layers.GlobalMaxPooling2D()(x),
        "adaptive average": lambda x: layers.AdaptiveAveragePooling2D(3)(x),
        "adaptive maximum": lambda x: layers.AdaptiveMaxPooling2D(3)(x),
        "of rows": lambda x: layers.MaxPooling1D()(layers.AveragePooling1D(2)(rows(x))),
        "variance": lambda x: ops.var(x, axis=(1, 2)),
        "minus infinity": lambda x: layers.MaxPooling2D(3, 2)(ops.pad(x, LOWEST, constant_values=-np.inf)),
        "lowest float": lambda x: layers.MaxPooling2D(3, 2)(ops.pad(x, LOWEST, constant_values=-3.4e38)),
        "far below": lambda x: layers.GlobalMaxPooling2D()(ops.pad(x, LOWEST, constant_values=-1e4)),
    },
    "merging": {
        "add": lambda x: layers.Add()([x, conv(x), conv(x)]),
        "subtract": lambda x: layers.Subtract()([x, conv(x)]),
        "multiply": lambda x: layers.Multiply()([x, conv(x)]),
        "average": lambda x: layers.Average()([x, conv(x)]),
        "maximum": lambda x: layers.Maximum()([x, conv(x)]),
        "minimum": lambda x: layers.Minimum()([x, conv(x)]),
        "concatenate": lambda x: layers.Concatenate(axis=1)([x, conv(x)]),
        "dot": lambda x: layers.Dot((2, 2))([rows(x), rows(conv(x))]),
        "cosine": lambda x: layers.Dot((2, 2), normalize=True)([rows(x), rows(conv(x))]),
        "dead summand": lambda x: layers.Add()([x, dead(x)]),
        "tiny summand": lambda x: layers.Add()([x, conv(x) * 1e-6]),
        "dead factor": lambda x: layers.Multiply()([x, dead(x)]),
        "dead gate": lambda x: layers.Multiply()([x, layers.Conv2D(6, 1, activation="sigmoid")(dead(x))]),
        "quotient": lambda x: x / (ops.relu(conv(x)) + 1.0),
    },
    "reshaping": {
        "flatten": lambda x: layers.Flatten()(x),
        "permute": lambda x: layers.Permute((3, 1, 2))(x),
        "repeat": lambda x: layers.RepeatVector(3)(layers.GlobalMaxPooling2D()(x)),
        "padding": lambda x: layers.ZeroPadding2D(((1, 2), (0, 1)))(x),
        "cropping": lambda x: layers.Cropping2D(1)(x),
        "upsampling": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
        "resizing": lambda x: layers.Resizing(5, 5)(x),
        "center": lambda x: layers.CenterCrop(4, 4)(x),
        "ones": lambda x: ops.pad(x, LOWEST, constant_values=1.0),
        "reflected": lambda x: ops.pad(x, LOWEST, mode="reflect"),
        "slices": lambda x: x[:, 1:, ::2],
        "split": lambda x: ops.concatenate(ops.split(x, 2, axis=-1)[::-1], axis=-1),
    },
    # Where a small error of what is read would be a large one of what is given.
    "steep": {
        "reciprocal": lambda x: 1.0 / (ops.relu(conv(x)) + 0.2),
        "root": lambda x: ops.rsqrt(ops.relu(conv(x)) + 0.1),
        "power": lambda x: ops.power(ops.relu(conv(x)), 0.5),
        "logarithm": lambda x: ops.log(ops.relu(conv(x)) + 0.1),
        "sign": lambda x: ops.sign(between(x)),
        "length": lambda x: ops.norm(conv(x), axis=-1),
        "shares": lambda x: ops.exp(conv(x)) / ops.sum(ops.exp(conv(x)), axis=-1, keepdims=True),
        "unit": lambda x: layers.UnitNormalization()(conv(x)),
        "cosine": lambda x: layers.Dot((2, 2), normalize=True)([rows(conv(x)), rows(conv(x))]),
        "layer norm of few": lambda x: layers.LayerNormalization()(conv(x)),
        "own norm of few": lambda x: own.LayerNorm()(conv(x)),
        "root mean square of few": lambda x: layers.RMSNormalization()(conv(x)),
        "jump": lambda x: layers.Activation("hard_shrink")(between(x)),
        "jump of a convolution": lambda x: layers.Conv2D(
            4, 1, activation="hard_shrink", bias_initializer=keras.initializers.Constant(2**-12)
        )(x),
        "jumping relu": lambda x: layers.ReLU(threshold=0.5)(between(x)),
    },
    # Of many values: smaller than the largest of them.
    "averages": {
        "large window": lambda x: layers.AveragePooling2D(8)(layers.ReLU()(conv(x))),
        "padded window": lambda x: layers.AveragePooling2D(7, 1, "same")(layers.ReLU()(conv(x))),
        "of rows": lambda x: layers.AveragePooling1D(16)(layers.ReLU()(rows(conv(x)))),
        "adaptive": lambda x: layers.AdaptiveAveragePooling2D(2)(layers.ReLU()(conv(x))),
        "operation": lambda x: ops.average_pool(ops.relu(conv(x)), 8),
    },
}
WAYS = {
    "to_litert": lambda model, path, **how: to_litert(
        model, path, quantization="int8", representative_data=IMAGES, **how
    ),
    "calibrate": lambda model, path, **how: compress.calibrate(model, IMAGES, path, **how),
    "quantize_aware": lambda model, path, **how: to_litert(
        compress.quantize_aware(model, calibration_data=IMAGES), path, **how
    ),
}


def build(cases):
    """One model with an output per case."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 6), name="images")
    outputs = {name.replace(" ", "_"): case(images) for name, case in cases.items()}
    model = keras.Model(images, {"probabilities": conv(images), **outputs}, name="net")
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(ops.round(weight * 64) / 64)
    return model


def far(model, path, batch_size=1):
    """Output -> how many steps the file is from the model, where it is more than 3."""
    interpreter = Interpreter(str(path))
    run = interpreter.get_signature_runner()
    size = batch_size or 4
    found = [run(images=IMAGES[start : start + size]) for start in range(0, 8, size)]
    steps = {}
    for name, values in model(IMAGES[:8]).items():
        wanted, got = np.asarray(values), np.concatenate([outputs[name] for outputs in found])
        step = max((max(wanted.max(), 0) - min(wanted.min(), 0)) / 255, 1e-6)
        assert got.shape == wanted.shape
        steps[name] = float(np.abs(got - wanted).max() / step)
    return {name: n for name, n in steps.items() if not n <= 3}


# Of each group, in `make test`; `make test-all` tries all, with an open batch, too.
SAMPLE = {
    "activations": ("exponential", "softplus", "hard_shrink"),
    "activations of convolutions": ("celu", "silu"),
    "activation layers": ("relu4", "where"),
    "normalizations": ("layer of maps", "unit of zeros", "group"),
    "pooling": ("of rows", "adaptive average", "minus infinity"),
    "merging": ("quotient", "concatenate", "dead summand"),
    "reshaping": ("permute", "ones"),
    "steep": ("cosine", "shares", "own norm of few", "jump of a convolution"),
    "averages": ("large window",),
}


@pytest.mark.parametrize("way", WAYS)
def test_int8_answers_of_a_sample_are_right(way, tmp_path):
    model = build({f"{group} {name}": CASES[group][name] for group, names in SAMPLE.items() for name in names})
    assert not far(model, WAYS[way](model, tmp_path / "net.tflite"))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, None])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("group", CASES)
def test_int8_answers_are_right(group, way, batch_size, tmp_path):
    model = build(CASES[group])
    assert not far(model, WAYS[way](model, tmp_path / "net.tflite", batch_size=batch_size), batch_size)
