"""The plots: what they show against the numbers, that texts stay apart, and reference pictures.

`python tests/analysis/test_plots.py` writes the reference pictures again; look at them before you keep them.
"""

import functools
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib import pyplot
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.testing.compare import compare_images
from sklearn.datasets import load_sample_image

import keraslight
from keraslight.analysis import (
    grad_cam,
    pareto_front,
    plot_architecture,
    plot_costs,
    plot_features,
    plot_grad_cam,
    plot_receptive_field,
    plot_tradeoff,
    profile,
    receptive_field,
)
from keraslight.errors import InvalidArgumentError, MissingDependencyError

REFERENCES = Path(__file__).parent / "reference_images"
MODELS = ["lenet5_paper", "mobilenet_v4_conv_small", "densenet121", "efficientnet_b0"]
RECORDS = [  # ImageNet figures of some well-known models
    {"name": "mobilenet_v2_100", "family": "MobileNet", "top1": 72.97, "macs": 300.8e6},
    {"name": "mobilenet_v3_large_100", "family": "MobileNet", "top1": 75.77, "macs": 216.6e6},
    {"name": "mobilenet_v4_conv_small", "family": "MobileNet", "top1": 73.74, "macs": 186.0e6},
    {"name": "ghostnet_100", "family": "GhostNet", "top1": 73.98, "macs": 141.3e6},
    {"name": "efficientnet_b0", "family": "EfficientNet", "top1": 78.6, "macs": 385.8e6},
    {"name": "efficientnet_b1", "family": "EfficientNet", "top1": 81.43, "macs": 684.2e6},
    {"name": "resnet18", "family": "ResNet", "top1": 71.49, "macs": 1814.1e6},
    {"name": "resnet50", "family": "ResNet", "top1": 80.38, "macs": 4089.2e6},
    {"name": "not_trained", "family": "ResNet", "top1": None, "macs": 100e6},
]


@functools.cache
def built(name):
    return keraslight.create_model(name)


@functools.cache
def costs(name):
    return profile(built(name))


def photo(name, height, width):
    """A scikit-learn photograph, every few pixels of its middle."""
    pixels = load_sample_image(name)
    step = min(pixels.shape[0] // height, pixels.shape[1] // width)
    top, left = (pixels.shape[0] - height * step) // 2, (pixels.shape[1] - width * step) // 2
    return pixels[top : top + height * step : step, left : left + width * step : step].astype("float32")


def small_classifier():
    """Deterministic weights on every machine: kernels are drawn by NumPy."""
    images = keras.Input((64, 80, 3))
    x = layers.Rescaling(1 / 127.5, -1, name="scale")(images)
    for number, channels in enumerate((6, 8, 12)):
        x = layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu", name=f"conv{number}")(x)
    x = layers.Dense(5, activation="softmax", name="classes")(layers.GlobalAveragePooling2D(name="pool")(x))
    model = keras.Model(images, x, name="small")
    rng = np.random.default_rng(7)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


def residual_net():
    return keraslight.create_model("resnet18", width=0.25, input_shape=(64, 80, 3))


def spot(height, width):
    y, x = np.mgrid[:height, :width]
    return np.exp(-((x - width / 2) ** 2 + (y - height / 2) ** 2) / 200)


class Recorder(RendererAgg):
    """Keeps what is written where: (text, x0, y0, x1, y1) in pixels from the upper left."""

    def __init__(self, figure):
        super().__init__(*(figure.get_size_inches() * figure.dpi), figure.dpi)
        self.written = []

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        width, height, descent = self.get_text_width_height_descent(s, prop, ismath)
        if angle == 90:
            self.written.append((s, x - height + descent, y - width, x + descent, y))
        else:
            self.written.append((s, x, y - height + descent, x + width, y + descent))


def check_texts(figure):
    """Nothing is cut off, no text covers another. Returns the texts."""
    recorder = Recorder(figure)
    figure.draw(recorder)
    for text, x0, y0, x1, y1 in recorder.written:
        inside = x0 >= -1 and y0 >= -1 and x1 <= recorder.width + 1 and y1 <= recorder.height + 1
        assert inside, f"{text!r} is cut off"
    for i, (one, *a) in enumerate(recorder.written):
        for other, *b in recorder.written[i + 1 :]:
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            assert min(width, height) < 2, f"{one!r} covers {other!r}"
    return [text for text, *_ in recorder.written]


@pytest.mark.parametrize("name", MODELS)
def test_costs_of_one_model(name):
    own = costs(name)
    figure = plot_costs(own)
    texts = check_texts(figure)
    rows = [row for row in own.by_stage() if row.macs or row.parameters or row.activation_bytes]
    for axes, metric in zip(figure.axes, ("macs", "parameters", "activation_bytes"), strict=True):
        assert [bar.get_width() for bar in axes.patches] == [getattr(row, metric) for row in rows]
        assert axes.get_xlim()[1] > max(getattr(row, metric) for row in rows)
    assert [row.name for row in rows] == [text for text in texts if text in {row.name for row in rows}]
    assert name in texts


def test_costs_of_several_models_share_their_scales():
    figure = plot_costs([costs(name) for name in MODELS], metrics=("macs", "access_bytes"))
    texts = check_texts(figure)
    assert set(MODELS) < set(texts)
    assert "2.83 G multiply-adds" in texts  # densenet121
    assert len(figure.axes) == 8
    assert len({axes.get_xlim() for axes in figure.axes[::2]}) == 1
    assert len({axes.get_xlim() for axes in figure.axes[1::2]}) == 1


def test_costs_by_block():
    check_texts(plot_costs(costs("densenet121"), by="block"))


def test_costs_of_a_model_that_costs_nothing():
    check_texts(plot_costs(keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU()], name="nothing"), by="layer"))


