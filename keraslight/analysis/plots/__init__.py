"""Pictures of what a model costs and does. Each returns a matplotlib `Figure` and writes it to `path=` if asked.

Colors are told apart by color-blind readers, and everything that a color says is also said by a place, a marker, a line
style or a lightness, so that prints in grey are readable.
"""

from keraslight.analysis.plots.architecture import plot_architecture
from keraslight.analysis.plots.costs import plot_costs
from keraslight.analysis.plots.features import plot_features
from keraslight.analysis.plots.grad_cam import plot_grad_cam
from keraslight.analysis.plots.receptive_field import plot_receptive_field
from keraslight.analysis.plots.tradeoff import pareto_front, plot_tradeoff

__all__ = [
    "pareto_front",
    "plot_architecture",
    "plot_costs",
    "plot_features",
    "plot_grad_cam",
    "plot_receptive_field",
    "plot_tradeoff",
]
