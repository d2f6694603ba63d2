"""The signatures of a servable, and the SavedModel that contains them."""

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keraslight._image_files import DECODED, image_size
from keraslight._tasks import Head
from keraslight.export._frozen import VALUES_NAME, tracing
from keraslight.labels import label_lines
from keraslight.preprocessing import Preprocessing

CLASSIFY_METHOD = "tensorflow/serving/classify"

REGRESS_METHOD = "tensorflow/serving/regress"


def pipelines(head: Head, thresholds: Sequence[float] | None) -> dict[str, dict[str, Any]]:
    """Signatures that are compositions of others, so that a server may run the network elsewhere, as in model.tflite.

    `decode` is the signature that returns the images and `network` the one that takes them. The network's output `rank`
    is sorted, best first, into `scores`, `indices` and `classes`; the `thresholds` of the classes follow its order.
    Without `decode` the images are cast to float32.
    """
    rank: dict[str, Any] = {"rank": "probabilities"} if head.ranks else {}
    limits = {} if thresholds is None else {"thresholds": thresholds}
    found: dict[str, dict[str, Any]] = {
        "serving_uint8": {"network": "serving_default"},
        "encoded": {"decode": "decode", "network": "serving_default", **rank, **limits},
    }
    if (name := examples_signature(head)) is not None:
        found[name] = {"decode": "decode_examples", "network": "serving_default", **rank}
    return found


def examples_signature(head: Head) -> str | None:
    """The signature for TensorFlow Serving's Classify or Regress; None for a regression of several numbers."""
    if head.ranks:
        return "classify"
    return "regress" if head.units == 1 else None


_DECODED, _TOO_LARGE = 0, 1
_PARALLEL_DECODES = 4


def write_saved_model(
    model: Any,
    directory: Path,
    labels: list[str],
    spec: Preprocessing,
    head: Head,
    thresholds: Sequence[float] | None,
    *,
    embed: bool,
    max_pixels: int,
) -> None:
    """Writes `saved_model.pb`, `variables/` and, with labels, `assets/labels.txt`."""
    signatures = _signatures(model, labels, spec, head, thresholds, embed, max_pixels)
    with tempfile.TemporaryDirectory() as scratch:
        labels_file = Path(scratch, "labels.txt")  # an asset keeps its file's name
        labels_file.write_text(label_lines(labels), encoding="utf-8", newline="\n")
        module = tf.Module()
        # TensorFlow's variables, not the model: tracking a Keras model writes each variable twice.
        keras_3 = isinstance(model, keras.Model)
        module.weights = [variable.value if keras_3 else variable for variable in model.variables]
        if labels:
            module.labels = tf.saved_model.Asset(str(labels_file))
        tf.saved_model.save(module, str(directory), signatures=signatures)
    # TensorFlow 2 writes the predict method for every signature.
    if (examples := examples_signature(head)) is None:
        return
    method = CLASSIFY_METHOD if head.ranks else REGRESS_METHOD
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(directory))
    updater.replace_method_name(signature_key=examples, method_name=method, tags="serve")
    updater.save()


