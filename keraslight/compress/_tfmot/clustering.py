"""The library's weight clustering, driven on Keras 3 variables between training steps.

The library's wrapper keeps two sets of weights and trains both: the original ones, by the gradient of the clustered
ones as it is, and the centroids, by its sum or mean over each cluster; in the next forward pass every weight takes the
nearest centroid. An optimizer's step on the clustered kernel is all that is needed to do the same from outside: what
it adds to each weight goes to the original weight, and its mean over a cluster to the centroid. With plain gradient
descent the numbers are those of the wrapper with `GradientAggregation.AVG`.
"""

import numpy as np
import tensorflow as tf
from tensorflow_model_optimization.python.core.clustering.keras import cluster_config, clustering_centroids

_INITIALIZATIONS = {
    "kmeans": cluster_config.CentroidInitialization.KMEANS_PLUS_PLUS,
    "kmeans++": cluster_config.CentroidInitialization.KMEANS_PLUS_PLUS,
    "density": cluster_config.CentroidInitialization.DENSITY_BASED,
    "linear": cluster_config.CentroidInitialization.LINEAR,
}
_ROUNDS = 100


def centroids(kernel: np.ndarray, clusters: int, initialization: str, keep_zero: bool) -> np.ndarray:
    """The first centroids of a kernel, float32 (clusters,) or fewer.

    Args:
        kernel: Any shape.
        clusters: How many, at least 2; 3 with `keep_zero`.
        initialization: `"kmeans++"` (seeded inside the library), `"density"` or `"linear"` as the library has them, or
            `"kmeans"`: the first one, then moved to the means of their clusters until they stay.
        keep_zero: Whether one of them is 0.
    """
    kind = clustering_centroids.CentroidsInitializerFactory.get_centroid_initializer(_INITIALIZATIONS[initialization])
    found = kind(tf.constant(kernel), clusters, preserve_sparsity=keep_zero).get_cluster_centroids().numpy()
    return _settled(kernel, found, keep_zero) if initialization == "kmeans" else found


def _settled(kernel: np.ndarray, first: np.ndarray, keep_zero: bool) -> np.ndarray:
    """Lloyd's algorithm in one dimension: each centroid becomes the mean of the weights nearest to it."""
    values = np.sort(kernel.reshape(-1)).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    found = np.sort(first.astype(np.float64))
    for _ in range(_ROUNDS):
        ends = np.concatenate([[0], np.searchsorted(values, (found[1:] + found[:-1]) / 2), [len(values)]])
        counts = np.diff(ends)
        means = np.where(counts > 0, np.diff(sums[ends]) / np.maximum(counts, 1), found)
        if keep_zero:
            means[np.abs(found).argmin()] = 0
        if np.array_equal(means, found):
            break
        found = means
    return found.astype(np.float32)


class Clusters:
    """The clusters of some kernels, which it clusters at once, and what happens to them after a training step.

    Args:
        kernels: Kernel and first centroids (N,) of each: a `tf.Variable` and an array.
        keep_zeros: Whether weights that are 0 stay so, in the kernels of which one centroid is 0.
    """

    def __init__(self, kernels: list[tuple[tf.Variable, np.ndarray]], keep_zeros: bool):
        self._kernels = [_Kernel(kernel, first, keep_zeros and bool((first == 0).any())) for kernel, first in kernels]
        self._apply_all = tf.function(
            self._apply
        )  # kernel by kernel it would cost more than a small net's training step

    def apply(self) -> None:
        """After a training step: moves the centroids and gives every weight the nearest one."""
        self._apply_all()

    def _apply(self) -> None:
        for kernel in self._kernels:
            kernel.apply()


class _Kernel:
    def __init__(self, kernel: tf.Variable, first: np.ndarray, keep_zero: bool):
        self._kernel = kernel
        # In float32, also for a kernel of float16 or float64, in which it only has the result.
        self._centroids = tf.Variable(first, trainable=False, name="centroids")
        self._original = tf.Variable(tf.cast(kernel, tf.float32), trainable=False, name="original")
        self._indices = tf.Variable(self._nearest(), trainable=False, name="indices")
        kernel.assign(self._clustered())
        # What is zero now stays with the zero centroid, and that is told by its place: others may come close to it.
        self._free = tf.cast(kernel != 0, tf.float32) if keep_zero else tf.ones(())
        self._moving = tf.constant(first != 0, tf.float32) if keep_zero else tf.ones(())
        self._original.assign(self._original * self._free)

    def apply(self) -> None:
        step = tf.cast(self._kernel - self._clustered(), tf.float32)
        self._original.assign_add(step * self._free)
        count = self._centroids.shape[0]
        moves = tf.math.unsorted_segment_mean(tf.reshape(step, [-1]), tf.reshape(self._indices, [-1]), count)
        self._centroids.assign_add(moves * self._moving)
        self._indices.assign(self._nearest())
        self._kernel.assign(self._clustered())

    def _clustered(self) -> tf.Tensor:
        """The kernel with the nearest centroid for every weight."""
        return tf.cast(tf.gather(self._centroids, self._indices), self._kernel.dtype)

    def _nearest(self) -> tf.Tensor:
        """The place of the nearest centroid for every weight.

        The library compares each weight with each centroid, which takes their product in memory: gigabytes for VGG.
        """
        order = tf.argsort(self._centroids)
        ranked = tf.gather(self._centroids, order)
        places = tf.searchsorted((ranked[1:] + ranked[:-1]) / 2, tf.reshape(self._original, [-1]))
        return tf.reshape(tf.gather(order, places), self._kernel.shape)
