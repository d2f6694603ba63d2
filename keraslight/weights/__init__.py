"""Published weights: where they are, how they are preprocessed, and how their names map to our layers."""

from keraslight.weights import mobilenet_v4
from keraslight.weights.loader import Checkpoint, load_weights

CHECKPOINTS: dict[str, Checkpoint] = {**mobilenet_v4.CHECKPOINTS}
"""Full variant name -> its published checkpoint."""

TORCH_NAMES = {"MobileNetV4": mobilenet_v4.torch_names}
"""Family -> function from a variant's arguments to pairs (our layer, the checkpoint's module)."""

__all__ = ["CHECKPOINTS", "TORCH_NAMES", "Checkpoint", "load_weights"]
