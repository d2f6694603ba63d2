"""Detectors and segmenters as models: on any backbone, with arguments that are checked, saved and loaded."""

import keras
import numpy as np
import pytest

import keraslight
import keraslight.zoo
from keraslight import registry
from keraslight.analysis import count_macs, count_parameters, profile
from keraslight.errors import InvalidArgumentError, UnknownModelError, WeightsMismatchError
from keraslight.layers import ImageNormalization
from keraslight.preprocessing import Preprocessing
from keraslight.weights import CHECKPOINTS

ROWS = {name: row for family in registry.DENSE.values() for name, row in family.variants.items()}
SMALL = (64, 96, 3)


def variants():
    """Every variant; in `make test` each family's first, unless it is heavy."""
    firsts = {next(iter(family.variants)) for family in registry.DENSE.values()} - {"deeplab_v3_mobilenet_v3_large"}
    for name in ROWS:
        yield pytest.param(name, marks=() if name in firsts else pytest.mark.slow)


@pytest.mark.parametrize("name", list(variants()))
def test_parameters_and_macs_are_the_tables(name):
    model = keraslight.create_model(name)
    assert (count_parameters(model), count_macs(model)) == (ROWS[name].parameters, ROWS[name].macs)
    assert profile(model).unknown == ()


@pytest.mark.parametrize("name", list(variants()))
def test_the_map_of_names_covers_every_layer_with_weights_once(name):
    model = keraslight.create_model(name, input_shape=SMALL)
    ours = [layer for layer, _ in CHECKPOINTS[ROWS[name].checkpoint].torch_names()]
    assert sorted(ours) == sorted(layer.name for layer in model.layers if layer.weights)


@pytest.mark.parametrize("name", ROWS)
def test_the_checkpoint_and_the_variant_name_each_other(name):
    info = keraslight.model_info(ROWS[name].checkpoint)
    assert (info.name, info.task, info.preprocessing.size) == (name, ROWS[name].task, (ROWS[name].input_size,) * 2)


def test_models_are_listed_by_their_task():
    assert "ssdlite320_mobilenet_v3_large" in keraslight.list_models(task="detection")
    assert "lraspp_mobilenet_v3_large" in keraslight.list_models("lraspp*", task="segmentation")
    assert keraslight.list_models("ssdlite*") == []
    assert set(ROWS) < set(keraslight.list_models(task=None))


def test_an_unknown_task_is_an_error():
    with pytest.raises(InvalidArgumentError, match="`task` must be None or one of .* Received: task='boxes'"):
        keraslight.list_models(task="boxes")


def test_ssdlite_answers_for_six_boxes_per_place_on_six_maps():
    model = keraslight.SSDLite("mobilenet_v4_conv_small", classes=10, input_shape=(128, 128, 3))
    places = sum(side * side for side in (8, 4, 2, 1, 1, 1))
    assert model.output["class_logits"].shape == (None, 6 * places, 11)
    assert model.output["box_deltas"].shape == (None, 6 * places, 4)
    assert model.name == "ssdlite_mobilenet_v4_conv_small"


def test_segmenters_answer_for_every_pixel():
    model = keraslight.LRASPP("mobilenet_v2_035", classes=5, input_shape=(75, 97, 3))
    assert model.output["logits"].shape == (None, 75, 97, 5)


def test_a_dict_of_feature_maps_is_a_backbone():
    features = keraslight.MobileNetV2("035", input_shape=SMALL, features_only=True)
    model = keraslight.NanoDetPlus(features, classes=3, channels=16)
    assert model.input is features.input
    assert model.output["class_logits"].shape == (None, 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2, 3)


def test_a_model_without_feature_maps_is_not_a_backbone():
    with pytest.raises(InvalidArgumentError, match="must take images and give a dict of maps"):
        keraslight.SSDLite(keraslight.MobileNetV2("035", input_shape=SMALL))


def test_a_backbone_without_the_maps_is_an_error():
    with pytest.raises(InvalidArgumentError, match="without stride_16, stride_32; its maps: stride_2, stride_4"):
        keraslight.SSDLite("lenet5_paper", classes=2)


def test_a_detector_is_not_a_backbone():
    with pytest.raises(InvalidArgumentError, match="must be one of its own, or a classifier.* a detection model"):
        keraslight.LRASPP("nanodet_plus_m_320")


def test_an_unknown_backbone_is_an_error():
    with pytest.raises(UnknownModelError, match="No model has this name"):
        keraslight.SSDLite("mobilenet_v9")


def test_the_tables_own_backbone_is_read_where_the_table_says():
    model = keraslight.LRASPP("mobilenet_v3_large_100", input_shape=SMALL)
    assert count_parameters(model) == ROWS["lraspp_mobilenet_v3_large"].parameters
    assert model.get_layer("low_classifier").input.shape[-1] == 40
    assert model.get_layer("stem_bn").epsilon == 1e-5  # that checkpoint's, not torchvision's


def test_a_named_backbone_keeps_its_full_tail_for_its_own_weights():
    model = keraslight.SSDLite("mobilenet_v3_large_100", input_shape=SMALL)
    assert count_parameters(model) == ROWS["ssdlite320_mobilenet_v3_large_full"].parameters


def test_the_backbone_takes_further_arguments():
    narrow = keraslight.SSDLite("mobilenet_v2_100", backbone_arguments={"width": 0.35}, input_shape=SMALL)
    assert narrow.get_layer("stem").filters == 16


def test_backbone_weights_fill_the_backbone_alone(tmp_path):
    classifier = keraslight.MobileNetV2("035", input_shape=SMALL, classes=3)
    classifier.save(tmp_path / "classifier.keras")
    model = keraslight.SSDLite(
        "mobilenet_v2_035", input_shape=SMALL, classes=2, backbone_weights=tmp_path / "classifier.keras"
    )
    ours, theirs = (net.get_layer("stage3_block0_depthwise").kernel for net in (model, classifier))
    np.testing.assert_array_equal(ours, theirs)


