"""Several models, their configuration, policies, labels and reloads."""

import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.config import ModelConfig, VersionPolicy, model_configs, read_config_file
from keraslight_serving.server.models.versions import Versions
from keraslight_serving.server.testing import FakeServable
from keraslight_serving.wire import serving_pb2 as pb
from tensorflow_serving.apis import predict_pb2

from tests.serving.helpers import AVAILABLE, END, UNLOADING, refused, served, spec, states, until

# ---------------------------------------------------------------- the configuration


def parse(text):
    return model_configs(text_format.Parse(text, pb.ModelConfigList()))


def test_a_config_file(tmp_path):
    file = tmp_path / "models.config"
    file.write_text("""
        # as TensorFlow Serving reads it
        model_config_list {
          config { name: "a" base_path: "/models/a" model_platform: "tensorflow" }
          config {
            name: "b" base_path: "/models/b" model_type: TENSORFLOW
            model_version_policy { latest { num_versions: 3 } }
          }
          config {
            name: "c" base_path: "/models/c" model_platform: "tensorflow"
            model_version_policy { specific { versions: 3 versions: 5 } }
            version_labels { key: "stable" value: 3 } version_labels { key: "canary" value: 5 }
          }
          config { name: "d" base_path: "/d" model_platform: "tensorflow" model_version_policy { all {} } }
        }
    """)
    assert read_config_file(file) == [
        ModelConfig("a", Path("/models/a")),
        ModelConfig("b", Path("/models/b"), VersionPolicy(most=3)),
        ModelConfig("c", Path("/models/c"), VersionPolicy(frozenset({3, 5}), None), labels={"stable": 3, "canary": 5}),
        ModelConfig("d", Path("/d"), VersionPolicy(most=None)),
    ]
    assert parse(
        'config { name: "a" base_path: "/a" model_platform: "tensorflow" model_version_policy { latest {} } }'
    )[0].policy == VersionPolicy(most=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'config { name: "m" base_path: "/m" model_platform: "tensorflow" }' * 2,
            "Illegal to list model m multiple times in config list",
        ),
        (
            'config { name: "m" base_path: "m" model_platform: "tensorflow" }',
            "Expected model m to have an absolute path or URI; got base_path()=m",
        ),
        (
            'config { name: "m" model_platform: "tensorflow" }',
            "Expected model m to have an absolute path or URI; got base_path()=",
        ),
        ('config { name: "m" base_path: "/m" model_platform: "onnx" }', "Model m requests unsupported platform onnx"),
        (
            'config { name: "m" base_path: "/m" }',
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform, model name is m",
        ),
        (
            'config { name: "m" base_path: "gs://bucket/m" model_platform: "tensorflow" }',
            "Expected model m to be in a local folder; got base_path()=gs://bucket/m",
        ),
        (
            'config { base_path: "/m" model_platform: "tensorflow" }',
            "Expected every model of the config list to have a name; got an empty one",
        ),
    ],
)
def test_configurations_that_make_no_sense(text, message):
    assert refused(parse, text) == ("INVALID_ARGUMENT", message)


def test_a_config_file_that_is_missing_stops_the_start(tmp_path):
    with pytest.raises(StartError, match="`model_config_file` must be a readable text file. Received: .*models.config"):
        ModelServer(model_config_file=tmp_path / "models.config")


def test_a_config_file_that_is_no_config_stops_the_start(tmp_path):
    file = tmp_path / "models.config"
    file.write_text("model_config_list { config { nonsense: 1 } }")
    with pytest.raises(StartError) as caught:
        ModelServer(model_config_file=file)
    assert f"Error: INVALID_ARGUMENT: Invalid protobuf file: '{file}'" in str(caught.value)
    assert "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:" in str(caught.value)


def test_a_config_file_with_an_invalid_model_stops_the_start(tmp_path):
    file = tmp_path / "models.config"
    file.write_text('model_config_list { config { name: "m" base_path: "m" model_platform: "tensorflow" } }')
    with pytest.raises(StartError, match="Error: INVALID_ARGUMENT: Expected model m to have an absolute path"):
        ModelServer(model_config_file=file)


def test_an_empty_config_file_serves_no_models(tmp_path, connect):
    file = tmp_path / "models.config"
    file.touch()
    with ModelServer(model_config_file=file) as server, pytest.raises(grpc.RpcError) as caught:
        connect(server).prediction.Predict(predict_pb2.PredictRequest(model_spec={"name": "m"}), timeout=5)
    assert caught.value.details() == "Servable not found for request: Latest(m)"


# ---------------------------------------------------------------- policies


