"""Compresses trained Keras models: pruning, fewer channels, clustering, int8 by training or calibration, fusing, fp16.

Every function takes a `keras.Model` and returns a new one (`calibrate` writes a LiteRT file).
tensorflow_model_optimization and tf_keras are imported only when a function needs them; Keras 3 keeps working next to
them.

    pruning/         zeros in kernels: the callback, the library's wrappers, sensitivity, reports
    clustering/      few distinct values in kernels
    quantization/    int8: quantization-aware training, calibration, mixed precision
    channels/        fewer channels: which belong together, models without some of them, NetAdapt
    _tfmot/          the only code that imports tensorflow_model_optimization and tf_keras
    _registered.py   users' own tf_keras twins
    _recover.py      fine-tuning without anything else
    _rewrites.py     fusing, reparameterization, half precision
"""

from keraslight import _doors, _faces

_doors.require("keraslight.compress", "compress", "numpy", "keras", "tensorflow")

from keraslight.compress._batch_norm import settle_batch_norms as settle_batch_norms
from keraslight.compress._bridge import run_in_keras as run_in_keras, to_tf_keras as to_tf_keras
from keraslight.compress._recover import fine_tune as fine_tune
from keraslight.compress._registered import register_twin as register_twin
from keraslight.compress._rewrites import fuse as fuse, half as half, reparameterize as reparameterize
from keraslight.compress.channels.adaptation import (
    NetAdaptIteration as NetAdaptIteration,
    NetAdaptResult as NetAdaptResult,
)
from keraslight.compress.channels.groups import ChannelGroup as ChannelGroup, channel_widths as channel_widths
from keraslight.compress.channels.netadapt import netadapt as netadapt
from keraslight.compress.channels.shrink import (
    channel_groups as channel_groups,
    layer_widths as layer_widths,
    shrink as shrink,
)
from keraslight.compress.clustering.callback import Clustering as Clustering, cluster as cluster
from keraslight.compress.clustering.report import (
    ClusterReport as ClusterReport,
    LayerClusters as LayerClusters,
    cluster_report as cluster_report,
)
from keraslight.compress.pruning.at_once import prune_at_once as prune_at_once
from keraslight.compress.pruning.callback import Pruning as Pruning, prune as prune
from keraslight.compress.pruning.sensitivity import SensitivityReport as SensitivityReport, sensitivity as sensitivity
from keraslight.compress.pruning.sparsity import (
    LayerSparsity as LayerSparsity,
    SparsityReport as SparsityReport,
    sparsity as sparsity,
)
from keraslight.compress.pruning.wrappers import (
    pruning_step_callback as pruning_step_callback,
    strip_pruning as strip_pruning,
    wrap_pruning as wrap_pruning,
)
from keraslight.compress.quantization.aware import (
    LayerPrecision as LayerPrecision,
    QuantizationReport as QuantizationReport,
    load_quantized as load_quantized,
    quantization_report as quantization_report,
    quantize_aware as quantize_aware,
    quantized_weights_to_keras as quantized_weights_to_keras,
    train_quantized as train_quantized,
)
from keraslight.compress.quantization.calibrate import calibrate as calibrate
from keraslight.compress.quantization.equalize import correct_bias as correct_bias, equalize as equalize
from keraslight.compress.quantization.judge import QuantizationCost as QuantizationCost
from keraslight.compress.quantization.mixed import (
    MixedPrecision as MixedPrecision,
    QuantizationSensitivity as QuantizationSensitivity,
    calibrate_mixed as calibrate_mixed,
    quantization_sensitivity as quantization_sensitivity,
)

__all__ = _faces.public(globals())
