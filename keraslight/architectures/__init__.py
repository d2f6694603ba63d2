"""One paper, one file. Importing this package registers every family."""

from keraslight.architectures.efficientnet import EfficientNet
from keraslight.architectures.mobilenet_v1 import MobileNetV1
from keraslight.architectures.mobilenet_v2 import MobileNetV2
from keraslight.architectures.mobilenet_v3 import MobileNetV3
from keraslight.architectures.mobilenet_v4 import MobileNetV4
from keraslight.architectures.resnet import ResNet
from keraslight.architectures.shufflenet_v1 import ShuffleNetV1
from keraslight.architectures.shufflenet_v2 import ShuffleNetV2
from keraslight.architectures.vgg import VGG

__all__ = [
    "EfficientNet",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "MobileNetV4",
    "ResNet",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "VGG",
]
