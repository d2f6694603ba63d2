"""Models by name, without Keras: the recorded tables, and the names nearest to a misspelled one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import keraslight
import keraslight.zoo
from keraslight import catalogue, registry
from keraslight._near import _edits
from keraslight.errors import UnknownModelError
from keraslight.registry import Variant
from keraslight.weights import CHECKPOINTS

STORED = json.loads(Path(catalogue.__file__).with_suffix(".json").read_text("utf-8"))


def test_the_recorded_tables_are_those_of_the_architectures_and_checkpoints():
    assert json.loads(json.dumps(catalogue.recorded())) == STORED, "run `python docs/generate.py`"
    assert list(STORED["models"]) == [name for family in registry.families().values() for name in family.variants]
    assert set(STORED["checkpoints"]) == set(CHECKPOINTS)


def test_a_fresh_process_knows_every_model_without_keras():
    code = (
        "import json, keraslight, sys\n"
        "infos = [keraslight.model_info(name) for name in keraslight.list_models()]\n"
        "print(json.dumps([repr(info) for info in infos]), 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    infos, _, loaded = done.stdout.rpartition(" ")
    assert json.loads(infos) == [repr(keraslight.model_info(name)) for name in keraslight.list_models()]
    assert loaded.strip() == "False"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mobilenetv4", "MobileNetV4"),
        ("MobileNetV4", "MobileNetV4"),
        ("mobilenet_v3", "MobileNetV3"),
        ("lenet5", "LeNet5"),
        ("mobilnet_v4", "MobileNetV4"),
        ("efficientnetb0", "EfficientNet"),
        ("resnet-50", "ResNet"),
        ("convnextv2", "ConvNeXtV2"),
        ("LeNet-5", "LeNet5"),
        ("effnet_b0", "EfficientNet"),
        ("efficentnet-v2-s", "EfficientNetV2"),
        ("mobielnet_v2", "MobileNetV2"),
        ("mobilenet_v4_small", "MobileNetV4"),
        ("mobilenet_v1_small", "MobileNetV1"),
        ("mobilenetv4_hybird_medium", "MobileNetV4"),
        ("mobile_next", "MobileNeXt"),
        ("squeezenet1.1", "SqueezeNet"),
        ("sqeezenet", "SqueezeNet"),
        ("VGG-16-BN", "VGG"),
        ("xeption", "Xception"),
        ("DenseNet 121", "DenseNet"),
        ("goglenet", "GoogLeNet"),
        ("alex_net_2013", "AlexNet"),
        ("RepVGG-A0", "RepVGG"),
        ("ghost_net", "GhostNet"),
        ("shufflenetv2+", "ShuffleNetV2Plus"),
        ("shufflenetv1", "ShuffleNetV1"),
        ("shuflenet_v2", "ShuffleNetV2"),
        ("ConvNeXt-Tny", "ConvNeXt"),
        ("resnext50", "ResNet"),
        ("hf-hub:timm/mobilenetv3_smal_100", "MobileNetV3"),
        ("timm/resnet50.a9_in1k", "ResNet"),
        ("efficientnet_lite0", "EfficientNet"),
    ],
)
def test_a_misspelled_name_finds_its_family_first(name, family):
    with pytest.raises(UnknownModelError, match="The nearest names: ") as error:
        keraslight.model_info(name)
    nearest = str(error.value).partition("The nearest names: ")[2].partition(". Received")[0].split(", ")
    assert keraslight.model_info(nearest[0]).family == family
    assert len(nearest) <= 3


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("efficientnetb0", "efficientnet_b0"),
        ("VGG-16-BN", "vgg16_bn"),
        ("squeezenet1.1", "squeezenet_1_1"),
        ("mobilenet_v4_small", "mobilenet_v4_conv_small"),
        ("MobileNetV3Small", "mobilenet_v3_small_100"),
        ("lenet", "lenet5_paper"),
        ("tf_efficientnet_b9", "timm/tf_efficientnet_b0"),
    ],
)
def test_the_nearest_variant_comes_first(name, nearest):
    assert catalogue.hint(name).startswith(f"The nearest names: {nearest}")


@pytest.mark.parametrize("name", ["", "#", "vit_base", "wide_resnet50_2", "yolo", None, 5])
def test_a_name_like_no_other_refers_to_the_list(name):
    with pytest.raises(UnknownModelError, match="lists all"):
        keraslight.model_info(name)


@pytest.mark.parametrize(
    "name",
    [
        "hf-hub:timm/mobilenetv4_conv_small.e2400_r224_in1k",
        "hf_hub:timm/mobilenetv4_conv_small",
        "hf-hub:timm/mobilenetv4_conv_small",
    ],
)
def test_timms_hub_ids_are_published_ids(name):
    info = keraslight.model_info(name)
    assert info == keraslight.model_info("timm/mobilenetv4_conv_small")
    assert keraslight.create_model(name, input_shape=(32, 32, 3), classes=3).name == "mobilenet_v4_conv_small"


def test_a_family_that_a_user_registers_is_listed(monkeypatch):
    row = Variant({}, 32, 10, 20, None)
    monkeypatch.setitem(
        registry.FAMILIES, "MyNet", registry.Family("MyNet", "mynet_", lambda: None, {"mynet_one": row})
    )
    assert keraslight.list_models("mynet*") == ["mynet_one"]
    assert keraslight.model_info("mynet_one").macs == 20
    assert catalogue.hint("my-net") == "The nearest names: mynet_one."


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [("", "abc", 3), ("abcd", "abdc", 1), ("resnet", "rsenet", 1), ("kitten", "sitting", 3), ("ca", "abc", 3)],
)
def test_edits_count_two_exchanged_letters_once(a, b, edits):
    """Optimal string alignment; "ca" to "abc" is where it differs from Damerau's distance, which is 2."""
    assert _edits(a, b)[-1][-1] == edits
    assert _edits(b, a)[-1][-1] == edits
