"""One paper, one file. Importing this package registers every family."""

from keraslight.architectures.alexnet import AlexNet
from keraslight.architectures.convnext import ConvNeXt
from keraslight.architectures.convnext_v2 import ConvNeXtV2
from keraslight.architectures.densenet import DenseNet
from keraslight.architectures.efficientnet import EfficientNet
from keraslight.architectures.efficientnet_v2 import EfficientNetV2
from keraslight.architectures.ghostnet import GhostNet
from keraslight.architectures.googlenet import GoogLeNet
from keraslight.architectures.lenet import LeNet5
from keraslight.architectures.mobilenet_v1 import MobileNetV1
from keraslight.architectures.mobilenet_v2 import MobileNetV2
from keraslight.architectures.mobilenet_v3 import MobileNetV3
from keraslight.architectures.mobilenet_v4 import MobileNetV4
from keraslight.architectures.mobilenext import MobileNeXt
from keraslight.architectures.repvgg import RepVGG
from keraslight.architectures.resnet import ResNet
from keraslight.architectures.shufflenet_v1 import ShuffleNetV1
from keraslight.architectures.shufflenet_v2 import ShuffleNetV2
from keraslight.architectures.shufflenet_v2_plus import ShuffleNetV2Plus
from keraslight.architectures.squeezenet import SqueezeNet
from keraslight.architectures.vgg import VGG
from keraslight.architectures.xception import Xception

__all__ = [
    "VGG",
    "AlexNet",
    "ConvNeXt",
    "ConvNeXtV2",
    "DenseNet",
    "EfficientNet",
    "EfficientNetV2",
    "GhostNet",
    "GoogLeNet",
    "LeNet5",
    "MobileNeXt",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "MobileNetV4",
    "RepVGG",
    "ResNet",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "ShuffleNetV2Plus",
    "SqueezeNet",
    "Xception",
]
