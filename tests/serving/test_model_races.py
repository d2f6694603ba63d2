"""What happens when files, configurations and requests come while a model is busy with those before them."""

import threading
import time
from pathlib import Path

import pytest
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.models import model as _model
from keraslight_serving.server.models.config import ModelConfig, VersionPolicy, read_config_file
from keraslight_serving.server.models.folders import files_of
from keraslight_serving.server.models.model import LoadPolicy
from keraslight_serving.server.testing import FakeServable
from keraslight_serving.server.workers.follower import Follower, ModelView
from keraslight_serving.server.workers.supervisor import view_of
from keraslight_serving.wire import serving_pb2 as pb

from tests.serving.helpers import AVAILABLE, END, UNLOADING, refused, served, spec, states, until

ALL = VersionPolicy(most=None)
LOADING = pb.ModelVersionStatus.LOADING


@pytest.fixture
def gates():
    """`gates[3]` is an event that holds up whoever waits for it; all open at the end of a test."""
    made = {number: threading.Event() for number in range(1, 6)}
    yield made
    for gate in made.values():
        gate.set()


def write_config(file: Path, base: Path, labels: dict[str, int], name: str = "a") -> Path:
    entries = " ".join(f'version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
    hidden = file.with_name(f".{file.name}")
    hidden.write_text(
        f'model_config_list {{ config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow"'
        f" {entries} }} }}"
    )
    return hidden.rename(file)


# ---------------------------------------------------------------- labels


def test_a_label_moves_before_the_version_that_had_it_goes(folders, repository, gates, tmp_path):
    class Slow(FakeServable):
        def close(self):
            gates[int(self.folder.name)].wait(20)

    file = write_config(tmp_path / "config", folders("a", 1), {"stable": 1})
    models = repository(*read_config_file(file), load=lambda name, folder, eager: Slow(folder))
    models.follow_file(file, 0.01)
    write_config(file, folders("a"), {"stable": 2, "new": 2})
    # What was nowhere yet is set at once, and so shows that the file was read.
    until(lambda: refused(models.acquire, spec(label="new"))[0] == "NOT_FOUND")
    assert served(models, label="stable") == 1
    folders("a", 2)
    until(lambda: states(models) == {2: AVAILABLE, 1: UNLOADING})
    assert served(models, label="stable") == 2


def test_an_older_configuration_that_is_still_followed_moves_no_label_back(folders, repository, gates):
    loading = []

    def load(name, folder, eager):
        loading.append(int(folder.name))
        if int(folder.name) > 2:
            gates[int(folder.name)].wait(20)
        return FakeServable(folder)

    models = repository(ModelConfig("a", folders("a", 1, 2), ALL, {"stable": 1}), load=load)
    folders("a", 3)
    until(lambda: loading[-1] == 3)
    models.reload([ModelConfig("a", folders("a"), ALL, {"stable": 2, "old": 1})], Call())
    folders("a", 4)
    gates[3].set()
    until(lambda: loading[-1] == 4)  # the older configuration is followed to its end
    assert (served(models, label="stable"), served(models, label="old")) == (2, 1)


def test_an_older_configuration_that_is_still_followed_unloads_nothing(folders, repository, gates):
    def load(name, folder, eager):
        if folder.name != "1":
            gates[int(folder.name)].wait(20)
        return FakeServable(folder)

    models = repository(ModelConfig("a", folders("a", 1)), load=load)
    folders("a", 2)
    until(lambda: states(models) == {2: LOADING, 1: AVAILABLE})
    with models.acquire(spec()) as (_, old):
        models.reload([ModelConfig("a", folders("a"), ALL, {"stable": 1})], Call())
    gates[2].set()
    until(lambda: states(models) == {2: AVAILABLE, 1: AVAILABLE})
    assert served(models, label="stable") == 1
    assert not old.closed


def test_workers_are_never_shown_a_label_without_its_version(folders, repository, tmp_path):
    class Keyed(FakeServable):
        key = 0

    file = write_config(tmp_path / "config", folders("a", 1), {"stable": 1})
    models = repository(*read_config_file(file), load=lambda name, folder, eager: Keyed(folder), poll_seconds=0.002)
    models.follow_file(file, 0.002)
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            seen.append(view_of(models.models["a"]))

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(2, 30):
        write_config(file, folders("a"), {"stable": number, f"next{number}": number})
        until(lambda number=number: f"next{number}" in models.models["a"].versions.labels)  # the file was read
        folders("a", number)
        until(lambda number=number: models.models["a"].versions.labels["stable"] == number)
    stop.set()
    looking.join()
    assert len({view.labels["stable"] for view in seen}) > 5
    assert [view for view in seen if view.labels["stable"] not in view.keys] == []


# ---------------------------------------------------------------- reloads


def test_a_reload_waits_for_no_model_that_a_later_one_leaves_out(folders, repository, tmp_path):
    a, lost = ModelConfig("a", folders("a", 1)), ModelConfig("lost", tmp_path / "lost")
    models, ends = repository(a), []
    waiting = threading.Thread(target=lambda: ends.append(refused(models.reload, [a, lost], Call())), daemon=True)
    waiting.start()
    until(lambda: "lost" in models.models)
    models.reload([a], Call())
    waiting.join(10)
    assert ends == [
        (
            "UNKNOWN",
            "1 model(s) did not become available: {{name: lost} due to error: Model 'lost' must stay configured "
            "until it serves. Received: a configuration without it}",
        )
    ]


def test_a_reload_waits_for_versions_of_a_model_that_comes_back_too(folders, repository):
    a, b = ModelConfig("a", folders("a", 1)), ModelConfig("b", folders("b", 1))
    models = repository(a, b)
    models.reload([b], Call())
    until(lambda: states(models) == {1: END})
    empty, call = folders("empty"), Call(deadline=time.monotonic() + 0.3)
    assert refused(models.reload, [ModelConfig("a", empty), b], call)[0] == "DEADLINE_EXCEEDED"
    assert models.models["a"].problem.startswith("`model_base_path` must hold a version folder")
    folders("empty", 5)
    until(lambda: states(models) == {5: AVAILABLE, 1: END})


def test_the_same_version_in_another_folder_is_another_one(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1)), poll_seconds=0)
    with models.acquire(spec()) as (_, old):
        models.reload([ModelConfig("a", folders("b", 1))], Call())
        with models.acquire(spec()) as (number, new):
            assert (number, new.folder.parent.name) == (1, "b")
        assert (states(models), old.closed) == ({1: AVAILABLE}, False)
    until(lambda: old.closed)
    assert states(models) == {1: AVAILABLE}


