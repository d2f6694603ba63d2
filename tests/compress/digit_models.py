"""One small variant of each family, for 32x32 digits (larger where the family needs it), and what is measured on them.

Narrow, so that the whole list builds, quantizes and converts in minutes; wide enough that each has every kind of
block of its family.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import filelock
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from sklearn.datasets import load_digits

import keraslight
import keraslight.zoo
from keraslight import compress, registry

# The operators of a .tflite file that have a kernel.
KERNELS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")

# family -> (variant, width, image side)
SMALL = {
    "AlexNet": ("alexnet_2012", 0.125, 67),
    "ConvNeXt": ("convnext_tiny", 0.125, 32),
    "ConvNeXtV2": ("convnext_v2_atto", 0.25, 32),
    "DenseNet": ("densenet121", 0.25, 32),
    "EfficientNet": ("efficientnet_b0", 0.25, 32),
    "EfficientNetV2": ("efficientnet_v2_b0", 0.25, 32),
    "GhostNet": ("ghostnet_050", 0.25, 32),
    "GoogLeNet": ("googlenet", 0.25, 32),
    "LeNet5": ("lenet5_paper", 1.0, 32),
    "MobileNetV1": ("mobilenet_v1_025", 0.25, 32),
    "MobileNetV2": ("mobilenet_v2_035", 0.35, 32),
    "MobileNetV3": ("mobilenet_v3_small_050", 0.5, 32),
    "MobileNetV4": ("mobilenet_v4_hybrid_medium", 0.125, 32),
    "MobileNeXt": ("mobilenext_035", 0.35, 32),
    "RepVGG": ("repvgg_a0", 0.125, 32),
    "ResNet": ("resnet18", 0.125, 32),
    "ShuffleNetV1": ("shufflenet_v1_g3_050", 0.5, 32),
    "ShuffleNetV2": ("shufflenet_v2_050_megvii", 0.5, 32),
    "ShuffleNetV2Plus": ("shufflenet_v2_plus_small", 0.5, 32),
    "SqueezeNet": ("squeezenet_1_1", 0.25, 32),
    "VGG": ("vgg11_bn", 0.125, 32),
    "Xception": ("xception", 0.125, 64),
}


def families() -> list[str]:
    """Every registered family; one that has no small variant here fails the tests rather than being left out."""
    return sorted(family.name for family in registry.FAMILIES.values())


def build(
    family: str, seed: int = 0, width: float | None = None, side: int | None = None, **options: float
) -> keras.Model:
    """The small variant: normalized (B, side, side, 1) images -> probabilities of 10 classes."""
    keras.utils.set_random_seed(seed)
    variant, narrow, small = SMALL[family]
    side = side or small
    return keraslight.create_model(variant, width=width or narrow, classes=10, input_shape=(side, side, 1), **options)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a small variant reaches 97% on the digits: AdamW, an epoch of warm-up, a cosine, clipped gradients.

    Attributes:
        epochs: Passes over the training images, in batches of 64.
        learning_rate: The highest one, after the first epoch.
        width: Instead of that in `SMALL`, where that is too narrow to learn the digits.
        side: Instead of that in `SMALL`: a net that has made 1x1 pixels of 32x32 before its last stages learns little.
        shift: The largest random move of a training image, in pixels, or 0 for the images as they are.
        options: More keywords of the builder: a dropout or layer scale that suits 1,400 images.
        he: Whether kernels start from He's normal distribution. Keras' Glorot loses half of the signal's variance in
            every ReLU layer; where no normalization restores it, nothing is left after ten of them.
        bias: Where the classifier's bias starts. SqueezeNet's logits pass a ReLU: a class whose logit is negative on
            every image would never come back.
    """

    epochs: int
    learning_rate: float = 5e-3
    width: float | None = None
    side: int | None = None
    shift: int = 1
    options: Mapping[str, float] = dataclasses.field(default_factory=dict)
    he: bool = False
    bias: float = 0.0


