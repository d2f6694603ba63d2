import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight.analysis import count_parameters
from keraslight.errors import InvalidArgumentError, WeightsMismatchError
from keraslight.layers import LocalResponseNorm
from tests.golden import golden_rule
from tests.nets import of_top

GOLDEN = Path(__file__).parent.parent / "golden" / "tv__googlenet.npz"


def build(variant="googlenet", **arguments):
    return keraslight.GoogLeNet(variant, **{"input_shape": (64, 64, 3), **of_top(arguments)})


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    meta, wanted = golden_rule.load(GOLDEN)
    file = tmp_path_factory.mktemp("googlenet") / "reference.safetensors"
    save_file(dict(golden_rule.params(meta)), file)
    return meta, wanted, file


def test_auxiliary_heads_equal_the_reference(reference):
    meta, wanted, file = reference
    model = keraslight.create_model(
        "torchvision/googlenet", weights=file, auxiliary=True, classifier_activation=None, input_shape=(224, 224, 3)
    )
    assert count_parameters(model) == 13_004_888
    cases = [case for case in meta["cases"] if case["case"] == "default"]
    outputs = model(golden_rule.make_input(cases[0]["seed"], cases[0]["shape"]), training=False)
    assert {case["output"] for case in cases} == {"logits", "aux1", "aux2"}
    for case in cases:
        ours = np.asarray(outputs["classifier" if case["output"] == "logits" else case["output"]])
        assert np.abs(ours - wanted[case["array"]]).max() / case["std"] < 5e-5, case["output"]


def test_auxiliary_heads_of_the_file_are_left_out(reference, caplog):
    _, _, file = reference
    with caplog.at_level(logging.INFO, "keraslight.weights.loader"):
        keraslight.create_model("googlenet", weights=file, input_shape=(32, 32, 3))
    assert "googlenet does without aux1: left out 9 tensors" in caplog.text


def test_other_leftovers_are_an_error(reference, tmp_path):
    meta, _, _ = reference
    more = dict(golden_rule.params(meta))
    more["aux3.fc2.bias"] = np.zeros(3, "float32")
    save_file(more, tmp_path / "more.safetensors")
    with pytest.raises(WeightsMismatchError, match="- aux3.fc2.bias"):
        keraslight.create_model("googlenet", weights=tmp_path / "more.safetensors", input_shape=(32, 32, 3))


def test_auxiliary_heads_take_another_number_of_classes(reference):
    _, _, file = reference
    with_heads = keraslight.create_model("googlenet", weights=file, auxiliary=True, classes=4, input_shape=(32, 32, 3))
    assert {key: x.shape for key, x in with_heads.output.items()} == dict.fromkeys(
        ("classifier", "aux1", "aux2"), (None, 4)
    )


def test_kernel_of_the_wide_branch():
    assert build().get_layer("stage0_block0_wide").kernel_size == (3, 3)
    assert build("5x5").get_layer("stage0_block0_wide").kernel_size == (5, 5)


def test_the_papers_net_has_biases_and_response_norms_but_no_batch_norm():
    model = build("paper")
    kinds = [type(layer).__name__ for layer in model.layers]
    assert "BatchNormalization" not in kinds
    norms = [layer for layer in model.layers if isinstance(layer, LocalResponseNorm)]
    # bvlc_googlenet: local_size 5, alpha 0.0001, beta 0.75, k 1. Caffe divides the sum of squares by the size.
    assert [(x.bias, x.size, 5 * x.alpha, x.beta) for x in norms] == 2 * [(1.0, 5, pytest.approx(1e-4), 0.75)]
    assert norms[0].input is model.get_layer("stem_pool").output
    assert norms[1].input is model.get_layer("stem_expand_act").output
    assert all(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert model.get_layer("stage2_pool").pool_size == (3, 3)


@pytest.mark.parametrize("variant", ["5x5", "paper"])
def test_modules_have_the_channels_of_table_1(variant):
    """Columns: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj."""
    table = (
        (64, 96, 128, 16, 32, 32),  # 3a
        (128, 128, 192, 32, 96, 64),
        (192, 96, 208, 16, 48, 64),  # 4a
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        (256, 160, 320, 32, 128, 128),  # 5a
        (384, 192, 384, 48, 128, 128),
    )
    model = build(variant)
    blocks = [f"stage{s}_block{b}" for s, n in enumerate((2, 5, 2)) for b in range(n)]
    parts = ("pointwise", "middle_reduce", "middle", "wide_reduce", "wide", "project")
    for block, row in zip(blocks, table, strict=True):
        assert tuple(model.get_layer(f"{block}_{part}").filters for part in parts) == row
        assert model.get_layer(f"{block}_wide").kernel_size == (5, 5)


def test_auxiliary_heads_follow_4a_and_4d():
    """Section 5: a 1x1 convolution with 128 filters, 1024 units, and 70 % dropout."""
    model = build("paper", auxiliary=True)
    for name, block, channels in (("aux1", "stage1_block0", 512), ("aux2", "stage1_block3", 528)):
        inner = [layer for layer in model.layers if layer.name.startswith(name)]
        assert model.get_layer(f"{block}_concat").output.shape[-1] == channels
        assert inner[0].input is model.get_layer(f"{block}_concat").output
        kernels = [x.kernel.shape for x in inner if isinstance(x, keras.layers.Conv2D | keras.layers.Dense)]
        assert [shape[-1] for shape in kernels] == [128, 1024, 10]
        assert kernels[0] == (1, 1, channels, 128)
        assert [layer.rate for layer in inner if isinstance(layer, keras.layers.Dropout)] == [0.7]


def test_max_pools_round_up_and_the_last_is_2x2():
    model = build(input_shape=(150, 117, 3), features_only=True)
    assert [tuple(x.shape[1:3]) for x in model.output.values()] == [(75, 59), (37, 29), (18, 14), (9, 7), (5, 4)]
    assert model.get_layer("stage2_pool").pool_size == (2, 2)
    assert model.get_layer("stage1_pool").pool_size == (3, 3)


def test_trains_with_auxiliary_losses():
    model = build(auxiliary=True, classes=3)
    loss = "sparse_categorical_crossentropy"
    model.compile(
        "sgd",
        dict.fromkeys(("classifier", "aux1", "aux2"), loss),
        loss_weights={"classifier": 1, "aux1": 0.3, "aux2": 0.3},
        run_eagerly=True,  # tracing takes longer than a single step
    )
    labels = np.array([0, 1])
    result = model.fit(
        np.ones((2, 64, 64, 3), "float32"), dict.fromkeys(("classifier", "aux1", "aux2"), labels), verbose=0
    )
    assert np.isfinite(result.history["loss"]).all()


def test_auxiliary_needs_the_top():
    with pytest.raises(InvalidArgumentError, match="`auxiliary` needs a model with its top. .* include_top=False"):
        build(auxiliary=True, include_top=False)


def test_without_the_top_there_are_no_auxiliary_heads():
    assert isinstance(build(include_top=False), keras.Model)