def test_the_same_version_in_another_folder_that_can_not_be_loaded(folders, repository):
    a = ModelConfig("a", folders("a", 1))
    models = repository(a, poll_seconds=0)
    models.reload([ModelConfig("a", folders("b", 1, broken=True))], Call())
    with models.acquire(spec()) as (_, still):
        assert still.folder.parent.name == "a"
        status = models.status(spec())[0]
        assert (status.state, status.status.error_message) == (AVAILABLE, "broken on purpose")
        models.reload([a], Call())
        until(lambda: models.status(spec())[0].status.error_message == "")
        assert not still.closed
    folders("b", 2)
    models.reload([ModelConfig("a", folders("b"))], Call())
    until(lambda: states(models) == {2: AVAILABLE, 1: END})


def test_a_file_that_is_followed_undoes_no_reload_until_it_changes(folders, repository, tmp_path):
    file = write_config(tmp_path / "config", folders("a", 1), {})
    models = repository(*read_config_file(file))
    models.follow_file(file, 0.02)
    models.reload([ModelConfig("b", folders("b", 1))], Call())
    time.sleep(0.3)
    assert served(models, "b") == 1
    assert refused(models.acquire, spec("a"))[0] == "NOT_FOUND"
    write_config(file, folders("c", 1), {}, name="c")
    until(lambda: states(models, "c") == {1: AVAILABLE})


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize("change", ["a newer version", "no folder"])
def test_a_failed_version_that_can_not_be_tried_again_keeps_no_core_busy(folders, repository, monkeypatch, change):
    looks, find = [], _model.find_versions
    monkeypatch.setattr(_model, "find_versions", lambda path: looks.append(path) or find(path))
    folders("a", 1)
    models = repository(ModelConfig("a", folders("a", 2, broken=True)), poll_seconds=0.1, retry_seconds=0.05)
    if change == "no folder":
        folders("a").rename(folders("a").with_name("away"))
    else:
        folders("a", 3)
        until(lambda: states(models) == {3: AVAILABLE, 2: END, 1: END})
    time.sleep(0.5)  # its next try would have come by now
    looks.clear()
    time.sleep(1)
    assert 1 <= len(looks) <= 12


