import logging
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import keraslight
from keraslight.analysis import count_parameters
from keraslight.errors import InvalidArgumentError, WeightsMismatchError
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
    assert kinds.count("LocalResponseNorm") == 2
    assert all(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert model.get_layer("stage2_pool").pool_size == (3, 3)


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