# family -> the recipe that brings it to at least 97%; families without one are left to their own tests
RECIPES: dict[str, Recipe] = {
    "AlexNet": Recipe(12, 1e-3, options={"dropout": 0.0}, he=True),
    "ConvNeXt": Recipe(15, 4e-3, width=0.25, options={"layer_scale": 0.1}),
    "ConvNeXtV2": Recipe(12, 2e-3, width=0.5),
    "DenseNet": Recipe(10),
    "EfficientNet": Recipe(12, width=0.5),
    "EfficientNetV2": Recipe(12, width=0.35),
    "GhostNet": Recipe(12, width=0.5),
    "GoogLeNet": Recipe(12),
    "LeNet5": Recipe(10, shift=0),
    "MobileNeXt": Recipe(12, width=0.5),
    "MobileNetV1": Recipe(12, width=0.5),
    "MobileNetV2": Recipe(12, width=0.7),
    "MobileNetV3": Recipe(12),
    "MobileNetV4": Recipe(12, 3e-3, width=0.25, options={"layer_scale": 0.1}),
    "RepVGG": Recipe(12, width=0.25),
    "ResNet": Recipe(10),
    "ShuffleNetV1": Recipe(15, width=1.0),
    "ShuffleNetV2": Recipe(12, width=1.0),
    "ShuffleNetV2Plus": Recipe(12, width=0.75),
    "SqueezeNet": Recipe(20, 2e-3, width=0.5, side=48, options={"dropout": 0.0}, he=True, bias=1.0),
    "VGG": Recipe(8, 3e-3),
    "Xception": Recipe(10),
}


@functools.cache
def digits(side: int):
    """((images, labels) to train on, (images, labels) to test on): (n, side, side, 1) in about -1..1, 1400 and 397."""
    source = load_digits()
    images = tf.image.resize(source.images[..., None] / 8 - 1, (side, side)).numpy()
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].astype("float32"), source.target[order]
    return (images[:1400], labels[:1400]), (images[1400:], labels[1400:])


def built(family: str) -> keras.Model:
    """The small variant as its recipe wants it, not trained."""
    recipe = RECIPES[family]
    return build(family, width=recipe.width, side=recipe.side, **recipe.options)


def trained(family: str, folder: Path) -> keras.Model:
    """The small variant after its recipe; the weights are kept in `folder`, where other workers find them.

    Args:
        family: A key of `RECIPES`.
        folder: Where the weights lie, such as pytest's cache. What changes the training gives the file another name.
    """
    recipe = RECIPES[family]
    model = built(family)
    key = f"{SMALL[family]} {recipe} {[tuple(w.shape) for w in model.weights]} keras {keras.__version__}"
    path = folder / f"{family}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.weights.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if path.exists():
            model.load_weights(path)
            return model
        data = batches(family)
        steps = len(data)
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, (recipe.epochs - 1) * steps, warmup_target=recipe.learning_rate, warmup_steps=steps
        )
        optimizer = keras.optimizers.AdamW(rate, clipnorm=1.0)
        model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
        optimizer.build(model.trainable_variables)  # else the first step is traced twice
        if recipe.he:
            _start_as_he(model)
        if recipe.bias:
            model.get_layer("classifier").bias.assign(np.full(10, recipe.bias))
        model.fit(data, epochs=recipe.epochs, shuffle=False, verbose=0)
        # The averages of a momentum of 0.99 (EfficientNet) need thousands of steps: without this it is right on 8%.
        compress.settle_batch_norms(model, digits(model.input_shape[1])[0])
        model.save_weights(path)
    return model


def _start_as_he(model: keras.Model) -> None:
    """He et al., https://arxiv.org/abs/1502.01852, equation 10: the variance 2 / inputs, and no bias."""
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            shape = layer.kernel.shape
            layer.kernel.assign(random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape))


def batches(family: str, size: int = 64) -> tf.data.Dataset:
    """The images to train on, `size` a batch, each moved as the recipe says over background."""
    shift = RECIPES[family].shift
    images, labels = digits(RECIPES[family].side or SMALL[family][2])[0]
    shuffled = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images), seed=0)
    if not shift:
        return shuffled.batch(size)
    margins = [[shift, shift], [shift, shift], [0, 0]]

    def move(image, label):
        return tf.image.random_crop(tf.pad(image, margins, constant_values=-1.0), image.shape, seed=0), label

    return shuffled.map(move).batch(size)


def accuracy(model, side: int) -> float:
    """A Keras or tf_keras model's share of right answers on the test digits."""
    images, labels = digits(side)[1]
    return float((model.predict(images, batch_size=64, verbose=0).argmax(-1) == labels).mean())


def file_answers(path: Path, side: int) -> np.ndarray:
    """The classes that a .tflite file with batch size 1 gives the test digits."""
    run = Interpreter(str(path), num_threads=1).get_signature_runner("serving_default")
    images, _ = digits(side)[1]
    return np.asarray([run(images=image[None])["probabilities"][0].argmax() for image in images])


def file_accuracy(path: Path, side: int) -> float:
    """The file's share of right answers."""
    return float(np.mean(file_answers(path, side) == digits(side)[1][1]))


def belongs_to(operator, names: Iterable[str]) -> bool:
    """Whether an operator of a .tflite file was made of one of these Keras layers."""
    return any(f"/{name}/" in operator.name or f"/quant_{name}/" in operator.name for name in names)
