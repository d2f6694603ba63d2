"""Makes trained Keras models smaller: pruning, quantization-aware training, folding of batch norms and branches.

Everything takes a `keras.Model` and gives a new one. tensorflow_model_optimization and tf_keras are imported only
when something asks for them; Keras 3 goes on working beside them.
"""

from keraslight.compress._bridge import register_twin, run_in_keras, to_tf_keras
from keraslight.compress._fuse import fuse
from keraslight.compress._pruning import Pruning, prune
from keraslight.compress._quantize import (
    LayerPrecision,
    QuantizationReport,
    quantization_report,
    quantize_aware,
    quantized_weights_to_keras,
    train_quantized,
)
from keraslight.compress._reparameterize import reparameterize
from keraslight.compress._sparsity import LayerSparsity, SparsityReport, sparsity

__all__ = [
    "LayerPrecision",
    "LayerSparsity",
    "Pruning",
    "QuantizationReport",
    "SparsityReport",
    "fuse",
    "prune",
    "quantization_report",
    "quantize_aware",
    "quantized_weights_to_keras",
    "register_twin",
    "reparameterize",
    "run_in_keras",
    "sparsity",
    "to_tf_keras",
    "train_quantized",
]
