"""Versions come whole or not at all; the repository's configuration says what is there."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.config import model_server_config_pb2

from keraslight.errors import ExportError, InvalidArgumentError
from keraslight.export import (
    label_version,
    list_versions,
    prune_versions,
    read_versions,
    save_servable,
    version_labels,
)
from keraslight.export._repository import batch_sizes, check_config, update_config
from keraslight.export._versions import atomic_version


def put(path, number, overwrite=False, text="x"):
    """A version as far as these tests look into it."""
    with atomic_version(path, number, overwrite=overwrite) as folder:
        (folder / "saved_model.pb").write_text(text)
    update_config(path)
    return path / str(number)


def config(path):
    found = text_format.Parse((path.parent / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    return {entry.name: entry for entry in found.model_config_list.config}


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "savedmodels" / "photos"


def test_numbers(photos, build_net):
    def save(**arguments):
        return save_servable(build_net(), photos, labels=["a", "b", "c"], **arguments).name

    assert list_versions(photos) == []
    put(photos, 7)
    assert save() == "8"
    (photos / "notes").mkdir()
    (photos / ".9-half").mkdir()
    assert list_versions(photos) == [7, 8]
    with pytest.raises(ExportError, match="never overwritten unless `overwrite=True`. Received: .*/7, which exists"):
        save(version=7)
    assert (photos / "7/saved_model.pb").read_text() == "x"
    assert save(version=7, overwrite=True) == "7"
    assert [version.info.get("model") for version in read_versions(photos)] == ["net", "net"]


def test_a_version_is_readable_by_others_and_replaced_whole(photos):
    put(photos, 1, text="old")
    inode = os.stat(photos / "1").st_ino
    put(photos, 1, overwrite=True, text="new")
    assert os.stat(photos / "1").st_ino != inode
    assert os.stat(photos / "1").st_mode & 0o777 == 0o755
    assert (photos / "1/saved_model.pb").read_text() == "new"
    assert [child.name for child in photos.iterdir()] == ["1"]


@pytest.mark.parametrize(
    "error", [RuntimeError("no luck"), KeyboardInterrupt(), OSError(28, "No space left on device")]
)
def test_a_failed_export_leaves_nothing_behind(error, photos, build_net, monkeypatch):
    def fail(*_, **__):
        raise error

    put(photos, 1)
    monkeypatch.setattr("keraslight.export.saved_model.convert_graph", fail)
    with pytest.raises(ExportError if isinstance(error, OSError) else type(error)):
        save_servable(build_net(), photos, labels=["a", "b", "c"], version=1, overwrite=True)
    assert [child.name for child in photos.iterdir()] == ["1"]
    assert (photos / "1/saved_model.pb").read_text() == "x"


def test_what_a_killed_process_left_is_cleared_but_not_what_a_living_one_writes(photos):
    with atomic_version(photos, 1, overwrite=False) as living:
        (photos / ".writing-2-abc").mkdir()  # its process is gone: nobody holds the lock
        (photos / ".replaced-5").mkdir()  # killed between the two renames of a replacement
        (photos / ".replaced-5" / "saved_model.pb").write_text("old")
        put(photos, 3)
        assert living.is_dir()
        assert not (photos / ".writing-2-abc").exists()
        assert (photos / "5" / "saved_model.pb").read_text() == "old"
    assert list_versions(photos) == [1, 3, 5]


def test_two_exports_of_the_same_version(photos):
    def slow():
        with atomic_version(photos, 1, overwrite=False) as folder:
            (folder / "saved_model.pb").write_text("slower")
            put(photos, 1, text="faster")

    with pytest.raises(ExportError, match=r"The version .*/1 can't be written"):
        slow()
    assert (photos / "1/saved_model.pb").read_text() == "faster"


def test_the_configuration_names_what_is_there(photos):
    put(photos, 1)
    put(photos.parent / "digits", 3)
    (photos.parent / "notes" / "2024").mkdir(parents=True)
    found = config(photos)
    assert set(found) == {"digits", "photos"}
    assert found["photos"].base_path == "/models/photos"
    assert found["photos"].model_platform == "tensorflow"
    assert not found["photos"].HasField("model_version_policy")


def test_the_configuration_keeps_a_users_changes_and_entries(photos):
    put(photos, 1)
    put(photos.parent / "digits", 3)
    file = photos.parent / "models.config"
    text = file.read_text().replace('"/models/photos"', '"/data/photos"')
    other = 'config { name: "other" base_path: "s3://bucket/other" model_platform: "tensorflow" }'
    file.write_text(text.replace("model_config_list {", f"model_config_list {{ {other}"))
    for version in (photos.parent / "digits" / "3").iterdir():
        version.unlink()
    (photos.parent / "digits" / "3").rmdir()
    put(photos, 2)
    found = config(photos)
    assert set(found) == {"photos", "other"}
    assert found["photos"].base_path == "/data/photos"


def test_a_configuration_that_cannot_be_read(photos):
    put(photos, 1)
    (photos.parent / "models.config").write_text("model_config_list { nonsense }")
    with pytest.raises(ExportError, match=r"must be a ModelServerConfig in text form. Received: .*models.config, "):
        check_config(photos)


def test_labels_are_served_and_never_pruned(photos):
    for number in range(1, 6):
        put(photos, number)
    label_version(photos, "stable", 2)
    label_version(photos, "canary", 4)
    assert version_labels(photos) == {"canary": 4, "stable": 2}
    assert list(config(photos)["photos"].model_version_policy.specific.versions) == [2, 4, 5]
    put(photos, 6)
    assert list(config(photos)["photos"].model_version_policy.specific.versions) == [2, 4, 6]

    assert prune_versions(photos, keep=1) == [1, 3, 5]
    assert list_versions(photos) == [2, 4, 6]
    assert sorted(child.name for child in photos.iterdir()) == ["2", "4", "6"]


def test_labels_are_moved_and_removed(photos):
    put(photos, 2)
    put(photos, 4)
    label_version(photos, "stable", 2)
    label_version(photos, "canary", 4)
    label_version(photos, "stable", 4)
    label_version(photos, "canary", None)
    assert version_labels(photos) == {"stable": 4}
    label_version(photos, "stable", None)
    assert not config(photos)["photos"].HasField("model_version_policy")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("stable", 9), r"`version` must be one of \[2, 4, 6\], those in .*/photos. Received: 9"),
        (("stable", None), r"`label` must be one of \[\] to be removed. Received: 'stable'"),
        (("", 2), "`label` must not be empty"),
    ],
)
def test_labels_that_cannot_be_given(photos, arguments, text):
    for number in (2, 4, 6):
        put(photos, number)
    with pytest.raises(InvalidArgumentError, match=text):
        label_version(photos, *arguments)


def test_at_least_one_version_is_kept(photos):
    put(photos, 1)
    with pytest.raises(InvalidArgumentError, match="`keep` must be at least 1. Received: keep=0"):
        prune_versions(photos, keep=0)


def test_a_policy_to_serve_all_stays(photos):
    put(photos, 1)
    file = photos.parent / "models.config"
    file.write_text(file.read_text().replace('"tensorflow"', '"tensorflow"\n    model_version_policy { all {} }'))
    put(photos, 2)
    label_version(photos, "stable", 1)
    assert config(photos)["photos"].model_version_policy.WhichOneof("policy_choice") == "all"


def test_batch_sizes(photos):
    put(photos, 1)
    file = photos.parent / "batching.config"
    assert batch_sizes(photos) == (1, 2, 4, 8, 16, 32)
    file.write_text("max_batch_size { value: 6 } # allowed_batch_sizes: 9\nallowed_batch_sizes: [3, 6]\n")
    assert batch_sizes(photos) == (3, 6)
    file.write_text("max_batch_size { value: 6 }")
    assert batch_sizes(photos) == (1,)
    file.write_text("max_batch_size { value: 6 }\nallowed_batch_sizes: 4")
    with pytest.raises(ExportError, match=r"must be `max_batch_size`. Received: \[4\] in .*batching.config, .* is 6"):
        batch_sizes(photos)
    assert "/monitoring/prometheus/metrics" in (photos.parent / "monitoring.config").read_text()


def test_too_many_warmup_requests(photos, build_net):
    put(photos, 1)
    sizes = "".join(f"allowed_batch_sizes: {size}\n" for size in range(1, 252))
    (photos.parent / "batching.config").write_text("max_batch_size { value: 251 }\n" + sizes)
    with pytest.raises(InvalidArgumentError, match=r"at most 1000, .* Received: 1004, for 251 allowed batch sizes"):
        save_servable(build_net(), photos, labels=["a", "b", "c"])
    assert list_versions(photos) == [1]


EXPORTER = """
    import os, sys
    import tensorflow  # what takes long; it starts no threads before its first operation, so that forking is safe
    import keras
    from keraslight.export import save_servable

    for line in sys.stdin:  # a version for each line
        child = os.fork()
        if child == 0:
            images = keras.Input((4, 4, 1))
            x = keras.layers.Softmax()(keras.layers.Dense(2)(keras.layers.Flatten()(images)))
            print("exporting", os.getpid(), flush=True)
            save_servable(keras.Model(images, x), sys.argv[1], labels=["a", "b"], version=int(line), overwrite=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "done", flush=True)