def test_files_that_vanish_while_they_are_looked_at(tmp_path):
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            for name in "abcdef":
                (tmp_path / "1" / name / name).mkdir(parents=True)
            for name in "abcdef":
                (tmp_path / "1" / name / name).rmdir()
                (tmp_path / "1" / name).rmdir()

    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "stays").write_text("here")
    churning = threading.Thread(target=churn)
    churning.start()
    try:
        for _ in range(2000):
            assert str(tmp_path / "1" / "stays") in {path for path, *_ in files_of(tmp_path / "1")}
    finally:
        stop.set()
        churning.join()


def test_the_same_version_twice_on_its_way_out(folders, repository, tmp_path):
    """It is gone when the last request of both is done."""
    models = repository(ModelConfig("a", folders("a", 1, 2)))
    with models.acquire(spec()) as (_, first):
        (tmp_path / "a" / "2").rename(tmp_path / "away")
        until(lambda: states(models) == {2: UNLOADING, 1: AVAILABLE})
        (tmp_path / "away").rename(tmp_path / "a" / "2")
        until(lambda: states(models) == {2: AVAILABLE, 1: END})
        second = models.acquire(spec())
        second.__enter__()
        (tmp_path / "a" / "2").rename(tmp_path / "away")
        until(lambda: states(models) == {2: UNLOADING, 1: AVAILABLE})
    until(lambda: first.closed)
    time.sleep(0.1)
    assert states(models) == {2: UNLOADING, 1: AVAILABLE}
    second.__exit__(None, None, None)
    until(lambda: states(models) == {2: END, 1: AVAILABLE})


# ---------------------------------------------------------------- workers


def test_a_worker_keeps_the_newest_view():
    """Its commands run in threads, so that an older one may come last."""
    follower = Follower(LoadPolicy(lambda name, folder, eager: FakeServable(folder)), lambda configs, call: None)
    follower.show(2, {"a": ModelView(labels={"stable": 2})})
    follower.show(1, {})
    assert list(follower.statuses()) == ["a"]
    follower.show(3, {})
    assert list(follower.statuses()) == []


# ---------------------------------------------------------------- the process's end


def test_the_process_waits_until_a_version_is_freed(folders, repository):
    """A daemon thread that is in TensorFlow's or LiteRT's code when Python ends aborts the process."""
    freed_by = []

    class Servable(FakeServable):
        def close(self):
            freed_by.append(threading.current_thread())

    models = repository(ModelConfig("a", folders("a", 1)), load=lambda name, folder, eager: Servable(folder))
    folders("a", 2)
    until(lambda: len(freed_by) == 1)  # the model's own thread, a daemon, gave the version up
    stopping = threading.Thread(target=models.close, daemon=True)  # as the server's main program stops
    stopping.start()
    stopping.join(20)
    assert len(freed_by) == 2
    assert not any(thread.daemon for thread in freed_by)
