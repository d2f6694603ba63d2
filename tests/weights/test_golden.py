"""Numerical equality with timm: its parameters under its names must give its logits."""

from pathlib import Path

import golden_rule
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight

GOLDEN = Path(__file__).parent.parent / "golden"
TOLERANCE = 5e-5  # of the logits' standard deviation; float32 noise is below 1e-5, mistakes start at 1e-4


@pytest.mark.parametrize("name", ["mobilenetv4_conv_small", "mobilenetv4_hybrid_medium"])
def test_logits_equal_timms(name, tmp_path):
    meta, wanted = golden_rule.load(GOLDEN / f"timm__{name}.npz")
    parameters = dict(golden_rule.params(meta))
    assert golden_rule.params_crc32(meta) == meta["params_crc32"]
    save_file(parameters, tmp_path / "timm.safetensors")

    assert {case["case"] for case in meta["cases"]} == {"default", "odd", "rect"}
    for case in meta["cases"]:
        model = keraslight.create_model(
            f"timm/{name}",
            weights=tmp_path / "timm.safetensors",
            classifier_activation=None,
            input_shape=tuple(case["shape"][1:]),
        )
        images = golden_rule.make_input(case["seed"], case["shape"])
        assert golden_rule.input_crc32(images) == case["input_crc32"]
        difference = np.abs(np.asarray(model(images, training=False)) - wanted[case["array"]]).max()
        assert difference / case["std"] < TOLERANCE, case["case"]