"""


@pytest.mark.parametrize("wanted", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_export_never_leaves_an_incomplete_version(photos, wanted):
    """Every export replaces version 1 or adds version 2, in turns, and is killed at a random moment of its time."""
    rng = np.random.default_rng(0)
    command = [sys.executable, "-c", textwrap.dedent(EXPORTER), str(photos)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def export(version, seconds=None):
            process.stdin.write(f"{version}\n")
            process.stdin.flush()
            child = int(process.stdout.readline().split()[1])
            began = time.monotonic()
            if seconds is not None:
                time.sleep(seconds)
                with contextlib.suppress(ProcessLookupError):  # it was faster
                    os.kill(child, signal.SIGKILL)
            return process.stdout.readline().strip(), time.monotonic() - began

        outcome, duration = export(1)
        assert outcome == "done"
        complete = _files(photos / "1")
        kills = 0
        while kills < wanted:
            outcome, seconds = export(1 + kills % 2, rng.uniform(0, duration))
            if outcome == "killed":
                kills += 1
            else:
                duration = min(duration, seconds)
            for number in list_versions(photos):
                assert _files(photos / str(number)) == complete, kills
            shutil.rmtree(photos / "2", ignore_errors=True)
        process.stdin.close()
    assert process.returncode == 0
    assert 1 in list_versions(photos)
    put(photos, 99)  # the next export clears up
    assert all(child.name.isdecimal() for child in photos.iterdir())


def _files(folder):
    """Names of all files, with their sizes where these are the same in every export; the others are read."""
    json.loads((folder / "assets.extra" / "keraslight.json").read_text())
    assert SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs
    vary = ("saved_model.pb", "fingerprint.pb", "keraslight.json")
    return {
        str(file.relative_to(folder)): None if file.name in vary else file.stat().st_size
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.slow
def test_versions_are_written_where_directories_cant_be_locked(tmp_path):
    """As on Windows, which has no fcntl."""
    code = f"""
import sys; sys.modules["fcntl"] = None
from pathlib import Path
import keraslight.export
from keraslight.export import _versions
path = Path({str(tmp_path / "net")!r})
left = path / ".writing-7-left"
left.mkdir(parents=True)
with _versions.atomic_version(path, 1, overwrite=False) as version:
    (version / "file").write_text("first")
    (own,) = path.glob(".writing-1-*")
    with _versions.locked(path):
        _versions._clear(path)  # by another writer
    assert own.exists()
with _versions.atomic_version(path, 1, overwrite=True) as version:
    (version / "file").write_text("second")
print(sorted(p.name for p in path.iterdir() if p.name != ".lock"), (path / "1" / "file").read_text())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "['1'] second\n", done.stderr
