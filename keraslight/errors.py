"""Every error that keraslight raises on purpose.

KeraslightError
├── InvalidArgumentError (ValueError)     an argument breaks a rule: the text gives the rule, then what came
│   └── UnknownModelError                 no such model: the text lists the nearest names
├── MissingDependencyError (ImportError)  an extra is not installed: the text gives the pip command
├── WeightsError
│   ├── WeightsMismatchError              checkpoint and model differ: the leftovers of both sides, + and -
│   └── WeightsUnavailableError           the checkpoint can't be fetched (offline, or none published)
├── DataError                             a data set can't be used (an empty class, no readable image ...)
├── CompressionError
│   └── UnmappableLayerError              a layer has no tf_keras twin: the text names it and the way out
├── ExportError                           an export was refused or failed; nothing half-written is left
└── DisagreementError                     two stages that must give the same answers do not
"""


class KeraslightError(Exception):
    """Base class of all errors that keraslight raises on purpose."""


class InvalidArgumentError(KeraslightError, ValueError):
    """An argument breaks a rule. The text gives the rule, then what was received."""


class UnknownModelError(InvalidArgumentError):
    """No model has this name. The text lists the nearest names."""


class MissingDependencyError(KeraslightError, ImportError):
    """An optional dependency is not installed. The text gives the command that installs it."""


class WeightsError(KeraslightError):
    """Weights can't be loaded."""


class WeightsMismatchError(WeightsError):
    """A checkpoint and a model don't fit. The text lists what is left over on both sides."""


class WeightsUnavailableError(WeightsError):
    """A checkpoint can't be fetched: offline, or none is published."""


class DataError(KeraslightError):
    """A data set can't be used as it is."""


class TrainingError(KeraslightError):
    """A training can't go on, such as with a loss that is no longer finite."""


class CompressionError(KeraslightError):
    """A model can't be pruned, quantized or fused as asked."""


class UnmappableLayerError(CompressionError):
    """A layer has no tf_keras twin. The text names the layer and the way out."""


class ExportError(KeraslightError):
    """An export was refused or failed. Nothing half-written is left behind."""


class DisagreementError(KeraslightError):
    """Two stages that must give the same answers do not."""
