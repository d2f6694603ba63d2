"""What is timed and how it is counted. The times themselves are this machine's; no test depends on them."""

import itertools
import sys
import time

import keras
import numpy as np
import pytest
from keras import layers

from keraslight._timing import interleaved
from keraslight.analysis import Latency, _engines, file_latency, latency, memory_bandwidth, operation_overhead
from keraslight.errors import InvalidArgumentError, MissingDependencyError
from keraslight.export import to_litert


@pytest.fixture
def model():
    images = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(images)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(4, activation="softmax")(x), name="small")


def test_all_engines(model):
    rounds = []
    rows = latency(model, batch=2, repeats=3, progress=lambda done, total: rounds.append((done, total)))
    assert [(row.engine, row.threads, row.batch) for row in rows] == [
        ("keras", None, 2),
        ("saved_model", None, 2),
        ("litert", 1, 2),
        ("litert", 2, 2),
    ]
    assert all(0 < row.p50 <= row.p90 <= row.p99 < 60_000 for row in rows)
    assert rounds == [(1, 3), (2, 3), (3, 3)]
    assert [row.engine for row in latency(model, ["litert", "keras"], threads=[1], repeats=1)] == ["litert", "keras"]


def test_what_is_timed_is_the_model(model, tmp_path):
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    expected = model.predict(images, verbose=0)
    runners = [
        _engines.keras_runner(model, images),
        _engines.saved_model_runner(model, images, tmp_path),
        _engines.litert_runner(_engines.litert_file(model, 2, tmp_path), images, 1),
    ]
    for run in runners:
        np.testing.assert_allclose(run(), expected, atol=1e-6)


def test_rounds_are_interleaved_and_warm_ups_left_out(monkeypatch):
    clock = itertools.count()  # a second a reading, and no other
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    calls = []
    runners = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = interleaved(runners, 20, np.random.default_rng(0), warmup=5)
    assert calls[:15] == [*"aaaaabbbbbccccc"]
    rounds = [tuple(calls[i : i + 3]) for i in range(15, len(calls), 3)]
    assert len(rounds) == 20
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len(set(rounds)) > 2
    assert times == {name: [1000.0] * 20 for name in "abc"}


def test_percentiles(monkeypatch, model):
    # The module's name is the function's too, so a path to it leads to the function.
    monkeypatch.setitem(
        latency.__globals__, "interleaved", lambda runners, *_, **__: dict.fromkeys(runners, range(101))
    )
    assert latency(model, ["keras"]) == [Latency("keras", None, 1, 50.0, 90.0, 99.0)]


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_files(model, tmp_path, dtype):
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("float32")
    plain = to_litert(model, tmp_path / "plain.tflite")
    small = to_litert(
        model,
        tmp_path / "small.tflite",
        quantization="int8",
        representative_data=images,
        input_dtype=dtype,
        batch_size=2,
    )
    times = file_latency({"before": plain, "after": small}, repeats=3)
    assert list(times) == ["before", "after"]
    assert [(row.engine, row.threads, row.batch) for row in times.values()] == [("litert", 1, 1), ("litert", 1, 2)]
    assert all(0 < row.p50 <= row.p90 <= row.p99 < 60_000 for row in times.values())
    # Pixels of the kind that the file takes reach it.
    answers = _engines.litert_file_runner(small, np.random.default_rng(1), 1)()
    assert answers.shape == (2, 4)
    assert answers.dtype == "float32"


def test_files_are_interleaved(monkeypatch):
    monkeypatch.setattr(_engines, "litert_file_runner", lambda file, rng, threads: lambda: np.zeros((threads, 2)))
    fake = {"a": list(range(101)), "b": list(range(0, 202, 2))}
    seen = []
    monkeypatch.setitem(
        file_latency.__globals__,
        "interleaved",
        lambda runners, repeats, *_, **__: seen.append((list(runners), repeats)) or fake,
    )
    times = file_latency({"a": "a.tflite", "b": "b.tflite"}, threads=3, repeats=7)
    assert seen == [(["a", "b"], 7)]
    assert times == {"a": Latency("litert", 3, 3, 50.0, 90.0, 99.0), "b": Latency("litert", 3, 3, 100.0, 180.0, 198.0)}


@pytest.mark.parametrize("wrong", [{"files": {}}, {"threads": 0}, {"repeats": 0}])
def test_bad_arguments_of_file_latency(wrong):
    with pytest.raises(InvalidArgumentError, match="`files` must hold a file, `threads` and `repeats` must be at"):
        file_latency(**{"files": {"a": "a.tflite"}, **wrong})


def test_memory_bandwidth(monkeypatch):
    readings = iter([0.0, 2.0, 10.0, 11.0])  # two seconds, one second
    monkeypatch.setattr(time, "perf_counter", lambda: next(readings))
    assert memory_bandwidth(1, repeats=2) == 2 * 2**20


def test_memory_bandwidth_needs_an_array():
    with pytest.raises(InvalidArgumentError, match="must be at least 1. Received: megabytes=0, repeats=10"):
        memory_bandwidth(0)


def test_operation_overhead():
    assert 0 <= operation_overhead(5, repeats=3) < 1000


def test_operation_overhead_is_the_difference_per_operation(monkeypatch):
    lengths = []

    def told(model, engines, threads, repeats):  # half a millisecond a layer, and 3 for the call
        lengths.append(len(model.layers) - 1)
        return [Latency(engines[0], threads[0], 1, 3 + 0.5 * lengths[-1], 9.0, 9.0)]

    monkeypatch.setitem(operation_overhead.__globals__, "latency", told)
    assert operation_overhead(20) == 0.5
    assert lengths == [1, 21]


def test_operation_overhead_needs_an_operation():
    with pytest.raises(InvalidArgumentError, match="must be at least 1. Received: operations=0"):
        operation_overhead(0)


@pytest.mark.parametrize(
    ("engines", "text"),
    [(["onnx"], r"some of .*'litert'\). Received: \['onnx'\]"), ("keras", "some of .* Received: 'keras'")],
)
def test_unknown_engines_are_rejected(model, engines, text):
    with pytest.raises(InvalidArgumentError, match=f"`engines` must be {text}"):
        latency(model, engines)


@pytest.mark.parametrize("wrong", [{"threads": (0,)}, {"threads": ()}, {"batch": 0}, {"repeats": 0}])
def test_numbers_below_1_are_rejected(model, wrong):
    with pytest.raises(InvalidArgumentError, match="`threads`, `batch` and `repeats` must be at least 1. Received:"):
        latency(model, **wrong)


def test_open_sizes_are_rejected():
    open_sided = keras.Model(images := keras.Input((None, 8, 3)), layers.ReLU()(images))
    with pytest.raises(InvalidArgumentError, match=r"a fixed size and one output. Received: inputs \[\(None, None, 8,"):
        latency(open_sided)


def test_litert_is_named_where_it_is_missing(monkeypatch, model):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r"pip install 'keraslight\[export\]'"):
        latency(model, ["litert"])


@pytest.mark.parametrize("engine", ["saved_model", "litert"])
def test_engines_that_need_tensorflow(monkeypatch, model, engine):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InvalidArgumentError, match=f"engine \"{engine}\" needs .* TensorFlow backend. Received: 'jax'"):
        latency(model, [engine])
