"""How the table is kept and what it sums. The times are this machine's; no test depends on them."""

import json
import math
import types

import keras
import pytest
from keras import layers

from keraslight.analysis import OperationLatency, OperationTable, count_macs, operation_table, plot_operations, resource
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.export.litert.operators import model_operators


@pytest.fixture(scope="module")
def model():
    images = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="stem")(images)
    for number in range(2):
        x = layers.Conv2D(8, 1, activation="relu", name=f"mix{number}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    top = layers.Dense(4, activation="softmax", bias_initializer="ones", name="top")  # a bias of zeros is left out
    return keras.Model(images, top(x), name="small")


@pytest.fixture(scope="module")
def operators(model):
    return model_operators(model)


@pytest.fixture
def timed(monkeypatch):
    """Replaces the timer by one that takes 1 ms per copy of an operator, in units of `speed`; records what it times."""
    calls = []

    def told(self, contents, fixed=(), *, whole=False):
        calls.append([*fixed, *contents])
        times = {"call": 0.25, "gauge": 2.0, "file": 10.0}
        return {key: told.speed * times.get(key, 8.25) for key in calls[-1]}

    told.speed = 1.0
    monkeypatch.setattr(OperationTable, "_time", told)
    return told, calls


def test_a_model_is_the_sum_of_its_operators(operators):
    table = OperationTable(repeats=2)
    rows = table.operations(operators)
    assert [row.layers[-1] for row in rows if row.macs] == ["stem", "mix0", "mix1", "top"]
    assert all(0 <= row.ms < 1000 and math.isfinite(row.ms) for row in rows)
    assert table.latency(operators) == pytest.approx(table._times["call"] + sum(row.ms for row in rows))
    compared = table.compare(operators)
    assert compared.ratio == compared.table_ms / compared.measured_ms > 0


def test_equal_operators_are_timed_once_and_new_ones_alone(timed, operators):
    table = OperationTable()
    rows = {row.layers[-1]: row for row in table.operations(operators) if row.layers}
    assert rows["mix0"].key == rows["mix1"].key
    (first,) = timed[1]
    assert first[:2] == ["call", "gauge"]
    assert len(first) == len(set(first)) == 2 + len(table)
    assert rows["mix0"].ms == 1.0  # 8 copies, and a call
    table.latency(operators)
    assert len(timed[1]) == 1
    table.latency(operators.with_widths({"mix1": 6}))
    assert [key.partition("(")[0] for key in timed[1][1]] == ["call", "gauge", "CONV_2D", "MEAN", "FULLY_CONNECTED"]


def test_times_of_a_slow_hour_are_scaled(timed, operators):
    table = OperationTable()
    before = table.latency(operators)
    timed[0].speed = 3.0
    changed = table.operations(operators.with_widths({"mix1": 6}))
    assert [row.ms for row in changed] == pytest.approx([1.0] * len(changed))
    assert table.latency(operators) == before
    compared = table.compare(operators)
    assert compared == pytest.approx((3 * before, 30.0))
    assert compared.ratio == pytest.approx(before / 10)


def test_a_table_is_kept_by_machine_and_threads(timed, operators, tmp_path):
    first = OperationTable(tmp_path / "tables")
    taken = first.latency(operators)
    assert first.path.parent == tmp_path / "tables"
    assert first.path.name.endswith("-1-threads.json")
    assert "litert-" in first.path.name
    assert set(json.loads(first.path.read_text())["milliseconds"]) >= {"call", "gauge"}
    again = OperationTable(tmp_path / "tables")
    assert again.latency(operators) == taken
    assert len(timed[1]) == 1
    assert OperationTable(tmp_path / "tables", threads=2).path != first.path


def test_two_processes_share_a_table(timed, operators, tmp_path):
    first, second = OperationTable(tmp_path), OperationTable(tmp_path)
    first.latency(operators)
    second.latency(operators.with_widths({"mix1": 6}))
    assert len(OperationTable(tmp_path)) == len(first) + 3


def test_tables_of_two_speeds_are_joined(timed, operators, tmp_path):
    first, second = OperationTable(tmp_path), OperationTable(tmp_path)
    before = first.latency(operators)
    timed[0].speed = 3.0
    assert second.latency(operators) == pytest.approx(before)  # in the units of the file
    assert OperationTable(tmp_path).latency(operators) == before


def test_new_operators_of_several_models_are_timed_together(timed, operators, monkeypatch):
    table = OperationTable()
    models = [operators.with_widths({"mix1": width}) for width in (4, 6)]
    assert len(table.latencies(models)) == 2
    assert len(timed[1]) == 1
    assert table.latencies(models) == [table.latency(model) for model in models]
    monkeypatch.setattr(operation_table, "_FILES", 3)  # so many files are in memory at once
    apart = OperationTable()
    assert apart.latencies(models) == table.latencies(models)
    counts = [len(files) - 2 for files in timed[1][1:]]  # without a call and the gauge
    assert sum(counts) == len(apart) == len(table)
    assert max(counts) == 3


@pytest.mark.parametrize(
    ("weights", "outputs", "copies"), [(3000, 1, 1), (700, 1, 3), (10, 1, 8), (10, 600, 3), (10, 5000, 1), (0, 0, 8)]
)
def test_copies_have_weights_for_twice_the_cache_and_no_more_outputs(weights, outputs, copies, monkeypatch):
    monkeypatch.setattr(operation_table, "_cache_bytes", lambda: 1000)
    part = types.SimpleNamespace(weight_bytes=weights, output_bytes=outputs)
    assert operation_table._copies(part) == copies


def test_bytes_of_weights_and_outputs(operators):
    stem = operators.cut()[0]
    assert stem.weight_bytes == 4 * (27 * 8 + 8)
    assert stem.output_bytes == 4 * 10 * 10 * 8


def test_the_cache_of_a_core_is_read_from_the_system(tmp_path, monkeypatch):
    monkeypatch.setattr(operation_table, "_CACHE", tmp_path / "size")
    for text, size in (("1280K\n", 1280 << 10), ("1M", operation_table._USUAL_CACHE), (None, 2 << 20)):
        operation_table._cache_bytes.cache_clear()
        if text is None:
            (tmp_path / "size").unlink()
        else:
            (tmp_path / "size").write_text(text)
        assert operation_table._cache_bytes() == size
    operation_table._cache_bytes.cache_clear()


@pytest.mark.parametrize("text", ["", "[]", '{"milliseconds": {"a": 1}}', '{"milliseconds": {"call": "x"}}'])
def test_foreign_files_are_not_overwritten(tmp_path, text):
    path = OperationTable(tmp_path).path
    path.write_text(text)
    with pytest.raises(DataError, match=r"A table of operators must .* Received: .*threads\.json"):
        OperationTable(tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"repeats": 0}])
