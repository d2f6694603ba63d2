"""Plots of what a model costs and does. Each returns a matplotlib `Figure` and writes it to `path` if given.

Color-blind readers can distinguish the colors. Everything that a color shows is also shown by a position, a marker, a
line style or lightness, so that the plots are readable in grayscale.
"""

from keraslight import _faces
from keraslight.analysis.plots.architecture import plot_architecture as plot_architecture
from keraslight.analysis.plots.costs import plot_costs as plot_costs
from keraslight.analysis.plots.features import plot_features as plot_features
from keraslight.analysis.plots.grad_cam import plot_grad_cam as plot_grad_cam
from keraslight.analysis.plots.operations import plot_operations as plot_operations
from keraslight.analysis.plots.receptive_field import plot_receptive_field as plot_receptive_field
from keraslight.analysis.plots.tradeoff import pareto_front as pareto_front, plot_tradeoff as plot_tradeoff

__all__ = _faces.public(globals())
