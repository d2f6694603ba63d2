"""One way through both packages: models, training, compression, files, plots, a server and its clients.

`make test-all` runs it in an environment with the lowest versions that pyproject.toml allows.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    import keraslight
    from keraslight import analysis, compress
    from keraslight.export import litert_parity, litert_report, read_metadata, save_servable, to_litert, to_onnx
    from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, load_digits, train

    data = load_digits(DIGITS_PREPROCESSING.replace(size=(32, 32)))
    model = keraslight.LeNet5("modern", input_shape=data.image_shape, preprocessing=data.preprocessing)
    result = train(model, data, DIGITS_RECIPE.replace(epochs=2, warmup_epochs=0), run_dir="runs/net")
    assert result.best_accuracy > 0.7, result
    pixels, targets = data.validation_arrays()
    images = pixels[:64].astype("float32")

    pruned = compress.prune(model, data.train(32), sparsity=0.5, epochs=1, verbose=0)
    assert compress.sparsity(pruned).total >= 0.5
    clustered = compress.cluster(pruned, data.train(32), clusters=8, epochs=1, verbose=0)
    assert max(layer.values for layer in compress.cluster_report(clustered).layers) <= 8
    quantized = compress.train_quantized(pruned, data.train(32), epochs=1, verbose=0)
    for net, file in ((model, "net.tflite"), (quantized, "int8.tflite")):
        to_litert(net, file, labels=data.labels)
        assert litert_parity(net, file, images).agreement >= 0.98
    compress.calibrate(model, images, "calibrated.tflite")
    assert litert_parity(model, "calibrated.tflite", images).agreement >= 0.95
    assert any("INT8" in operator.inputs for operator in litert_report("int8.tflite").operators)
    metadata = read_metadata("net.tflite")
    assert metadata is not None and tuple(metadata.labels) == tuple(data.labels)  # noqa: PT018
    to_onnx(model, "net.onnx", check_images=images[:2])

    profile = analysis.profile(model)
    assert profile.to_pandas()["macs"].sum() == profile.macs
    analysis.plot_architecture(model, path="net.png")
    result = compress.sensitivity(model, (images, targets[:64]), sparsities=(0.5,))
    result.plot("scan.png")

    save_servable(model, "savedmodels/digits", labels=data.labels)
    served(pixels[:8], model.predict(images[:8], verbose=0).argmax(axis=-1), list(data.labels))
    for arguments in (["list"], ["info", "resnet18"], ["profile", "lenet5_modern"], ["versions", "digits", "--json"]):
        code = "from keraslight.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)


def served(pixels: np.ndarray, classes: np.ndarray, labels: list[str]) -> None:
    """Classifies images over gRPC and REST, with both hooks."""
    from keraslight_serving.client import ClassifierClient
    from keraslight_serving.client.telemetry import opentelemetry_hook, prometheus_hook
    from keraslight_serving.server import ModelServer
    from PIL import Image

    files = [f"{number}.png" for number in range(len(pixels))]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image[..., 0].astype(np.uint8)).save(file)
    hooks = prometheus_hook(), opentelemetry_hook()
    with ModelServer("digits", Path("savedmodels/digits").absolute(), port=0, rest_api_port=0) as server:
        for address in (server.address, server.rest_address):
            with ClassifierClient(address, "digits", hooks=hooks) as client:
                found = [ranking[0].label for ranking in client.classify(files)]
            assert found == [labels[index] for index in classes], (found, classes)


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp())
    main()
