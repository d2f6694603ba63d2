"""Weight clustering of Keras 3 models: every kernel keeps a few values."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from keraslight.compress._fine_tune import check_callback, check_epochs, fine_tune
from keraslight.compress._rewrites import fuse
from keraslight.compress.pruning.sparsity import kernel_of, prunable_layers
from keraslight.errors import InvalidArgumentError
from keraslight.graph import without_auxiliary

INITIALIZATIONS = ("kmeans", "kmeans++", "density", "linear")


class Clustering(keras.callbacks.Callback):
    """Restricts each kernel to a few distinct values during a model's own `fit`.

    Every weight equals one of its kernel's centroids before the first step and after each step. A step moves a centroid
    by the mean of the optimizer's updates to its weights, and records where each weight would be without clustering;
    then each weight is assigned to the nearest centroid. This is tensorflow_model_optimization's algorithm with the
    mean in place of the sum, which adaptive optimizers need.

    In a file, batch norms are folded into kernels, which gives each output channel its own multiple of the values: to
    have few values in the file, fuse the model first, as `cluster` does.

    Source of weight sharing: Han et al., "Deep compression", https://arxiv.org/abs/1510.00149, section 3.

    Args:
        clusters: Distinct values per kernel, at least 2. Kernels with fewer than twice as many nonzero weights are left
            unchanged.
        initialization: Initial centroids: `"kmeans"` (k-means++, then Lloyd's algorithm), `"kmeans++"`, `"density"` (at
            equal shares of the weights) or `"linear"` (evenly from the smallest to the largest weight).
        layers: Name patterns (`fnmatch`) of the layers to cluster; None clusters every Conv2D, SeparableConv2D (its
            1x1 kernel) and Dense except the first convolution, because depthwise kernels lose the most and have the
            fewest weights. Frozen layers (`trainable=False`) are not clustered.
        preserve_sparsity: Keep the zeros of pruned kernels: one of their values is then zero, and `clusters` must be at
            least 3.

    Raises:
        InvalidArgumentError: An argument is out of range, a pattern matches nothing, or the model runs several steps
            per execution.
        CompressionError: The model is subclassed, or Keras does not run on TensorFlow.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """

    def __init__(
        self,
        clusters: int = 16,
        *,
        initialization: str = "kmeans",
        layers: str | Sequence[str] | None = None,
        preserve_sparsity: bool = True,
    ):
        super().__init__()
        least = 3 if preserve_sparsity else 2
        if clusters < least:
            raise InvalidArgumentError(
                f"`clusters` must be at least 2, or 3 to preserve sparsity. Received: clusters={clusters}, "
                f"preserve_sparsity={preserve_sparsity}."
            )
        if initialization not in INITIALIZATIONS:
            raise InvalidArgumentError(
                f"`initialization` must be one of {INITIALIZATIONS}. Received: {initialization!r}."
            )
        self.clusters, self.initialization = clusters, initialization
        self.layers, self.preserve_sparsity = layers, preserve_sparsity
        self._state: Any = None  # a `_tfmot.clustering.Clusters`

    def on_train_begin(self, logs: Any = None) -> None:
        check_callback(self.model, "Clustering")
        self.apply(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._state.apply()

    def apply(self, model: keras.Model) -> None:
        """Clusters a model's kernels as they are, without training."""
        from keraslight.compress._tfmot import clustering

        kernels = []
        for layer in prunable_layers(model, self.layers).values():
            kernel = kernel_of(layer)
            values = np.asarray(kernel, np.float32)
            zeros = int((values == 0).sum())
            if values.size - zeros >= 2 * self.clusters:
                keep_zero = self.preserve_sparsity and zeros > 0
                first = clustering.centroids(values, self.clusters, self.initialization, keep_zero)
                kernels.append((kernel.value, first))
        self._state = clustering.Clusters(kernels, self.preserve_sparsity)


def cluster(
    model: keras.Model,
    data: Any = None,
    *,
    clusters: int = 16,
    epochs: int = 3,
    validation_data: Any = None,
    learning_rate: float = 1e-4,
    initialization: str = "kmeans",
    layers: str | Sequence[str] | None = None,
    preserve_sparsity: bool = True,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    loss: Any = None,
    task: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int | str = "auto",
) -> keras.Model:
    """Makes a fused copy of a trained model whose kernels have few distinct values, and fine-tunes it.

    The file has the same size, but compresses to a fraction of it (app downloads are compressed), and hardware with
    look-up tables for weights can use it. The model is fused first, because folding a batch norm into a kernel
    afterwards would give each output channel its own values.

    Frozen layers (`trainable=False`) are neither clustered nor trained, and a layer that one of them was merged with
    neither.

    Args:
        model: A trained functional or sequential image classifier. It is not changed.
        data: Images and labels, in any form that `prune` takes; None clusters without training.
        clusters, initialization, layers, preserve_sparsity: As in `Clustering`.
        epochs: Passes over `data`, at least 1.
        validation_data: As `data`, or None.
        learning_rate: Initial (highest) learning rate; low, because the fused model has no batch norms.
        callbacks: Additional Keras callbacks.
        loss: A Keras loss; None uses the loss of the model's task: cross-entropy, for `multi-label` and `binary` of
            each score by itself, or for `regression` the mean squared error.
        task: What the outputs are: `"softmax"` (one of several classes), `"multi-label"` (independent scores),
            `"binary"` (one score) or `"regression"`. None takes what the final activation says (softmax, sigmoid, or
            several logits) or what the model remembers. The result remembers it.
        batch_size: Images per batch if `data` is arrays.
        seed: Seed of the shuffling and everything else.
        verbose: As in `fit`.

    Returns:
        The clustered model, as `fuse` gives it; compiled, if it was trained.

    Raises:
        InvalidArgumentError: An argument is out of range, a pattern matches no layer of the fused model, the task must
            be said, or the labels don't fit it.
        CompressionError: The model is subclassed, or a layer's configuration does not make it again.
        MissingDependencyError: tensorflow-model-optimization is not installed.
    """
    clustering = Clustering(clusters, initialization=initialization, layers=layers, preserve_sparsity=preserve_sparsity)
    check_epochs(epochs)
    keras.utils.set_random_seed(seed)
    fused = fuse(without_auxiliary(model))
    if data is None:
        clustering.apply(fused)
        return fused
    fine_tune(
        fused,
        data,
        epochs=epochs,
        validation_data=validation_data,
        learning_rate=learning_rate,
        callbacks=[clustering, *callbacks],
        loss=loss,
        task=task,
        batch_size=batch_size,
        seed=seed,
        verbose=verbose,
    )
    return fused