def test_the_latest_versions(folders, repository):
    base = folders("a", 1, 2, 3)
    models = repository(ModelConfig("a", base, VersionPolicy(most=2)))
    assert states(models) == {3: AVAILABLE, 2: AVAILABLE}
    assert (served(models), served(models, version=2)) == (3, 2)
    assert refused(models.acquire, spec(version=1)) == ("NOT_FOUND", "Servable not found for request: Specific(a, 1)")
    folders("a", 4)
    until(lambda: states(models) == {4: AVAILABLE, 3: AVAILABLE, 2: END})
    folders("a", 5, broken=True)
    until(lambda: states(models).get(5) == END)
    assert (served(models), served(models, version=3)) == (4, 3)


def test_all_versions(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1, 2), VersionPolicy(most=None)))
    folders("a", 3)
    until(lambda: states(models) == {3: AVAILABLE, 2: AVAILABLE, 1: AVAILABLE})
    assert served(models, version=1) == 1


def test_specific_versions(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1, 2, 3), VersionPolicy(frozenset({1, 2, 9}), None)))
    assert states(models) == {2: AVAILABLE, 1: AVAILABLE}
    assert served(models) == 2


def test_one_missing_folder_does_not_stop_the_others(folders, repository, tmp_path, caplog):
    models = repository(ModelConfig("a", folders("a", 1)), ModelConfig("lost", tmp_path / "lost"))
    assert served(models) == 1
    assert f"`model_base_path` must be an existing folder. Received: {tmp_path / 'lost'}" in caplog.text
    folders("lost", 7)
    folders("a", 2)
    until(lambda: states(models) == {2: AVAILABLE, 1: END})
    until(lambda: states(models, "lost") == {7: AVAILABLE})
    assert served(models, "lost") == 7


def test_a_start_with_nothing_to_serve_names_every_reason(folders, repository, tmp_path):
    with pytest.raises(StartError) as caught:
        repository(ModelConfig("a", folders("a", 1, broken=True)), ModelConfig("lost", tmp_path / "lost"))
    assert "Model 'a' must have a version that loads. Received: version 1: broken on purpose; " in str(caught.value)
    assert "must be an existing folder" in str(caught.value)


def test_a_slow_load_blocks_no_other_model(folders, repository):
    slow = threading.Event()

    def load(name, folder, eager):
        if folder.parent.name == "slow" and folder.name == "2":
            slow.wait(20)
        return FakeServable(folder)

    models = repository(ModelConfig("a", folders("a", 1)), ModelConfig("slow", folders("slow", 1)), load=load)
    folders("slow", 2)
    until(lambda: states(models, "slow").get(2) == pb.ModelVersionStatus.LOADING)
    folders("a", 2)
    until(lambda: states(models) == {2: AVAILABLE, 1: END})
    assert served(models, "slow") == 1
    slow.set()
    until(lambda: states(models, "slow") == {2: AVAILABLE, 1: END})


def test_a_failed_version_is_tried_again_with_growing_pauses(folders, repository):
    tries = []

    def load(name, folder, eager):
        if folder.name == "2":
            tries.append(time.monotonic())
            if len(tries) < 4:
                raise MemoryError("not now")
        return FakeServable(folder)

    models = repository(ModelConfig("a", folders("a", 1, 2)), load=load, retry_seconds=0.1, retries=3)
    assert served(models) == 1
    assert models.status(spec(version=2))[0].status.error_message == "MemoryError: not now"
    until(lambda: states(models) == {2: AVAILABLE, 1: END})
    pauses = np.diff(tries)
    assert len(pauses) == 3
    assert (pauses >= [0.1, 0.2, 0.4]).all()


def test_tries_end(folders, repository):
    tries = []

    def load(name, folder, eager):
        if folder.name == "2":
            tries.append(folder)
        return FakeServable(folder)

    folders("a", 1)
    models = repository(ModelConfig("a", folders("a", 2, broken=True)), load=load, retry_seconds=0.01, retries=2)
    until(lambda: len(tries) == 3)
    time.sleep(0.2)
    assert len(tries) == 3
    assert served(models) == 1


def test_a_request_that_never_ends_holds_up_no_later_version(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1)))
    with models.acquire(spec()) as (_, old):
        for version in (2, 3):
            folders("a", version)
            until(lambda version=version: served(models) == version)
        until(lambda: states(models) == {3: AVAILABLE, 2: END, 1: UNLOADING})
        assert not old.closed
    until(lambda: states(models)[1] == END)
    assert old.closed


def test_a_version_that_comes_back_while_it_is_still_in_use(folders, repository, tmp_path):
    models = repository(ModelConfig("a", folders("a", 1, 2)))
    with models.acquire(spec()) as (number, old):
        assert number == 2
        (tmp_path / "a" / "2").rename(tmp_path / "away")
        until(lambda: states(models) == {2: UNLOADING, 1: AVAILABLE})
        (tmp_path / "away").rename(tmp_path / "a" / "2")
        until(lambda: states(models) == {2: AVAILABLE, 1: END})
    until(lambda: old.closed)
    assert served(models) == 2
    assert states(models) == {2: AVAILABLE, 1: END}