def test_numbers_below_1(wrong):
    with pytest.raises(InvalidArgumentError, match="`threads` and `repeats` must be at least 1. Received:"):
        OperationTable(**wrong)


def test_one_thread_is_timed_by_its_own_clock():
    assert OperationTable()._clock is operation_table.time.thread_time_ns
    assert OperationTable(threads=2)._clock is operation_table.time.perf_counter_ns


def test_resources_of_widths(timed, model, operators):
    macs, parameters = (resource(operators, metric) for metric in ("macs", "parameters"))
    assert (macs.metric, macs.unit, macs()) == ("macs", "", count_macs(model))
    assert parameters() == model.count_params()
    widths = {"mix0": 6, "mix1": 5}
    assert macs(widths) == 100 * (27 * 8 + 8 * 6 + 6 * 5) + 5 * 4
    assert parameters(widths) == 27 * 8 + 8 * 6 + 6 * 5 + 5 * 4 + 8 + 6 + 5 + 4
    table = OperationTable()
    latency = resource(operators, table=table)
    assert (latency.metric, latency.unit) == ("latency", "ms")
    measured = latency(widths)
    assert len(table)  # it was empty, and is the one that was measured
    assert measured == table.latency(operators.with_widths(widths))
    choices = [{"mix1": 3}, {"mix1": 4}, {}]
    timed[1].clear()
    assert latency.many(choices) == [latency(widths) for widths in choices]
    assert len(timed[1]) == 1
    assert macs.many(choices) == [macs(widths) for widths in choices]
    with pytest.raises(InvalidArgumentError, match=r"`metric` must be one of \('latency', .*Received: 'time'"):
        resource(operators, "time")


def test_operators_need_tensorflow(monkeypatch, model):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InvalidArgumentError, match="needs Keras' TensorFlow backend. Received: 'jax'"):
        resource(model, "macs")


def test_the_slowest_operators_are_drawn(tmp_path):
    rows = [OperationLatency("CONV_2D", (f"conv{n}",), (1, 4, 4, n), 10, n / 100, "") for n in range(1, 6)]
    figure = plot_operations(rows, top=2, path=tmp_path / "operations.png")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv5, 4x4x5", "conv4, 4x4x4", "3 others"]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([0.05, 0.04, 0.06])
    assert axes.get_title() == "5 operators, 0.150 ms"
    assert (tmp_path / "operations.png").stat().st_size
    with pytest.raises(InvalidArgumentError, match="`top` must be at least 1. Received: 5 rows, top=0"):
        plot_operations(rows, top=0)
