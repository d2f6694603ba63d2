"""What a model costs: numbers and pictures from any Keras model."""

from keraslight.analysis.cost import BlockCost, costs_by_block, count_macs, count_parameters
from keraslight.analysis.receptive_field import ReceptiveField, receptive_field

__all__ = ["BlockCost", "ReceptiveField", "costs_by_block", "count_macs", "count_parameters", "receptive_field"]
