"""Makes trained Keras models smaller: pruning, int8 by training or by calibration, fusing of layers, half precision.

Everything takes a `keras.Model` and gives a new one (`calibrate` a LiteRT file). tensorflow_model_optimization and
tf_keras are imported only when something asks for them; Keras 3 goes on working beside them.
"""

from keraslight.compress._batch_norm import settle_batch_norms
from keraslight.compress._bridge import register_twin, run_in_keras, to_tf_keras
from keraslight.compress._calibrate import calibrate
from keraslight.compress._clustering import Clustering, cluster
from keraslight.compress._clusters import ClusterReport, LayerClusters, cluster_report
from keraslight.compress._equalize import correct_bias, equalize
from keraslight.compress._fuse import fuse
from keraslight.compress._half import half
from keraslight.compress._judge import QuantizationCost
from keraslight.compress._mixed import (
    MixedPrecision,
    QuantizationSensitivity,
    calibrate_mixed,
    quantization_sensitivity,
)
from keraslight.compress._pruning import Pruning, prune
from keraslight.compress._pruning_wrapper import pruning_step_callback, strip_pruning, wrap_pruning
from keraslight.compress._quantize import (
    LayerPrecision,
    QuantizationReport,
    quantization_report,
    quantize_aware,
    quantized_weights_to_keras,
    train_quantized,
)
from keraslight.compress._reparameterize import reparameterize
from keraslight.compress._sensitivity import SensitivityReport, sensitivity
from keraslight.compress._sparsity import LayerSparsity, SparsityReport, sparsity

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
