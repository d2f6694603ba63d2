import inspect
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import keraslight
import keraslight.zoo
from keraslight import registry
from keraslight.errors import InvalidArgumentError, UnknownModelError
from keraslight.preprocessing import Preprocessing

NAMES = [f"mobilenet_v4_{v}" for v in ("conv_large", "conv_medium", "conv_small", "hybrid_large", "hybrid_medium")]


def test_list_models_takes_wildcards():
    assert keraslight.list_models("mobilenet_v4*") == NAMES
    assert keraslight.list_models("*hybrid*") == NAMES[3:]
    assert keraslight.list_models("nothing*") == []


def test_model_info():
    info = keraslight.model_info("timm/mobilenetv4_conv_small")
    assert (info.name, info.family, info.input_size) == ("mobilenet_v4_conv_small", "MobileNetV4", 224)
    assert (info.parameters, info.macs, info.top1) == (3_774_024, 186_005_568, 73.756)
    assert info.checkpoint == "timm/mobilenetv4_conv_small.e2400_r224_in1k"
    assert info.preprocessing == Preprocessing((224, 224), crop_pct=0.875)
    assert info.paper.startswith("MobileNetV4")


@pytest.mark.parametrize(
    "name", ["mobilenet_v4_conv_small", "timm/mobilenetv4_conv_small", "timm/mobilenetv4_conv_small.e2400_r224_in1k"]
)
def test_published_ids_are_aliases(name):
    model = keraslight.create_model(name, input_shape=(32, 32, 3), classes=3)
    assert model.name == "mobilenet_v4_conv_small"


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownModelError, match=r"The nearest names: mobilenet_v4_conv_small.*Received: 'mobilnet_v4"):
        keraslight.create_model("mobilnet_v4_conv_smal")


def test_a_name_like_no_other_refers_to_the_list():
    with pytest.raises(UnknownModelError, match=r"`keraslight.list_models\(\)` lists all. Received: '#'"):
        keraslight.model_info("#")


def test_an_unknown_variant_lists_the_choices():
    with pytest.raises(UnknownModelError, match=r"must be one of 'conv_small', .* Received: 'tiny'"):
        keraslight.MobileNetV4("tiny")


def test_builder_and_create_model_build_the_same():
    arguments = {"input_shape": (32, 40, 1), "classes": 4}
    for variant in ("conv_small", "mobilenet_v4_conv_small"):
        by_builder = keraslight.MobileNetV4(variant, **arguments)
        by_name = keraslight.create_model("mobilenet_v4_conv_small", **arguments)
        assert by_builder.get_config() == by_name.get_config()


def test_builder_says_what_it_takes():
    parameters = inspect.signature(keraslight.MobileNetV4).parameters
    assert next(iter(parameters)) == "variant"
    assert {"weights", "preprocessing", "width", "classes", "input_shape", "drop_path"} <= set(parameters)
    assert all(p.default is not p.empty for p in parameters.values())


@pytest.mark.parametrize("name", sorted(registry.FAMILIES))
def test_every_argument_of_a_builder_is_documented(name):
    builder = getattr(keraslight, name)
    section = builder.__doc__.partition("Args:\n")[2].partition("\n\nReturns:")[0]
    entries = re.findall(r"^    (\w[\w, ]*): [A-Z(\"]", section, re.MULTILINE)
    documented = [argument for entry in entries for argument in entry.split(", ")]
    assert sorted(documented) == sorted(inspect.signature(builder).parameters)


def test_a_misspelled_argument_is_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        keraslight.MobileNetV4("conv_small", depth=2)


def test_preprocessing_in_the_graph_normalizes_raw_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    model = keraslight.create_model("mobilenet_v4_conv_small", input_shape=(32, 32, 3), preprocessing=True)
    layer = model.get_layer("preprocessing")
    wanted = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(np.asarray(layer(pixels)), wanted, atol=1e-5)
    assert layer.preprocessing == Preprocessing((32, 32), crop_pct=0.875)


def test_preprocessing_of_ones_own():
    spec = Preprocessing((40, 40), mean=(0.5,), std=(0.25,), crop_mode="squash")
    model = keraslight.create_model("mobilenet_v4_conv_small", input_shape=(40, 40, 1), preprocessing=spec)
    assert model.get_layer("preprocessing").preprocessing == spec


def test_preprocessing_of_one_channel_takes_the_mean_of_three():
    grey = keraslight.create_model("mobilenet_v4_conv_small", input_shape=(40, 40, 1), preprocessing=True)
    assert grey.get_layer("preprocessing").preprocessing.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))


def test_preprocessing_needs_as_many_channels_as_the_input():
    with pytest.raises(InvalidArgumentError, match="normalizes 3 channels. Received: input_shape=\\(40, 40, 4\\)"):
        keraslight.create_model("mobilenet_v4_conv_small", input_shape=(40, 40, 4), preprocessing=True)


def test_input_tensor_is_built_upon():
    images = keras.Input((48, 48, 3), name="photo")
    model = keraslight.create_model("mobilenet_v4_conv_small", input_tensor=images * 2.0, classes=5)
    assert model.inputs[0].name == "photo"
    assert model.output_shape == (None, 5)


def test_load_model_reads_own_layers_in_a_fresh_process(tmp_path):
    path = tmp_path / "model.keras"
    model = keraslight.create_model(
        "convnext_v2_atto", input_shape=(32, 32, 3), classes=3, preprocessing=True, drop_path=0.1
    )
    model.save(path)
    code = f"import keraslight; print(keraslight.load_model({str(path)!r}).count_params())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) == model.count_params()


def test_load_model_needs_a_file():
    with pytest.raises(
        InvalidArgumentError, match=r"must be a \.keras or \.h5 file of a model. Received: 'nowhere.keras'"
    ):
        keraslight.load_model("nowhere.keras")