def _signatures(
    model: Any,
    labels: list[str],
    spec: Preprocessing,
    head: Head,
    thresholds: Sequence[float] | None,
    with_embed: bool,
    max_pixels: int,
) -> dict[str, Callable[..., Any]]:
    """Name -> function; see `save_servable` for inputs and outputs."""
    names, limits = tf.constant(labels), tf.constant(thresholds or [], tf.float32)
    shape = (*spec.size, spec.channels)

    # All signatures call one function, so that the graph is traced and written once.
    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32)], autograph=False)
    def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with tracing():
            outputs = model(images, training=False)
        return {name: tf.cast(output, tf.float32) for name, output in outputs.items()}

    def scores(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = infer(images)
        return {name: outputs[name] for name in (("probabilities", "logits") if head.ranks else (VALUES_NAME,))}

    def ranked(probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
        best, indices = tf.math.top_k(probabilities, k=len(labels))
        found = {"classes": tf.gather(names, indices), "scores": best, "indices": indices}
        return found if thresholds is None else {**found, "thresholds": tf.gather(limits, indices)}

    def signature(*specs: tf.TensorSpec) -> Callable[..., Any]:
        return tf.function(input_signature=specs, autograph=False)

    @signature(tf.TensorSpec((None, *shape), tf.float32, name="images"))
    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return scores(images)

    @signature(tf.TensorSpec((None, *shape), tf.uint8, name="images"))
    def serving_uint8(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return scores(tf.cast(images, tf.float32))

    @signature(tf.TensorSpec((None,), tf.string, name="image_bytes"))
    def decode(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"images": _decode(image_bytes, None, spec, max_pixels, "image_bytes")}

    @signature(tf.TensorSpec((None,), tf.string, name="inputs"))
    def decode_examples(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        bytes_feature = tf.io.FixedLenFeature((), tf.string, default_value="")
        features = tf.io.parse_example(inputs, {"image/encoded": bytes_feature, "image/pixels": bytes_feature})
        images = _decode(features["image/encoded"], features["image/pixels"], spec, max_pixels, "inputs")
        return {"images": images}

    @signature(tf.TensorSpec((None,), tf.string, name="image_bytes"))
    def encoded(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = infer(decode(image_bytes)["images"])
        if not head.ranks:
            return {VALUES_NAME: outputs[VALUES_NAME]}
        return {"probabilities": outputs["probabilities"], **ranked(outputs["probabilities"])}

    @signature(tf.TensorSpec((None,), tf.string, name="inputs"))
    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = ranked(infer(decode_examples(inputs)["images"])["probabilities"])
        return {"classes": outputs["classes"], "scores": outputs["scores"]}

    @signature(tf.TensorSpec((None,), tf.string, name="inputs"))
    def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {VALUES_NAME: infer(decode_examples(inputs)["images"])[VALUES_NAME]}

    @signature(tf.TensorSpec((None, *shape), tf.float32, name="images"))
    def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"embedding": infer(images)["embedding"]}

    signatures = {
        "serving_default": serving_default,
        "serving_uint8": serving_uint8,
        "encoded": encoded,
        **{name: {"classify": classify, "regress": regress}[name] for name in (examples_signature(head),) if name},
        "decode": decode,
        "decode_examples": decode_examples,
    }
    return {**signatures, "embed": embed} if with_embed else signatures


def _decode(files: tf.Tensor, raw: tf.Tensor | None, spec: Preprocessing, max_pixels: int, alias: str) -> tf.Tensor:
    """Files (B,), or H * W * C pixels where `raw` has bytes, -> images (B, H, W, C).

    TensorFlow's decoders don't say which image failed. A data set can drop elements that fail, so the missing ones are
    those that failed.
    """
    shape = (*spec.size, spec.channels)
    nothing = tf.zeros(shape)
    count = tf.size(files, out_type=tf.int64)

    def decode_file(index: tf.Tensor, file: tf.Tensor) -> tuple[tf.Tensor, ...]:
        size = image_size(file)
        # Known formats only: without a size the limit can't be checked. A size of 0 fails.
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(size > 0), ["no size"])]):
            too_large = size[0] > max_pixels // size[1]  # the product of two such claims may not fit an int64
        return tf.cond(
            too_large,
            lambda: (index, tf.constant(_TOO_LARGE), nothing),
            lambda: (index, tf.constant(_DECODED), spec.decode(file)),
        )

    def decode_either(index: tf.Tensor, file: tf.Tensor, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        no_pixels = tf.equal(tf.strings.length(pixels), 0)
        one_of_them = tf.not_equal(no_pixels, tf.equal(tf.strings.length(file), 0))
        with tf.control_dependencies([tf.debugging.Assert(one_of_them, ["both or none"])]):
            no_pixels = tf.identity(no_pixels)
        return tf.cond(
            no_pixels,
            lambda: decode_file(index, file),
            lambda: (
                index,
                tf.constant(_DECODED),
                tf.cast(tf.reshape(tf.io.decode_raw(pixels, tf.uint8), shape), tf.float32),
            ),
        )

    parts = (tf.range(count), files) if raw is None else (tf.range(count), files, raw)
    images = tf.data.Dataset.from_tensor_slices(parts)
    images = images.map(decode_file if raw is None else decode_either, num_parallel_calls=_PARALLEL_DECODES)
    images = images.ignore_errors()
    # One more element, so that there is a batch even if every image fails.
    end = tf.data.Dataset.from_tensors((count, tf.constant(_DECODED), nothing))
    options = tf.data.Options()
    options.autotune.enabled = False  # it would start a thread for every call
    options.experimental_optimization.apply_default_optimizations = False  # these would cost more than they save
    indices, states, pixels = images.concatenate(end).batch(count + 1).with_options(options).get_single_element()
    missing = tf.sets.difference(tf.range(count)[None], indices[None]).values
    large = tf.boolean_mask(indices, tf.equal(states, _TOO_LARGE))
    kinds = f"a {', '.join(list(DECODED)[:-1])} or {list(DECODED)[-1]} file"
    if raw is not None:
        kinds += f" in image/encoded or {math.prod(shape)} bytes in image/pixels"
    undecodable = f"`{alias}` must each be {kinds} that can be decoded. Received: others at index"
    oversized = f"`{alias}` must be images of at most {max_pixels} pixels. Received: larger ones at index"
    checks = [
        tf.debugging.Assert(tf.equal(tf.size(failed), 0), [text, failed], summarize=16)
        for text, failed in ((undecodable, missing), (oversized, large))
    ]
    with tf.control_dependencies(checks):
        return tf.ensure_shape(pixels[:-1], (None, *shape))
