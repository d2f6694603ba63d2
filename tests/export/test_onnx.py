"""ONNX files: the reference's architectures with golden weights, run by ONNX Runtime."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from keras import layers
from safetensors.numpy import save_file

import keraslight
from keraslight.errors import DisagreementError, ExportError, InvalidArgumentError
from keraslight.export import onnx_runner, to_onnx
from tests.golden import golden_rule

GOLDEN = Path(__file__).parent.parent / "golden"
IMAGES = np.random.default_rng(0).normal(size=(3, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.Conv2D(4, 3, name="conv")(images))
    return keras.Model(images, layers.Dense(3, activation="softmax")(layers.Flatten()(x)), name="small")


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("timm__mobilenetv3_small_100", "timm/mobilenetv3_small_100"),
        pytest.param("tv__shufflenet_v2_x0_5", "torchvision/shufflenet_v2_x0_5", marks=pytest.mark.slow),
        pytest.param("timm__convnextv2_atto", "timm/convnextv2_atto", marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_gives_the_models_logits(fixture, name, tmp_path):
    meta, _ = golden_rule.load(GOLDEN / f"{fixture}.npz")
    save_file(dict(golden_rule.params(meta)), tmp_path / "weights.safetensors")
    model = keraslight.create_model(
        name, weights=tmp_path / "weights.safetensors", classifier_activation=None, input_shape=(64, 64, 3)
    )
    wanted = model.predict(IMAGES, verbose=0)
    path = to_onnx(model, tmp_path / "deep" / "model.onnx", check_images=IMAGES[:1], tolerance=1e-4 * wanted.std())
    run = onnx_runner(path)
    for count in (1, 3):
        assert np.abs(run(IMAGES[:count]) - wanted[:count]).max() < 1e-4 * wanted.std()
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [entry.name for entry in file.graph.input] == ["images"]
    assert [entry.name for entry in file.graph.output] == ["probabilities"]
    assert [entry.version for entry in file.opset_import if entry.domain == ""] == [17]
    assert "Conv" in {node.op_type for node in file.graph.node}
    assert [entry.name for entry in path.parent.iterdir()] == ["model.onnx"]


def test_opsets(small, tmp_path):
    for opset in (13, 18):
        path = to_onnx(small, tmp_path / "model.onnx", opset=opset, check_images=IMAGES[:, :8, :8])
        assert [entry.version for entry in onnx.load(path).opset_import if entry.domain == ""] == [opset]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"opset": 12}, r"`opset` must be in 13[.][.]18. Received: opset=12"),
        ({"tolerance": 0}, "`tolerance` must be above 0. Received: tolerance=0"),
    ],
)
def test_bad_arguments(small, tmp_path, arguments, message):
    with pytest.raises(InvalidArgumentError, match=message):
        to_onnx(small, tmp_path / "model.onnx", **arguments)


def test_a_file_that_differs_is_not_kept(small, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(DisagreementError, match="within 1e-12. Received: a difference of .* on 3 images"):
        to_onnx(small, path, check_images=IMAGES[:, :8, :8], tolerance=1e-12)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == b"old"


def test_models_that_cannot_be_converted(small, tmp_path):
    images = keras.Input((None, None, 3))
    open_size = keras.Model(images, layers.Conv2D(2, 1, name="c")(images))
    with pytest.raises(ExportError, match=r"fixed image size. Received: image shape \(None, None, 3\)"):
        to_onnx(open_size, tmp_path / "model.onnx")
    two = keras.Model(small.input, [small.output, small.output])
    with pytest.raises(ExportError, match="one input and one output. Received: .* 1 inputs and 2 outputs"):
        to_onnx(two, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


def test_an_operator_that_the_converter_does_not_know(tmp_path):
    images = keras.Input((8, 8, 3))
    net = keras.Model(images, keras.ops.erfinv(layers.Conv2D(2, 3)(images)), name="odd")
    with pytest.raises(ExportError, match="must accept every layer. Received: 'odd'; it said: .*Erfinv"):
        to_onnx(net, tmp_path / "model.onnx")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_missing_extra_is_named():
    code = """
import sys
sys.modules["tf2onnx"] = sys.modules["onnxruntime"] = None
from keraslight.export import onnx_runner, to_onnx
for call in (lambda: to_onnx(None, "m.onnx"), lambda: onnx_runner("m.onnx")):
    try:
        call()
    except ImportError as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("MissingDependencyError Conversion to ONNX needs tf2onnx: pip install 'keraslight[onnx]'")
    assert second.startswith("MissingDependencyError Running an ONNX file needs onnxruntime: pip install")
