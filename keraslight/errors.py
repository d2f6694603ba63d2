"""Every error that keraslight raises on purpose.

KeraslightError
├── InvalidArgumentError (ValueError)     an argument breaks a rule: the text states the rule and what was received
│   └── UnknownModelError                 no model has this name: the text lists the nearest names
├── MissingDependencyError (ImportError)  an extra is not installed: the text gives the pip command
├── WeightsError                          weights can't be loaded
│   ├── WeightsMismatchError              checkpoint and model differ: the text lists the leftovers, + and -
│   └── WeightsUnavailableError           the checkpoint can't be fetched (offline, or none is published)
├── DataError                             a data set is unusable (an empty class, no readable image ...)
├── TrainingError                         training can't continue (a loss that is not finite ...)
├── CompressionError                      a model can't be pruned, quantized or fused as requested
│   └── UnmappableLayerError              a layer has no tf_keras twin: the text names it and the way out
├── ExportError                           an export failed or is not possible; no partial files are left
└── DisagreementError                     two stages that must give the same results don't
"""


class KeraslightError(Exception):
    """Base class of all errors that keraslight raises on purpose."""


class InvalidArgumentError(KeraslightError, ValueError):
    """An argument breaks a rule. The text states the rule, then what was received."""


class UnknownModelError(InvalidArgumentError):
    """No model has this name. The text lists the nearest names."""


class MissingDependencyError(KeraslightError, ImportError):
    """An optional dependency is not installed. The text gives the command that installs it."""


class WeightsError(KeraslightError):
    """Weights can't be loaded."""


class WeightsMismatchError(WeightsError):
    """A checkpoint and a model don't fit. The text lists the leftovers of both."""


class WeightsUnavailableError(WeightsError):
    """A checkpoint can't be fetched: the machine is offline, or none is published."""


class DataError(KeraslightError):
    """A data set is unusable."""


class TrainingError(KeraslightError):
    """Training can't continue, for example because the loss is not finite."""


class CompressionError(KeraslightError):
    """A model can't be pruned, quantized or fused as requested."""


class UnmappableLayerError(CompressionError):
    """A layer has no tf_keras twin. The text names the layer and the way out."""


class ExportError(KeraslightError):
    """An export failed or is not possible. No partial files are left behind."""


class DisagreementError(KeraslightError):
    """Two stages that must give the same results don't."""
