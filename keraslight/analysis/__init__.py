"""What a model costs: numbers and pictures from any Keras model."""

from keraslight.analysis.cost import count_macs, count_parameters

__all__ = ["count_macs", "count_parameters"]
