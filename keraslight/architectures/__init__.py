"""One paper, one file. Importing this package registers every family."""

from keraslight.architectures.mobilenet_v4 import MobileNetV4
from keraslight.architectures.resnet import ResNet

__all__ = ["MobileNetV4", "ResNet"]
