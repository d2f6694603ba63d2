"""Costs of a model, as numbers and pictures from any Keras model."""

from keraslight.analysis.cost import count_macs, count_parameters
from keraslight.analysis.effective_field import EffectiveReceptiveField, effective_receptive_field
from keraslight.analysis.formulas import ConvolutionCost, convolution_cost
from keraslight.analysis.grad_cam import GradCam, grad_cam
from keraslight.analysis.latency import Latency, file_latency, latency, memory_bandwidth, operation_overhead
from keraslight.analysis.lint import GUIDELINES, Finding, lint_model
from keraslight.analysis.plots import (
    pareto_front,
    plot_architecture,
    plot_costs,
    plot_features,
    plot_grad_cam,
    plot_receptive_field,
    plot_tradeoff,
)
from keraslight.analysis.profile import LayerCost, Profile, profile
from keraslight.analysis.receptive_field import ReceptiveField, receptive_field

__all__ = [
    "GUIDELINES",
    "ConvolutionCost",
    "EffectiveReceptiveField",
    "Finding",
    "GradCam",
    "Latency",
    "LayerCost",
    "Profile",
    "ReceptiveField",
    "convolution_cost",
    "count_macs",
    "count_parameters",
    "effective_receptive_field",
    "file_latency",
    "grad_cam",
    "latency",
    "lint_model",
    "memory_bandwidth",
    "operation_overhead",
    "pareto_front",
    "plot_architecture",
    "plot_costs",
    "plot_features",
    "plot_grad_cam",
    "plot_receptive_field",
    "plot_tradeoff",
    "profile",
    "receptive_field",
]
