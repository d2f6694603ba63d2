"""What a model costs and how good it is, as numbers and pictures from any Keras model."""

from keraslight import _doors, _faces

_doors.require("keraslight.analysis", "analysis", "numpy", "keras")

from keraslight._tasks import best_thresholds as best_thresholds
from keraslight.analysis._scores import (
    Calibration as Calibration,
    ClassScore as ClassScore,
    ValueScore as ValueScore,
    average_precision as average_precision,
    calibration as calibration,
    class_scores as class_scores,
    confusion_matrix as confusion_matrix,
)
from keraslight.analysis.cost import count_macs as count_macs, count_parameters as count_parameters
from keraslight.analysis.effective_field import (
    EffectiveReceptiveField as EffectiveReceptiveField,
    effective_receptive_field as effective_receptive_field,
)
from keraslight.analysis.evaluation import (
    ROBUSTNESS as ROBUSTNESS,
    Evaluation as Evaluation,
    evaluate as evaluate,
)
from keraslight.analysis.formulas import (
    ConvolutionComparison as ConvolutionComparison,
    ConvolutionCost as ConvolutionCost,
    compare_convolutions as compare_convolutions,
    convolution_cost as convolution_cost,
)
from keraslight.analysis.grad_cam import GradCam as GradCam, grad_cam as grad_cam
from keraslight.analysis.latency import (
    Latency as Latency,
    file_latency as file_latency,
    latency as latency,
    memory_bandwidth as memory_bandwidth,
    operation_overhead as operation_overhead,
)
from keraslight.analysis.lint import GUIDELINES as GUIDELINES, Finding as Finding, lint_model as lint_model
from keraslight.analysis.operation_table import (
    OperationLatency as OperationLatency,
    OperationTable as OperationTable,
    Resource as Resource,
    TableComparison as TableComparison,
    resource as resource,
)
from keraslight.analysis.plots import (
    pareto_front as pareto_front,
    plot_architecture as plot_architecture,
    plot_costs as plot_costs,
    plot_features as plot_features,
    plot_grad_cam as plot_grad_cam,
    plot_operations as plot_operations,
    plot_receptive_field as plot_receptive_field,
    plot_tradeoff as plot_tradeoff,
)
from keraslight.analysis.profile import LayerCost as LayerCost, Profile as Profile, profile as profile
from keraslight.analysis.receptive_field import (
    ReceptiveField as ReceptiveField,
    backward_receptive_field as backward_receptive_field,
    receptive_field as receptive_field,
)

__all__ = _faces.public(globals())