# ---------------------------------------------------------------- labels


def test_labels(folders, repository):
    policy = VersionPolicy(frozenset({1, 2}), None)
    models = repository(ModelConfig("a", folders("a", 1, 2), policy, {"stable": 1, "canary": 2}))
    assert (served(models, label="stable"), served(models, label="canary")) == (1, 2)
    unknown = ("INVALID_ARGUMENT", "Unrecognized servable version label: beta")
    assert refused(models.acquire, spec(label="beta")) == unknown
    assert refused(models.acquire, spec("nobody", label="beta")) == unknown


def test_a_label_of_a_version_that_is_not_loaded(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1), labels={"next": 2}))
    gone = ("NOT_FOUND", "Servable not found for request: Specific(a, 2)")
    assert refused(models.acquire, spec(label="next")) == gone
    folders("a", 2)
    until(lambda: states(models) == {2: AVAILABLE, 1: END})
    assert served(models, label="next") == 2


def test_a_label_moves_once_its_version_is_loaded(folders, repository, tmp_path):
    base, gate = folders("a", 1, 2), threading.Event()

    def load(name, folder, eager):
        if folder.name == "2":
            gate.wait(20)
        return FakeServable(folder)

    def write(versions, stable):
        listed = " ".join(f"versions: {v}" for v in versions)
        text = f"""model_config_list {{ config {{
            name: "a" base_path: "{base}" model_platform: "tensorflow"
            model_version_policy {{ specific {{ {listed} }} }}
            version_labels {{ key: "stable" value: {stable} }} }} }}"""
        (tmp_path / ".config").write_text(text)
        (tmp_path / ".config").rename(tmp_path / "config")

    write([1], 1)
    models = repository(*read_config_file(tmp_path / "config"), load=load)
    models.follow_file(tmp_path / "config", 0.01)
    write([1, 2], 2)
    until(lambda: 2 in states(models))
    assert served(models, label="stable") == 1
    gate.set()
    until(lambda: served(models, label="stable") == 2)


# ---------------------------------------------------------------- reloads


def test_a_reload_replaces_the_models(folders, repository):
    a, b, c = ModelConfig("a", folders("a", 1)), ModelConfig("b", folders("b", 1)), ModelConfig("c", folders("c", 4))
    models = repository(a, b)
    models.reload([b, c], Call())
    assert (served(models, "b"), served(models, "c")) == (1, 4)
    until(lambda: states(models, "a") == {1: END})
    assert refused(models.acquire, spec()) == ("NOT_FOUND", "Servable not found for request: Latest(a)")
    models.reload([a], Call())
    assert served(models) == 1
    until(lambda: states(models, "b") == {1: END})


def test_a_model_that_left_the_configuration_keeps_no_thread(folders, repository):
    a, b = ModelConfig("a", folders("a", 1)), ModelConfig("b", folders("b", 1))
    models = repository(a, b)

    def followed():
        return sorted(t.name for t in threading.enumerate() if t.name in ("model a", "model b"))

    assert followed() == ["model a", "model b"]
    with models.acquire(spec()) as (_, old):
        models.reload([b], Call())
        until(lambda: followed() == ["model b"])
        assert (states(models), old.closed) == ({1: UNLOADING}, False)
    until(lambda: states(models) == {1: END})
    assert old.closed
    models.reload([b], Call())  # it stays as it is
    models.reload([a, b], Call())
    assert served(models) == 1
    assert followed() == ["model a", "model b"]
    folders("a", 2)
    until(lambda: states(models) == {2: AVAILABLE, 1: END})
    models.reload([b], Call())
    until(lambda: followed() == ["model b"])
    models.close()
    assert followed() == []


def test_a_reload_takes_another_folder_and_policy_for_a_known_model(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1)), poll_seconds=0)
    folders("elsewhere", 2, 3)
    models.reload([ModelConfig("a", folders("elsewhere"), VersionPolicy(most=None))], Call())
    until(lambda: states(models) == {3: AVAILABLE, 2: AVAILABLE, 1: END})


def test_a_reload_answers_when_what_it_names_serves(folders, repository):
    good, empty, other = folders("a", 1), folders("empty"), folders("other", 1)
    models = repository(ModelConfig("a", good))
    for n in range(60):  # whatever the model's thread is at
        away = [ModelConfig("a", empty), ModelConfig("b", other)][n % 2]
        models.reload([away], Call())
        time.sleep(0.0005 * (n % 7))
        models.reload([ModelConfig("a", good)], Call())
        assert served(models) == 1