def test_weights_of_the_whole_model_load_from_a_keras_file(tmp_path):
    first, second = (keraslight.SSDLite("mobilenet_v2_035", input_shape=SMALL, classes=2) for _ in range(2))
    first.save(tmp_path / "detector.keras")
    again = keraslight.SSDLite("mobilenet_v2_035", input_shape=SMALL, classes=2, weights=tmp_path / "detector.keras")
    for ours, theirs in zip(again.weights, first.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(second.weights[0], first.weights[0])


def test_another_number_of_classes_leaves_only_the_classifiers_random(tmp_path):
    first = keraslight.SSDLite("mobilenet_v2_035", input_shape=SMALL, classes=2)
    first.save(tmp_path / "detector.keras")
    model = keraslight.SSDLite("mobilenet_v2_035", input_shape=SMALL, classes=3, weights=tmp_path / "detector.keras")
    np.testing.assert_array_equal(
        model.get_layer("level0_regressor").kernel, first.get_layer("level0_regressor").kernel
    )


def test_weights_of_another_head_are_an_error(tmp_path):
    keraslight.LRASPP("mobilenet_v2_035", input_shape=SMALL, classes=2).save(tmp_path / "segmenter.keras")
    with pytest.raises(WeightsMismatchError, match="don't fit"):
        keraslight.SSDLite("mobilenet_v2_035", input_shape=SMALL, weights=tmp_path / "segmenter.keras")


@pytest.mark.parametrize("build", [keraslight.NanoDetPlus, keraslight.BiSeNetV2])
def test_sides_that_are_no_multiple_of_32_are_an_error(build):
    with pytest.raises(InvalidArgumentError, match=r"multiples of 32 pixels. Received: \(64, 100, 3\)"):
        build(input_shape=(64, 100, 3))


def test_no_classes_are_an_error():
    with pytest.raises(InvalidArgumentError, match="`classes` must be at least 1. Received: classes=0"):
        keraslight.BiSeNetV2(classes=0, input_shape=SMALL)


def test_odd_extra_maps_are_an_error():
    with pytest.raises(InvalidArgumentError, match="`extras` must be even and at least 2. Received: extras="):
        keraslight.SSDLite("mobilenet_v2_035", input_shape=SMALL, extras=(15,))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("include_top", False), ("pooling", "avg"), ("features_only", True), ("classifier_activation", "sigmoid")],
)
def test_arguments_of_classifiers_are_an_error(argument, value):
    with pytest.raises(InvalidArgumentError, match=f"`{argument}` is for classifiers. Received: {argument} for"):
        keraslight.create_model("bisenet_v2_cityscapes", **{argument: value})


def test_arguments_of_backbones_are_an_error_without_one():
    with pytest.raises(InvalidArgumentError, match="are for models with a backbone. Received: 'bisenet_v2_coco'"):
        keraslight.create_model("bisenet_v2_coco", backbone_arguments={"width": 0.5})


def test_a_detectors_images_are_stretched_whatever_its_backbones_crop():
    model = keraslight.SSDLite("mobilenet_v2_050", input_shape=SMALL, classes=2, preprocessing=True)
    (layer,) = (layer for layer in model.layers if isinstance(layer, ImageNormalization))
    assert layer.preprocessing == keraslight.model_info("mobilenet_v2_050").preprocessing.replace(
        size=(64, 96), crop_mode="squash", crop_pct=1.0
    )


def test_a_detector_that_crops_is_an_error():
    with pytest.raises(InvalidArgumentError, match="must have crop_mode=\"squash\".* Received: crop_mode='center'"):
        keraslight.SSDLite(preprocessing=Preprocessing((320, 320)))


def test_nanodet_takes_red_green_blue_pixels_with_imagenets_means():
    spec = keraslight.model_info("ref/nanodet-plus-m_320").preprocessing
    np.testing.assert_allclose(np.multiply(spec.mean, 255), (123.675, 116.28, 103.53))
    np.testing.assert_allclose(np.multiply(spec.std, 255), (58.395, 57.12, 57.375))


@pytest.mark.parametrize("auxiliary", [False, True])
def test_auxiliary_heads_come_on_request(auxiliary):
    model = keraslight.BiSeNetV2(classes=2, input_shape=SMALL, auxiliary=auxiliary)
    assert set(model.output) == {"logits", *(("aux2", "aux3", "aux4", "aux5_4") if auxiliary else ())}


@pytest.mark.parametrize("build", [keraslight.LRASPP, keraslight.SSDLite])
def test_saved_models_answer_the_same(build, tmp_path):
    model = build("mobilenet_v2_035", classes=2, input_shape=SMALL)
    model.save(tmp_path / "model.keras")
    again = keraslight.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(1, *SMALL)).astype("float32")
    keras.tree.map_structure(np.testing.assert_array_equal, again(images), model(images))


def test_a_segmenter_for_any_size_answers_as_one_for_that_size(tmp_path):
    fixed = keraslight.LRASPP("mobilenet_v2_035", classes=2, input_shape=(75, 97, 3))
    free = keraslight.LRASPP("mobilenet_v2_035", classes=2, input_shape=(None, None, 3))
    free.set_weights(fixed.get_weights())
    images = np.random.default_rng(0).normal(size=(1, 75, 97, 3)).astype("float32")
    np.testing.assert_allclose(free(images)["logits"], fixed(images)["logits"], atol=1e-5)


def test_half_precision_models_build():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keraslight.LRASPP("mobilenet_v2_035", classes=2, input_shape=SMALL)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.output["logits"].dtype == "float16"
