"""What the server counts: names, labels and buckets of TensorFlow Serving, in Prometheus' text format."""

import multiprocessing
import re
import threading
import timeit

import pytest
from keraslight_serving.server.telemetry import metrics as _metrics
from keraslight_serving.server.telemetry.metrics import METRICS, Metrics
from prometheus_client.parser import text_string_to_metric_families


def samples(metrics):
    """{(name, labels as a frozenset): value}, read by prometheus-client, which has all counters end in `_total`."""
    families = text_string_to_metric_families(metrics.render().decode())
    found = ((s.name, frozenset(s.labels.items()), s.value) for family in families for s in family.samples)
    counters = {f"{name}_total": name for name in METRICS if not METRICS[name].bounds}
    return {(counters.get(name, name), labels): value for name, labels, value in found}


def value(metrics, name, **labels):
    return samples(metrics)[name, frozenset(labels.items())]


def test_nothing_is_shown_before_its_first_sample():
    assert Metrics().render() == b""


@pytest.fixture
def two_requests():
    """The lines for a request that succeeded and one that failed: a counter, then a histogram."""
    metrics = Metrics()
    metrics.request("tiny", "Predict", "GRPC", "OK", 30e-6)
    metrics.request("tiny", "Predict", "GRPC", "INVALID_ARGUMENT", 1)
    return metrics.render().decode().splitlines()


def test_a_counter_looks_as_in_tensorflow_serving(two_requests):
    assert two_requests[:3] == [
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="tiny",status="INVALID_ARGUMENT"} 1',
        ':tensorflow:serving:request_count{model_name="tiny",status="OK"} 1',
    ]


def test_a_histogram_looks_as_in_tensorflow_serving(two_requests):
    assert two_requests[3:8] == [
        "# TYPE :tensorflow:serving:request_latency histogram",
        ':tensorflow:serving:request_latency_bucket{model_name="tiny",API="Predict",entrypoint="GRPC",le="10"} 0',
        ':tensorflow:serving:request_latency_bucket{model_name="tiny",API="Predict",entrypoint="GRPC",le="18"} 0',
        ':tensorflow:serving:request_latency_bucket{model_name="tiny",API="Predict",entrypoint="GRPC",le="32.4"} 1',
        ':tensorflow:serving:request_latency_bucket{model_name="tiny",API="Predict",entrypoint="GRPC",le="58.32"} 1',
    ]
    assert len(two_requests) == 4 + 33 + 1 + 2  # 33 limits and infinity


def test_a_histogram_ends_with_all_values_their_sum_and_their_count(two_requests):
    infinity, total, count = two_requests[-3:]
    assert infinity.endswith('le="+Inf"} 1')
    assert total.startswith(":tensorflow:serving:request_latency_sum{")
    assert float(total.split()[-1]) == pytest.approx(30)
    assert count.startswith(":tensorflow:serving:request_latency_count{")


def test_a_value_on_a_limit_is_within_it():
    metrics = Metrics()
    metrics.batch("tiny", "LiteRT", [8], [0], 8)
    assert value(metrics, ":keraslight:serving:batch_size_bucket", model_name="tiny", engine="LiteRT", le="4") == 0
    assert value(metrics, ":keraslight:serving:batch_size_bucket", model_name="tiny", engine="LiteRT", le="8") == 1


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        (":tensorflow:serving:batching_session:queuing_latency_sum", {"thread_pool_name": "pool"}, 3000),
        (":tensorflow:serving:batching_session:queuing_latency_count", {"thread_pool_name": "pool"}, 2),
        (":tensorflow:serving:batching_session:padding_size_sum", {"execution_batch_size": "4"}, 1),
        (":tensorflow:serving:batching_session:input_batch_size_sum", {}, 3),
        (":tensorflow:serving:batching_session:input_batch_size_count", {}, 2),
        (":tensorflow:serving:batching_session:processed_batch_size_sum", {}, 4),
        (":tensorflow:serving:batching_session:wrapped_run_count", {}, 1),
        (":keraslight:serving:queue_latency_sum", {"model_name": "tiny", "engine": "TF1"}, 3000),
        (":keraslight:serving:batch_size_sum", {"model_name": "tiny", "engine": "TF1"}, 3),
    ],
)
def test_a_batch_is_counted(name, labels, expected):
    metrics = Metrics()
    metrics.batch("tiny", "TF1", [1, 2], [0.001, 0.002], 4, "pool")
    assert value(metrics, name, **labels) == pytest.approx(expected)


def test_the_time_of_an_engine_is_counted_in_microseconds():
    metrics = Metrics()
    metrics.run("tiny", "Classify", "LiteRT", 0.5)
    labels = {"model_name": "tiny", "API": "Classify", "runtime": "LiteRT"}
    assert value(metrics, ":tensorflow:serving:runtime_latency_sum", **labels) == 500_000


def test_examples_are_counted_in_total_and_per_request():
    metrics = Metrics()
    metrics.examples("tiny", 3)
    assert value(metrics, ":tensorflow:serving:request_example_count_total", model="tiny") == 3
    assert value(metrics, ":tensorflow:serving:request_example_counts_bucket", model="tiny", le="4") == 1