@pytest.mark.parametrize("name", MODELS)
def test_architecture(name):
    figure = plot_architecture(built(name))
    texts = check_texts(figure)
    boxes = {bar.get_x() + bar.get_width() / 2: bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)}
    ticks = dict(zip(figure.axes[0].get_xticks(), figure.axes[0].get_xticklabels(), strict=True))
    outputs = {row.name: row.output for row in costs(name).by_stage()}
    scales = []
    for center, bar in boxes.items():
        label = ticks[min(ticks, key=lambda tick: abs(tick - center))].get_text()
        stage, shape = label.split("  ")
        assert shape == "×".join(map(str, outputs[stage]))
        assert bar.get_height() == (outputs[stage][0] if len(outputs[stage]) > 1 else 1)
        scales.append(bar.get_width() / outputs[stage][-1])
    assert len(boxes) == len(ticks) > 6
    np.testing.assert_allclose(scales, scales[0])  # one scale for all
    assert any(text.startswith("classifier  ") for text in texts)
    assert not any(text.startswith(("flatten", "pool ")) for text in texts)


def test_architecture_by_block():
    check_texts(plot_architecture(built("mobilenet_v4_conv_small"), by="block"))


def test_architecture_of_an_open_size():
    images = keras.Input((None, None, 3))
    model = keras.Model(images, layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(images))
    assert "conv  20×30×4" in check_texts(plot_architecture(model, input_shape=(40, 60, 3)))


def test_architecture_of_maps_of_nearly_the_same_size():
    check_texts(plot_architecture(keraslight.create_model("xception")))  # maps of 149, 147 and 74 pixels


def beaten(point, points):
    return any(c <= point[0] and s >= point[1] and (c, s) != point for c, s in points)


def test_the_pareto_front_against_brute_force():
    rng = np.random.default_rng(0)
    for count in [1, 2, 3, *rng.integers(1, 40, 300)]:
        points = [(int(c), int(s)) for c, s in rng.integers(0, 12, (count, 2))]  # few values: many ties
        front = pareto_front(*zip(*points, strict=True))
        assert set(front) == {i for i, point in enumerate(points) if not beaten(point, points)}
        assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert pareto_front([], []) == []


def test_equal_points_are_on_the_pareto_front_together():
    assert pareto_front([2, 1, 1], [5, 5, 5]) == [1, 2]


def test_a_pareto_front_needs_a_cost_and_a_score_per_point():
    with pytest.raises(InvalidArgumentError, match=r"one number per point each. Received: shapes \(2,\) and \(1,\)"):
        pareto_front([1, 2], [1])


