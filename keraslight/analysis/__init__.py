"""What a model costs: numbers and pictures from any Keras model."""

from keraslight.analysis.cost import BlockCost, costs_by_block, count_macs, count_parameters

__all__ = ["BlockCost", "costs_by_block", "count_macs", "count_parameters"]