def test_warmups_are_counted_by_version_folder():
    metrics = Metrics()
    metrics.warmup("/models/tiny/1", "OK", 2.0, 7)
    labels = {"model_path": "/models/tiny/1", "status": "OK"}
    assert value(metrics, ":tensorflow:serving:model_warmup_latency_sum", **labels) == 2e6
    assert value(metrics, ":tensorflow:serving:model_warmup_records_read", **labels) == 7


def test_logged_requests_are_counted():
    metrics = Metrics()
    metrics.logged("tiny", "OK")
    assert value(metrics, ":tensorflow:serving:request_log_count", model_name="tiny", status_code="OK") == 1


def test_every_metric_can_be_observed():
    metrics = Metrics()
    metrics.request("m", "Predict", "REST", "OK", 1)
    metrics.run("m", "Predict", "TF1", 1)
    metrics.examples("m", 1)
    metrics.batch("m", "TF1", [1], [1], 1)
    metrics.warmup("/m/1", "OK", 1, 1)
    metrics.logged("m", "OK")
    assert set(re.findall("# TYPE (.*) [a-z]+", metrics.render().decode())) == set(METRICS)


def test_names_that_a_client_made_up():
    metrics = Metrics()
    metrics.request('a"b\\c\nd', "Predict", "GRPC", "NOT_FOUND", 1)
    assert value(metrics, ":tensorflow:serving:request_count", model_name='a"b\\c\nd', status="NOT_FOUND") == 1
    metrics.request("x" * 1000, "Predict", "GRPC", "NOT_FOUND", 1)
    assert value(metrics, ":tensorflow:serving:request_count", model_name="_other", status="NOT_FOUND") == 1


def test_made_up_names_do_not_fill_the_memory():
    metrics = Metrics()
    for i in range(_metrics.MAX_SERIES + 50):
        metrics.request(f"made-up-{i}", "Predict", "GRPC", "NOT_FOUND", 1)
    metrics.request("tiny", "Predict", "GRPC", "OK", 1)
    found = samples(metrics)
    name = ":tensorflow:serving:request_count"
    assert found[name, frozenset({"model_name": "_other", "status": "NOT_FOUND"}.items())] == 50
    assert found[name, frozenset({"model_name": "tiny", "status": "OK"}.items())] == 1
    assert sum(key[0] == name for key in found) == _metrics.MAX_SERIES + 2


def test_many_threads_lose_nothing():
    metrics = Metrics()

    def observe():
        for _ in range(2000):
            metrics.request("tiny", "Predict", "GRPC", "OK", 1e-3)

    threads = [threading.Thread(target=observe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        metrics.render()
    for thread in threads:
        thread.join()
    assert value(metrics, ":tensorflow:serving:request_count", model_name="tiny", status="OK") == 16_000


def test_a_request_costs_little():
    metrics = Metrics()
    best = min(timeit.repeat(lambda: metrics.request("tiny", "Predict", "GRPC", "OK", 1e-3), number=1000, repeat=20))
    assert best / 1000 < 20e-6


# ---------------------------------------------------------------- several processes


def _serve_and_die(directory, count):
    metrics = Metrics(directory)
    for _ in range(count):
        metrics.request("tiny", "Predict", "GRPC", "OK", 1e-3)
    metrics.batch("tiny", "LiteRT", [count], [0], count)
    metrics.close()


def test_processes_are_added_up(tmp_path):
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_serve_and_die, args=(tmp_path, count)) for count in (3, 4)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    first.request("tiny", "Predict", "GRPC", "OK", 1e-3)
    second.request("other", "Predict", "GRPC", "NOT_FOUND", 1e-3)
    try:
        first.render(), second.render()
        for metrics in (first, second):
            assert value(metrics, ":tensorflow:serving:request_count", model_name="tiny", status="OK") == 8
            assert value(metrics, ":tensorflow:serving:request_count", model_name="other", status="NOT_FOUND") == 1
            assert value(metrics, ":tensorflow:serving:batching_session:wrapped_run_count") == 2
            assert value(metrics, ":tensorflow:serving:batching_session:input_batch_size_sum") == 7
    finally:
        first.close(), second.close()


def test_a_directory_that_can_not_be_written_leaves_the_own_numbers(tmp_path, caplog):
    directory = tmp_path / "metrics"
    directory.mkdir()
    metrics = Metrics(directory)
    metrics.request("tiny", "Predict", "GRPC", "OK", 1e-3)
    metrics.render()
    directory.rename(tmp_path / "away")
    metrics.request("tiny", "Predict", "GRPC", "OK", 1e-3)
    for _ in range(2):
        assert value(metrics, ":tensorflow:serving:request_count", model_name="tiny", status="OK") == 2
    assert caplog.text.count("Can't write metrics for the other processes") == 1
    (tmp_path / "away").rename(directory)
    assert value(metrics, ":tensorflow:serving:request_count", model_name="tiny", status="OK") == 2
    metrics.close()


def test_a_file_of_another_version_is_passed_over(tmp_path):
    (tmp_path / "1-old.json").write_text("no json")
    metrics = Metrics(tmp_path)
    metrics.logged("tiny", "OK")
    assert value(metrics, ":tensorflow:serving:request_log_count", model_name="tiny", status_code="OK") == 1
    metrics.close()