def test_a_pareto_front_needs_finite_numbers():
    with pytest.raises(InvalidArgumentError, match="must be finite"):
        pareto_front([1, 2], [1, np.nan])


def test_tradeoff():
    figure = plot_tradeoff(RECORDS, group="family")
    texts = check_texts(figure)
    assert "1 of 9 models left out: macs or top1 not known" in texts
    axes = figure.axes[0]
    drawn = {}  # by place, of the lines that are one point
    for line in axes.lines:
        if len(line.get_xdata()) == 1:
            drawn[float(line.get_xdata()[0]), float(line.get_ydata()[0])] = line
    assert len(drawn) == 8
    filled = set()
    for record in RECORDS[:8]:
        line = drawn[record["macs"] / 1e6, record["top1"]]
        if to_hex(line.get_markerfacecolor()) != "#ffffff":
            filled.add(record["name"])
        assert line.get_marker() == {"MobileNet": "o", "GhostNet": "s", "EfficientNet": "^", "ResNet": "D"}[
            record["family"]
        ]  # fmt: skip
        assert record["name"] in texts
    assert filled == {"ghostnet_100", "mobilenet_v3_large_100", "efficientnet_b0", "efficientnet_b1"}
    assert "not_trained" not in texts


def test_tradeoff_of_the_whole_zoo():
    infos = [keraslight.model_info(name) for name in keraslight.list_models()]
    known = [info for info in infos if info.top1 is not None]
    for x in ("macs", "parameters"):
        figure = plot_tradeoff(infos, x=x, group="family")
        texts = check_texts(figure)
        front = pareto_front([getattr(info, x) for info in known], [info.top1 for info in known])
        markers = [str(line.get_marker()) for line in figure.axes[0].lines if not len(line.get_xdata())]
        assert len(set(markers[:-1])) == len({info.family for info in known})  # told apart without colors too
        named = {info.name for info in known} & set(texts)
        assert named == {known[i].name for i in front}


def test_tradeoff_of_own_measurements():
    own = [{"name": "a", "latency_ms": 1.5, "score": 3}, {"name": "b", "latency_ms": 2.5, "score": 4}]
    assert {"a", "b", "latency (ms)", "score"} < set(check_texts(plot_tradeoff(own, x="latency_ms", y="score")))


def test_features():
    model, image = small_classifier(), photo("china.jpg", 64, 80)
    figure = plot_features(model, image, channels=5)
    texts = check_texts(figure)
    assert [text for text in texts if text.startswith(("scale", "conv"))] == ["scale", "conv0", "conv1", "conv2"]
    maps = keras.Model(model.input, model.get_layer("conv2").output).predict(image[None], verbose=0)[0]
    order = np.argsort(-maps.std((0, 1)), kind="stable")[:5]
    last = figure.axes[-5:]
    assert [axes.get_title() for axes in last] == [str(channel) for channel in order]
    for axes, channel in zip(last, order, strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), maps[..., channel], atol=1e-5)


def test_features_of_a_layer_with_few_channels():
    figure = plot_features(small_classifier(), photo("china.jpg", 64, 80), layers=["conv1"], channels=100)
    assert len(figure.axes) == 1 + 8


@pytest.mark.parametrize(("name", "shape"), [("lenet5_modern", (32, 32, 1)), ("mobilenet_v4_conv_small", (64, 64, 3))])
def test_features_leave_out_padding(name, shape):
    net = keraslight.create_model(name, input_shape=shape)
    texts = check_texts(plot_features(net, photo("flower.jpg", *shape[:2])[..., : shape[2]]))
    assert not any(text.endswith("_pad") for text in texts)


def test_grad_cam_picture():
    model, image = small_classifier(), photo("flower.jpg", 64, 80)
    found = grad_cam(model, image)
    figure = plot_grad_cam(model, image, labels=["a", "b", "c", "d", "e"])
    texts = check_texts(figure)
    assert f"{'abcde'[found.class_index]} ({found.class_index}): {found.score:.3g}" in texts
    assert "Grad-CAM of 8×10 places" in texts
    np.testing.assert_allclose(figure.axes[1].images[1].get_array(), found.heat / found.heat.max(), atol=1e-6)
    assert figure.axes[1].images[1].get_extent() == [-0.5, 79.5, 63.5, -0.5]


