import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keraslight import compress
from keraslight.compress.pruning.sensitivity import without_smallest
from keraslight.errors import InvalidArgumentError


@pytest.fixture(scope="module")
def report(trained, digits):
    layers = ["fused", "block1_*", "logits"]
    return compress.sensitivity(trained, digits[1], sparsities=(0.5, 0.9, 0.98), layers=layers)


def test_accuracy_falls_with_the_sparsity_and_the_model_stays(report, trained, accuracy, digits):
    assert list(report.accuracies) == [
        *("fused", "block1_start", "block1_expand", "block1_depthwise", "block1_project", "logits")
    ]
    assert report.baseline == pytest.approx(accuracy(trained))
    assert compress.sparsity(trained, "*").total == 0
    means = np.mean(list(report.accuracies.values()), axis=0)
    assert means[0] > means[1] > means[2]
    assert report.baseline - 0.05 < means[0]
    assert means[2] < report.baseline - 0.1


@pytest.mark.parametrize("name", ["fused", "logits"])
def test_one_entry_is_what_pruning_that_layer_alone_gives(report, trained, accuracy, name):
    model = keras.models.clone_model(trained)
    model.set_weights(trained.get_weights())
    kernel = model.get_layer(name).kernel
    values = kernel.numpy()
    kernel.assign(np.where(np.abs(values) <= np.quantile(np.abs(values), 0.9), 0, values))
    assert report.accuracies[name][1] == pytest.approx(accuracy(model), abs=0.003)


def test_at_least_the_share_is_zero():
    np.testing.assert_array_equal(
        without_smallest(np.array([[5.0, -1], [2, 4], [-3, 6]]), 0.4), [[5, 0], [0, 4], [0, 6]]
    )


def test_a_loss_of_just_the_limit_is_within_it():
    report = compress.SensitivityReport(0.75, (0.5, 0.9), {"a": (0.5, 0.25), "b": (0.75, 0.5)})
    assert report.within(0.25) == {"a": 0.5, "b": 0.9}


def test_chooses_what_pruning_takes(report):
    # Between what the layers lose at 90%, so that they differ, whatever this processor's training made of them.
    at_90 = [values[1] for values in report.accuracies.values()]
    limit = report.baseline - (min(at_90) + max(at_90)) / 2
    chosen = report.within(limit)
    for name, sparsity in chosen.items():
        place = report.sparsities.index(sparsity)
        assert min(report.accuracies[name][: place + 1]) >= report.baseline - limit
        if place < 2:
            assert report.accuracies[name][place + 1] < report.baseline - limit
    assert len(set(chosen.values())) > 1
    compress.Pruning(chosen)
    assert report.within(-1) == {}


def test_table_and_picture(report, tmp_path):
    lines = str(report).splitlines()
    assert re.fullmatch(r"accuracy at +50% +90% +98%", lines[0])
    assert lines[-1].split() == ["dense", f"{report.baseline:.2%}"]
    figure = report.plot(tmp_path / "new" / "scan.png")
    assert (tmp_path / "new" / "scan.png").read_bytes()[:4] == figure._repr_png_()[:4] == b"\x89PNG"
    with pytest.raises(InvalidArgumentError, match=r"`path` must end in .png or .svg. Received: 'scan.tiff'"):
        report.plot("scan.tiff")


@pytest.mark.parametrize("sparsities", [(), (0.5, 0.4), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0)])
def test_sparsities_out_of_range(trained, digits, sparsities):
    with pytest.raises(InvalidArgumentError, match=r"`sparsities` must rise and lie in \(0, 1\). Received: \("):
        compress.sensitivity(trained, digits[1], sparsities=sparsities)


def test_data_and_layers_that_say_nothing(trained, digits):
    images, labels = digits[1][0][:8], digits[1][1][:8]
    empty = tf.data.Dataset.from_tensor_slices((images, labels)).take(0).batch(4)
    with pytest.raises(InvalidArgumentError, match=r"one label per image. Received: batches of \[\] images"):
        compress.sensitivity(trained, empty)
    with pytest.raises(InvalidArgumentError, match=r"`data` must hold labels for task='softmax'.* of shape \(8, 9\)"):
        compress.sensitivity(trained, (images, np.eye(10)[labels][:, :9]))
    with pytest.raises(InvalidArgumentError, match="`layers` must be None or name at least one pattern"):
        compress.sensitivity(trained, (images, labels), layers=[])