def test_a_reload_whose_caller_is_gone_changes_nothing(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1)))
    wanted = [ModelConfig("b", folders("b", 1))]
    assert refused(models.reload, wanted, Call(deadline=time.monotonic()))[0] == "DEADLINE_EXCEEDED"
    assert refused(models.reload, wanted, Call(is_active=lambda: False))[0] == "CANCELLED"
    assert served(models) == 1
    assert states(models, "b") == {}


def test_a_reload_with_a_model_that_fails(folders, repository):
    a, bad = ModelConfig("a", folders("a", 1)), ModelConfig("bad", folders("bad", 1, broken=True))
    models = repository(a)
    code, text = refused(models.reload, [a, bad], Call())
    assert code == "UNKNOWN"
    assert text == (
        "1 model(s) did not become available: {{name: bad} due to error: "
        "Model 'bad' must have a version that loads. Received: version 1: broken on purpose}"
    )
    assert served(models) == 1


def test_a_reload_waits_for_a_folder_as_long_as_its_caller_does(folders, repository, tmp_path):
    models = repository(ModelConfig("a", folders("a", 1)))
    call = Call(deadline=time.monotonic() + 0.2)
    assert refused(models.reload, [ModelConfig("lost", tmp_path / "lost")], call)[0] == "DEADLINE_EXCEEDED"
    folders("lost", 1)
    until(lambda: states(models, "lost") == {1: AVAILABLE})


def test_a_reload_checks_labels_before_it_changes_anything(folders, repository):
    base = folders("a", 1)
    models = repository(ModelConfig("a", base), ModelConfig("b", folders("b", 1)))
    wanted = [ModelConfig("a", base, labels={"canary": 2})]
    assert refused(models.reload, wanted, Call()) == (
        "FAILED_PRECONDITION",
        "Request to assign label to version 2 of model a, which is not currently available for inference",
    )
    assert served(models, "b") == 1
    models.reload([ModelConfig("a", base, labels={"stable": 1})], Call())
    assert served(models, label="stable") == 1


def test_a_reload_may_give_new_labels_to_any_version_where_that_is_allowed(folders, repository):
    base = folders("a", 1)
    models = repository(ModelConfig("a", base, labels={"stable": 1}), allow_labels_anywhere=True)
    models.reload([ModelConfig("a", base, labels={"stable": 1, "next": 2})], Call())
    assert refused(models.acquire, spec(label="next")) == (
        "NOT_FOUND",
        "Servable not found for request: Specific(a, 2)",
    )
    code, _ = refused(models.reload, [ModelConfig("a", base, labels={"stable": 2})], Call())
    assert code == "FAILED_PRECONDITION"


def test_a_reload_while_the_server_stops(folders, repository):
    models = repository(ModelConfig("a", folders("a", 1)))
    models.close()
    for name in ("a", "b"):
        assert refused(models.reload, [ModelConfig(name, folders(name))], Call()) == ("UNAVAILABLE", "The server stops")
    assert "b" not in models.models


def test_a_config_file_is_followed(folders, repository, tmp_path, caplog):
    file = tmp_path / "config"
    models = repository(ModelConfig("a", folders("a", 1)))
    folders("b", 1)
    models.follow_file(file, 0.01)
    until(lambda: "`model_config_file` must be a readable text file" in caplog.text)
    time.sleep(0.1)
    assert caplog.text.count("must be a readable text file") == 1
    file.write_text(
        f'model_config_list {{ config {{ name: "b" base_path: "{tmp_path / "b"}" model_platform: "tensorflow" }} }}'
    )
    until(lambda: states(models) == {1: END})
    until(lambda: states(models, "b") == {1: AVAILABLE})
    file.write_text("model_config_list {")
    until(lambda: "Invalid protobuf file" in caplog.text)
    assert served(models, "b") == 1


# ---------------------------------------------------------------- versions by themselves


class Closable:
    """Stands for a loaded version."""

    saved_model_loaded = False
    closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def versions():
    made = Versions("m", lambda *_: None)
    for number in (1, 3, 2):
        made.serve(number, Path("m"), Closable())
    yield made
    made.close()


def test_the_highest_of_several_loaded_versions_answers(versions):
    with versions.acquire(ModelSpec("m")) as (number, _):
        assert number == 3


def test_a_version_is_closed_after_the_last_of_its_requests(versions):
    with versions.acquire(ModelSpec("m")) as (_, servable):
        with versions.acquire(ModelSpec("m")):
            versions.retire_all_but([1, 2])
        time.sleep(0.1)
        assert not servable.closed
    until(lambda: servable.closed)


def test_a_known_label_waits_for_its_version_and_a_new_one_does_not(versions):
    versions.move_labels({"stable": 1, "gone": 2})
    versions.move_labels({"stable": 9, "canary": 9})
    assert versions.labels == {"stable": 1, "canary": 9}
    versions.move_labels({"stable": 2, "canary": 9})
    assert versions.labels == {"stable": 2, "canary": 9}