def test_grad_cam_picture_without_heat():
    model, image = small_classifier(), photo("flower.jpg", 64, 80)
    model.get_layer("classes").set_weights([np.full((12, 5), -1.0), np.zeros(5)])
    assert "at conv2: 0 everywhere" in check_texts(plot_grad_cam(model, image, class_index=0))


def test_receptive_field_picture():
    model, image = residual_net(), photo("china.jpg", 64, 80)
    rows = {row.name: row for row in receptive_field(model)}
    figure = plot_receptive_field(model, image, layers=["stem", "stage0_block1_add"])
    texts = check_texts(figure)
    boxes = [p for p in figure.axes[0].patches if to_hex(p.get_edgecolor()) != "#ffffff"]
    assert [box.get_width() for box in boxes] == [rows[name].size[1] for name in ("stem", "stage0_block1_add")]
    for box, name in zip(boxes, ("stem", "stage0_block1_add"), strict=True):
        center_x, center_y = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
        row = rows[name]
        for value, first, stride, side in zip((center_y, center_x), row.center, row.stride, (64, 80), strict=True):
            assert (value - first) % stride == 0  # it is the field of an output
            assert abs(value - (side - 1) / 2) <= stride / 2  # of the one in the middle
    assert f"stem  {rows['stem'].size[0]}×{rows['stem'].size[1]}" in texts


def test_receptive_field_picture_chooses_layers():
    chosen = check_texts(plot_receptive_field(residual_net(), photo("china.jpg", 64, 80)))
    assert any(text.startswith("the first that sees") for text in chosen)
    assert "pool" in chosen


def test_receptive_field_picture_with_an_effective_field():
    figure = plot_receptive_field(residual_net(), photo("china.jpg", 64, 80), effective=spot(64, 80))
    check_texts(figure)
    np.testing.assert_allclose(figure.axes[1].images[1].get_array(), spot(64, 80) / spot(64, 80).max())


PICTURES = {
    "costs": lambda path: plot_costs([costs("lenet5_paper"), costs("mobilenet_v4_conv_small")], path=path),
    "tradeoff": lambda path: plot_tradeoff(RECORDS, group="family", path=path),
    "architecture": lambda path: plot_architecture(built("efficientnet_b0"), path=path),
    "features": lambda path: plot_features(small_classifier(), photo("china.jpg", 64, 80), channels=6, path=path),
    "grad_cam": lambda path: plot_grad_cam(small_classifier(), photo("flower.jpg", 64, 80), path=path),
    "receptive_field": lambda path: plot_receptive_field(
        residual_net(), photo("flower.jpg", 64, 80), effective=spot(64, 80), path=path
    ),
}
TOLERANCE = 2.0  # root mean square over all pixels, of 255; a wrong bar gives 5 and more


def small(name, path):
    """The picture at 40 dots per inch."""
    PICTURES[name](None).savefig(path, dpi=40, metadata={"Software": None})


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_as_they_were(name, tmp_path):
    small(name, tmp_path / f"{name}.png")
    difference = compare_images(str(REFERENCES / f"{name}.png"), str(tmp_path / f"{name}.png"), TOLERANCE)
    assert difference is None, difference


def test_another_picture_is_noticed(tmp_path):
    """One point moved, one model's name changed."""
    changed = [{**record, "top1": 77.0} if record["name"] == "resnet18" else record for record in RECORDS]
    plot_tradeoff(changed, group="family").savefig(tmp_path / "tradeoff.png", dpi=40)
    assert "RMS" in compare_images(str(REFERENCES / "tradeoff.png"), str(tmp_path / "tradeoff.png"), TOLERANCE)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".SVG"])
def test_files_are_the_same_every_time(tmp_path, suffix):
    files = [tmp_path / "new" / f"{number}{suffix}" for number in (1, 2)]
    for file in files:
        plot_costs(costs("lenet5_paper"), path=file)
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


