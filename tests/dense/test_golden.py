"""Numerical equality of detectors and segmenters with the references: raw outputs and maps inside."""

from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight.analysis import count_macs, count_parameters
from keraslight.weights import CHECKPOINTS
from tests.golden import dense_rule

GOLDEN = Path(__file__).parent.parent / "golden" / "dense"
TOLERANCE = 5e-5  # of each output's standard deviation


def detections(answers):
    return {"cls_logits": answers["class_logits"], "bbox_regression": answers["box_deltas"]}


def places(answers):
    return {"head": np.concatenate([answers["class_logits"], answers["box_distances"]], axis=-1)}


def scores(answers):
    return {"out": answers["logits"], **{name: value for name, value in answers.items() if name.startswith("aux")}}


# Fixture -> published id, arguments, outputs by the reference's names, layers with maps by the reference's names
NETS = {
    "tv__ssdlite320_mobilenet_v3_large": (
        "torchvision/ssdlite320_mobilenet_v3_large",
        {},
        detections,
        {"feature_0": "stage5_block0_expand_act", "feature_1": "head_expand_act"},
    ),
    "tv__lraspp_mobilenet_v3_large": ("torchvision/lraspp_mobilenet_v3_large", {}, scores, {"logits": "scores"}),
    "tv__deeplabv3_mobilenet_v3_large": (
        "torchvision/deeplabv3_mobilenet_v3_large",
        {"auxiliary": True},
        scores,
        {"logits": "classifier"},
    ),
    "ref__bisenetv2": ("ref/bisenetv2_cityscapes", {"auxiliary": True}, scores, {"logits": "classifier"}),
    "ref__nanodet_plus_m_320": (
        "ref/nanodet-plus-m_320",
        {},
        places,
        {"fpn_0": "top_down1_add", "fpn_1": "bottom_up0_add", "fpn_2": "bottom_up1_add", "fpn_3": "extra_add"},
    ),
}


def cases():
    for fixture in NETS:
        meta, _ = dense_rule.load(GOLDEN / f"{fixture}.npz")
        for case in meta["cases"]:
            slow = case["case"] != "rect"  # the smallest
            yield pytest.param(fixture, case["case"], marks=pytest.mark.slow if slow else ())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The parameters of a fixture as a file, written once."""
    folder, written = tmp_path_factory.mktemp("references"), {}

    def file(fixture):
        if fixture not in written:
            meta, _ = dense_rule.load(GOLDEN / f"{fixture}.npz")
            assert dense_rule.params_crc32(meta) == meta["params_crc32"]
            written[fixture] = folder / f"{fixture}.safetensors"
            save_file(dict(dense_rule.params(meta)), written[fixture])
        return written[fixture]

    return file


@pytest.mark.parametrize(("fixture", "case"), list(cases()))
def test_outputs_and_maps_equal_the_references(fixture, case, files):
    name, arguments, outputs, maps = NETS[fixture]
    meta, stored = dense_rule.load(GOLDEN / f"{fixture}.npz")
    (row,) = (row for row in meta["cases"] if row["case"] == case)
    # The loader uses every tensor of the file, except for what only training needs, or raises.
    model = keraslight.create_model(name, weights=files(fixture), input_shape=tuple(row["shape"][1:]), **arguments)
    images = dense_rule.make_input(row["seed"], row["shape"])
    assert dense_rule.input_crc32(images) == row["input_crc32"]
    if CHECKPOINTS[name].bgr:
        images = images[..., ::-1]  # the reference's channels are blue, green, red
    inner = {key: model.get_layer(at).output for key, at in maps.items()}
    both = keras.Model(model.input, {"outputs": model.output, "inner": inner})(images, training=False)
    named = keras.tree.map_structure(np.asarray, {**outputs(both["outputs"]), **both["inner"]})
    compared = {output["output"] for output in meta["outputs"] if output["case"] == case}
    assert compared == set(named)
    for output in compared:
        found = dense_rule.differences(meta, stored, case, output, named[output])
        assert max(found.values()) < TOLERANCE, (output, found)


@pytest.mark.parametrize("fixture", NETS)
def test_parameters_are_the_references(fixture):
    name, arguments, _, _ = NETS[fixture]
    meta, _ = dense_rule.load(GOLDEN / f"{fixture}.npz")
    model = keraslight.create_model(name, input_shape=(64, 64, 3), **arguments)
    assert count_parameters(model) == meta.get("param_count_served", meta["param_count"])


@pytest.mark.parametrize("fixture", NETS)
def test_macs_are_the_references(fixture):
    name, arguments, _, _ = NETS[fixture]
    meta, _ = dense_rule.load(GOLDEN / f"{fixture}.npz")
    arguments = {} if fixture == "ref__bisenetv2" else arguments  # its count leaves the auxiliary heads out
    assert (
        count_macs(keraslight.create_model(name, input_shape=(*meta["default_size"], 3), **arguments)) == meta["macs"]
    )


def test_bisenet_v2_costs_what_the_reference_does_at_its_own_size():
    meta, _ = dense_rule.load(GOLDEN / "ref__bisenetv2.npz")
    model = keraslight.BiSeNetV2(input_shape=(512, 1024, 3))
    assert count_parameters(model) == meta["param_count_without_aux"]
    assert count_macs(model) == meta["macs_512x1024"]
