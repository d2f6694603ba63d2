"""A notebook, executed: each plot is an image, each report readable text, and stderr is empty."""

import base64
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from keraslight_serving import startup  # isort: skip

PLOTS = {
    "analysis.plot_architecture": "analysis.plot_architecture(model)",
    "analysis.plot_costs": "analysis.plot_costs([model])",
    "analysis.plot_features": "analysis.plot_features(model, image, channels=2)",
    "analysis.plot_grad_cam": "analysis.plot_grad_cam(model, image)",
    "analysis.plot_operations": (
        "analysis.plot_operations([analysis.OperationLatency('CONV_2D', ('stem',), (1, 8, 8, 4), 9, 0.1, '')])"
    ),
    "analysis.plot_receptive_field": "analysis.plot_receptive_field(model, image)",
    "analysis.plot_tradeoff": "analysis.plot_tradeoff(map(keraslight.model_info, keraslight.list_models('vgg*')))",
    "analysis.Evaluation.plot": (
        "analysis.evaluate(lambda images: np.eye(3)[[0, 1, 1]], np.zeros((3, 4, 4, 3)), [0, 1, 2], 'abc').plot()"
    ),
    "training.LearningRateSearch.plot": (
        "keraslight.training.LearningRateSearch((1e-4, 1e-3, 1e-2), (2.0, 1.5, 1.8), 1e-3).plot()"
    ),
    "search.SearchResult.plot": """from keraslight import search
found = [search.Candidate(n, {}, 9 + n, 5, None, 1 / (1 + n), 0.9, '', 1.0, '') for n in range(3)]
search.SearchResult(tuple(found), (0, 1, 2), 'macs', None, 0.0, FOLDER, None, None).plot()""",
    "compress.NetAdaptResult.plot": """row = compress.NetAdaptIteration(1, 'stem', 16, 8, 60.0, 55.0, 0.2, 0.9, 1, 0)
compress.NetAdaptResult(None, (row,), {'stem': (16, 8)}, 'macs', '', 50.0, FOLDER, None).plot()""",
    "compress.SensitivityReport.plot": "compress.SensitivityReport(0.9, (0.5, 0.7), {'conv': (0.8, 0.7)}).plot()",
    "compress.QuantizationSensitivity.plot": (
        "compress.QuantizationSensitivity(0.9, {'conv': compress.QuantizationCost(0.1, 0.9, 0.8)}).plot()"
    ),
}
CELLS = {
    "import": "import keraslight\nfrom keraslight import analysis, compress\nimport numpy as np",
    "model": """model = keraslight.MobileNetV2("035", input_shape=(32, 32, 3), classes=4, preprocessing=False)
image = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype("float32")
print(model.predict(image[None], verbose=0).shape)""",
    **PLOTS,
    "profile": "analysis.profile(model)",
    "sparsity": "compress.sparsity(model)",
    "litert": """from keraslight.export import litert_report, litert_runner, to_litert
to_litert(model, FOLDER + "/net.tflite")
print(litert_runner(FOLDER + "/net.tflite")(image[None]).shape)
litert_report(FOLDER + "/net.tflite")""",
    "train": """from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, load_digits, train
data = load_digits(DIGITS_PREPROCESSING.replace(size=(32, 32)))
net = keraslight.LeNet5("modern", input_shape=data.image_shape, preprocessing=data.preprocessing)
result = train(net, data, DIGITS_RECIPE.replace(epochs=1, warmup_epochs=0), run_dir=FOLDER + "/run")""",
    "result": "result",
}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The outputs of each cell."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = [nbformat.v4.new_code_cell(f"FOLDER = {str(folder)!r}")]
    cells += [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(startup.LEVEL, raising=False)  # as a user has it
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        kernel = {"kernel_name": "python3", "resources": {"metadata": {"path": str(folder)}}}
        NotebookClient(notebook, timeout=300, **kernel).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, cells[1:], strict=True)}


def test_nothing_is_on_stderr(outputs):
    texts = [output.text for each in outputs.values() for output in each if output.get("name") == "stderr"]
    assert texts == []


@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_is_an_image(outputs, plot):
    (png,) = [output.data["image/png"] for output in outputs[plot] if "data" in output]
    assert base64.b64decode(png).startswith(b"\x89PNG")


def test_every_public_plot_function_and_method_is_covered():
    recorded = (Path(__file__).parent / "public_api.txt").read_text()
    found = re.findall(r"^keraslight\.([\w.]*\bplot(?:_\w+)?)\(", recorded, re.MULTILINE)
    assert {name for name in found if not name.startswith("analysis.plots.")} == set(PLOTS)  # which are analysis'


@pytest.mark.parametrize(
    ("report", "text"),
    [("profile", "<table>"), ("sparsity", "kernel"), ("litert", "CONV_2D"), ("result", "Best epoch 1 of 1")],
)
def test_a_report_is_shown_as_a_table(outputs, report, text):
    assert any(text in output.data.get("text/html", "") for output in outputs[report] if "data" in output)


def test_training_shows_a_bar_and_a_line_per_epoch(outputs):
    html = [output.data.get("text/html", "") for output in outputs["train"] if "data" in output]
    assert any("epoch 1/1" in text for text in html)
    assert html[0] == ""  # the bar, which disappears at the end