def test_no_figure_is_left_in_pyplot():
    """pyplot's figures stay in memory until they are closed, and may want a display."""
    before = pyplot.get_fignums()
    plot_costs(costs("lenet5_paper"))
    assert pyplot.get_fignums() == before


@pytest.mark.parametrize("name", PICTURES)
def test_without_matplotlib(monkeypatch, name):
    for module in [module for module in sys.modules if module.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "keraslight._figure", raising=False)
    with pytest.raises(
        MissingDependencyError, match=r"Plots need matplotlib: pip install 'keraslight\[analysis\]'. Rec"
    ):
        PICTURES[name](None)


@pytest.mark.parametrize("name", PICTURES)
def test_a_path_that_is_not_an_image_file_is_rejected(name):
    with pytest.raises(InvalidArgumentError, match=r"`path` must end in .png or .svg. Received: 'plot.pdf'"):
        PICTURES[name]("plot.pdf")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"metrics": ("time",)}, r"`metrics` must be some of .*'macs'.* Received: \('time',\)"),
        ({"metrics": ()}, r"`metrics` must be some of .* Received: \(\)"),
        ({"models": []}, "`models` must have at least one model. Received: none"),
        ({"by": "row"}, "`by` must be .*Received: by='row'"),
    ],
)
def test_bad_arguments_of_plot_costs(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        plot_costs(**{"models": small_classifier(), **arguments})


def test_more_boxes_than_fit_are_rejected():
    with pytest.raises(InvalidArgumentError, match=r"At most 80 boxes .* Received: \d+"):
        plot_architecture(built("densenet121"), by="layer")


@pytest.mark.parametrize(
    ("records", "x", "text"),
    [
        (RECORDS, "latency_ms", r"Every record must have 'latency_ms'. Received: \{'name': 'mob"),
        (RECORDS[-1:], "macs", "with both 'macs' and 'top1'. Received: 1 records, none with both"),
        ([{"name": "free", "macs": 0, "top1": 50.0}], "macs", "`x` must be positive. Received: macs=0"),
        (
            [{"name": "text", "macs": "300", "top1": 50.0}],
            "macs",
            "'macs' and 'top1' must be numbers. Received: '300', 50.0 of 'text'",
        ),
        ([{"name": "lost", "macs": 300, "top1": float("nan")}], "macs", "`costs` and `scores` must be finite"),
    ],
    ids=["missing", "none left", "free", "text", "nan"],
)
def test_bad_records(records, x, text):
    with pytest.raises(InvalidArgumentError, match=text):
        plot_tradeoff(records, x=x)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"channels": 0}, "`channels` must be at least 1. Received: channels=0"),
        ({"layers": []}, "`layers` must name at least one layer. Received: none"),
        ({"layers": ["conv9"]}, "such as 'conv.* Received: 'conv9'"),
    ],
)
def test_bad_arguments_of_plot_features(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        plot_features(small_classifier(), photo("china.jpg", 64, 80), **arguments)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"effective": np.ones((2, 2))}, r"the image's shape, \(64, 80\), and .* Received: shape \(2, 2\)"),
        ({"effective": -np.ones((64, 80))}, "finite values of at least 0"),
        ({"layers": ["conv9"]}, "see a part of the image. Received: 'conv9', not in the model"),
        ({"layers": ["pool"]}, "Received: 'pool', sees the whole image"),
        ({"layers": []}, "`layers` must name 1 to 6 layers. Received: 0"),
    ],
    ids=["shape", "negative", "unknown", "whole", "none"],
)
def test_bad_arguments_of_plot_receptive_field(arguments, text):
    with pytest.raises(InvalidArgumentError, match=text):
        plot_receptive_field(small_classifier(), photo("china.jpg", 64, 80), **arguments)


def test_an_image_of_another_size_is_rejected():
    with pytest.raises(InvalidArgumentError, match=r"of the model's size, \(64, 80, 3\). Received: shape \(32, 80, 3"):
        plot_receptive_field(small_classifier(), photo("china.jpg", 64, 80)[:32])


if __name__ == "__main__":
    REFERENCES.mkdir(exist_ok=True)
    for picture in PICTURES:
        small(picture, REFERENCES / f"{picture}.png")
