"""Compresses trained Keras models: pruning, clustering, int8 by training or by calibration, fusing, half precision.

Every function takes a `keras.Model` and returns a new one (`calibrate` writes a LiteRT file).
tensorflow_model_optimization and tf_keras are imported only when a function needs them; Keras 3 keeps working next to
them.

    pruning/         zeros in kernels: the callback, the library's wrappers, sensitivity, reports
    clustering/      few distinct values in kernels
    quantization/    int8: quantization-aware training, calibration, mixed precision
    _tfmot/          the only code that imports tensorflow_model_optimization and tf_keras
    _registered.py   users' own tf_keras twins
    _rewrites.py     fusing, reparameterization, half precision
"""

from keraslight.compress._batch_norm import settle_batch_norms
from keraslight.compress._bridge import run_in_keras, to_tf_keras
from keraslight.compress._registered import register_twin
from keraslight.compress._rewrites import fuse, half, reparameterize
from keraslight.compress.clustering.callback import Clustering, cluster
from keraslight.compress.clustering.report import ClusterReport, LayerClusters, cluster_report
from keraslight.compress.pruning.callback import Pruning, prune
from keraslight.compress.pruning.sensitivity import SensitivityReport, sensitivity
from keraslight.compress.pruning.sparsity import LayerSparsity, SparsityReport, sparsity
from keraslight.compress.pruning.wrappers import pruning_step_callback, strip_pruning, wrap_pruning
from keraslight.compress.quantization.aware import (
    LayerPrecision,
    QuantizationReport,
    quantization_report,
    quantize_aware,
    quantized_weights_to_keras,
    train_quantized,
)
from keraslight.compress.quantization.calibrate import calibrate
from keraslight.compress.quantization.equalize import correct_bias, equalize
from keraslight.compress.quantization.judge import QuantizationCost
from keraslight.compress.quantization.mixed import (
    MixedPrecision,
    QuantizationSensitivity,
    calibrate_mixed,
    quantization_sensitivity,
)

__all__ = [
    "ClusterReport",
    "Clustering",
    "LayerClusters",
    "LayerPrecision",
    "LayerSparsity",
    "MixedPrecision",
    "Pruning",
    "QuantizationCost",
    "QuantizationReport",
    "QuantizationSensitivity",
    "SensitivityReport",
    "SparsityReport",
    "calibrate",
    "calibrate_mixed",
    "cluster",
    "cluster_report",
    "correct_bias",
    "equalize",
    "fuse",
    "half",
    "prune",
    "pruning_step_callback",
    "quantization_report",
    "quantization_sensitivity",
    "quantize_aware",
    "quantized_weights_to_keras",
    "register_twin",
    "reparameterize",
    "run_in_keras",
    "sensitivity",
    "settle_batch_norms",
    "sparsity",
    "strip_pruning",
    "to_tf_keras",
    "train_quantized",
    "wrap_pruning",
]
