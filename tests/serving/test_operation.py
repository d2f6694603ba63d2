"""What operators do and see: copies in place, rotated files, signals, logs, limits of containers."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import text_format
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer, StartError
from keraslight_serving.server.__main__ import main
from keraslight_serving.server.base import followed
from keraslight_serving.server.base.cpus import available_cpus
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.config import MOST_MODELS, ModelConfig, model_configs
from keraslight_serving.server.models.folders import find_versions
from keraslight_serving.server.rest import RestServer
from keraslight_serving.server.rest._app import RestApp
from keraslight_serving.server.rpc.security import Tokens
from keraslight_serving.server.settings import ProcessSettings, Settings
from keraslight_serving.server.telemetry import request_log
from keraslight_serving.server.telemetry.json_lines import as_json
from keraslight_serving.server.telemetry.logging import TextFormatter, escaped
from keraslight_serving.server.telemetry.metrics import Metrics
from keraslight_serving.server.testing import FakeServable
from keraslight_serving.server.workers.supervisor import Supervisor
from keraslight_serving.wire import serving_pb2 as pb

from keraslight.cli.serve import find_models
from tests.serving.helpers import refused, spec, states, until
from tests.serving.test_security import Authority, ask

# ---------------------------------------------------------------- versions that are copied file by file


class Listed(FakeServable):
    """Knows the files that its folder had when it was loaded; broken if it has a file `broken`."""

    def __init__(self, folder):
        super().__init__(folder)
        self.files = sorted(path.name for path in folder.rglob("*") if path.is_file())


def held(repository):
    with repository.acquire(spec()) as (number, servable):
        return number, servable.files


@pytest.fixture
def copied(tmp_path, repository):
    """A model whose version 1 has three files, with polls every 10 ms; `write(version, name)` adds a file."""
    base = tmp_path / "a"

    def write(version, name, content=b"x"):
        path = base / str(version) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    for name in ("model.tflite", "saved_model.pb", "variables/index"):
        write(1, name)
    options = {"poll_seconds": 0.01, "incomplete_seconds": 0.8}
    started = repository(ModelConfig("a", base), load=lambda name, folder, eager: Listed(folder), **options)
    return started, write


def test_the_old_version_serves_until_the_new_one_is_whole(copied):
    repository, write = copied
    for name in ("model.tflite", "saved_model.pb", "variables/index"):
        assert held(repository)[0] == 1
        write(2, name)
        time.sleep(0.1)
    until(lambda: held(repository) == (2, ["index", "model.tflite", "saved_model.pb"]), 5)


def test_a_version_without_a_file_waits_longer_than_one_with_all(tmp_path, repository):
    base = tmp_path / "a"
    for file in ("1/model.tflite", "1/saved_model.pb", "2/model.tflite"):
        (base / file).parent.mkdir(parents=True, exist_ok=True)
        (base / file).write_bytes(b"x")
    shutil.move(base / "2", tmp_path / "2")
    options = {"poll_seconds": 0.01, "settle_seconds": 0.02, "incomplete_seconds": 3600}
    started = repository(ModelConfig("a", base), load=lambda name, folder, eager: Listed(folder), **options)
    shutil.move(tmp_path / "2", base / "2")
    time.sleep(0.5)
    assert held(started)[0] == 1
    (base / "2/saved_model.pb").write_bytes(b"x")
    until(lambda: held(started)[0] == 2, 5)


@pytest.mark.parametrize("names", [["saved_model.pb", "variables/index", "model.tflite"], ["other", "files"]])
def test_a_version_that_goes_without_a_file_serves_after_a_while(copied, names):
    repository, write = copied
    for name in names[:2]:
        write(2, name)
    time.sleep(0.2)
    assert held(repository)[0] == 1
    until(lambda: held(repository)[0] == 2, 5)
    for name in names[2:]:  # it was a copy after all
        write(2, name)
    until(lambda: held(repository)[1] == sorted(Path(name).name for name in names), 5)


def test_a_loaded_version_whose_files_change_is_loaded_again(copied):
    repository, write = copied
    with repository.acquire(spec()) as (number, before):
        write(1, "warmup")
        until(lambda: "warmup" in held(repository)[1], 5)
        assert number == 1
        assert not before.closed  # it still has a request
    until(lambda: before.closed, 5)
    assert states(repository) == {1: pb.ModelVersionStatus.AVAILABLE}


def test_a_change_that_does_not_load_leaves_what_serves(copied):
    repository, write = copied
    write(1, "broken")
    time.sleep(0.3)
    assert held(repository) == (1, ["index", "model.tflite", "saved_model.pb"])
    write(1, "more")
    time.sleep(0.2)
    with repository.acquire(spec()) as (_, servable):
        (servable.folder / "broken").unlink()
    until(lambda: "more" in held(repository)[1], 5)


def test_a_version_that_changes_at_startup_is_loaded_again(tmp_path, repository, folders):
    base = folders("a", 3)
    started = repository(ModelConfig("a", base), load=lambda name, folder, eager: Listed(folder))
    assert held(started) == (3, [])
    (base / "3" / "late").touch()
    until(lambda: held(started) == (3, ["late"]), 5)


def test_a_copy_in_alphabetical_order_loses_no_signature(version_folder, tmp_path, png):
    base = tmp_path / "tiny"
    shutil.copytree(version_folder, base / "1")
    with (
        ModelServer("tiny", base, file_system_poll_wait_seconds=0.05) as server,
        ClassifierClient(server.address, "tiny", timeout=30) as client,
    ):
        client.predict({"image_bytes": [png]}, signature="encoded")
        for path in sorted(path for path in version_folder.rglob("*") if path.is_file()):
            copy = base / "2" / path.relative_to(version_folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            time.sleep(0.15)
            client.predict({"image_bytes": [png]}, signature="encoded")
        until(lambda: client.status()[0].version == 2 and client.status()[0].state == "AVAILABLE")
        client.predict({"image_bytes": [png]}, signature="encoded")


def test_an_entry_that_cannot_be_looked_at_hides_no_version(folders, monkeypatch, caplog):
    base = folders("a", 1, 2, 3)
    real = Path.is_dir

    def is_dir(path):
        if path.name == "2":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    assert sorted(find_versions(base)) == [1, 3]
    assert "leaving it out" in caplog.text
    (base / ("9" * 5000)[:200]).mkdir()
    assert sorted(find_versions(base)) == [1, 3]


def test_folders_of_others_are_skipped(tmp_path, monkeypatch, capsys):
    (tmp_path / "good" / "1").mkdir(parents=True)
    (tmp_path / "good" / "1" / "model.tflite").touch()
    (tmp_path / "lost+found").mkdir()
    real = Path.iterdir

    def iterdir(path):
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert list(find_models(tmp_path)) == ["good"]
    assert "lost+found" in capsys.readouterr().err.replace("\n", "")


@pytest.mark.parametrize("count", [MOST_MODELS + 1, 8000])
def test_a_reload_names_a_limited_number_of_models(count):
    configs = pb.ModelConfigList()
    for number in range(count):
        configs.config.add(name=f"m{number}", base_path="/m", model_platform="tensorflow")
    code, text = refused(model_configs, configs)
    assert code == "INVALID_ARGUMENT"
    assert text == f"A config list must name at most 1000 models; got {count}"
    del configs.config[MOST_MODELS:]
    assert len(model_configs(configs)) == MOST_MODELS


# ---------------------------------------------------------------- files that are replaced


def test_a_rotated_certificate_is_used(publish, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(followed, "LOOK_SECONDS", 0.0)
    old, new, file = Authority(), Authority(), tmp_path / "ssl.config"

    def write(key, chain):
        file.write_text(text_format.MessageToString(pb.SSLConfig(server_key=key, server_cert=chain)))

    def code(authority):
        credentials = grpc.ssl_channel_credentials(authority.ca)
        with grpc.secure_channel(server.address, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            return ask(channel)

    write(old.key, old.chain)
    with ModelServer("tiny", publish(1), ssl_config_file=file) as server:
        assert code(old) is grpc.StatusCode.OK
        file.write_text("nothing")
        assert code(old) is grpc.StatusCode.OK
        write(new.key, old.chain)  # which don't belong together
        assert code(old) is grpc.StatusCode.OK
        assert caplog.text.count("keeping what it said before") == 2
        write(new.key, new.chain)
        assert code(new) is grpc.StatusCode.OK
        assert code(old) is grpc.StatusCode.UNAVAILABLE


def test_rotated_tokens_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(followed, "LOOK_SECONDS", 0.0)
    file = tmp_path / "tokens"
    file.write_text("old\n")
    tokens = Tokens(file)
    assert tokens.allow("Bearer old")
    file.write_text("old\nnewer\n")
    assert tokens.allow("Bearer old")
    assert tokens.allow("Bearer newer")
    file.write_text("")  # being written
    assert tokens.allow("Bearer newer")
    file.unlink()
    assert tokens.allow("Bearer newer")
    file.write_text("newest")
    assert not tokens.allow("Bearer newer")
    assert tokens.allow("Bearer newest")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "0.0.0.0"}, "set `ssl_config_file`, too"),
        ({"host": "0.0.0.0", "rest_api_port": 0, "tls": True}, "REST port"),
        ({"host": "0.0.0.0", "tls": True}, ""),
        ({"host": "127.0.0.1", "rest_api_port": 0, "tls": True}, ""),
    ],
)
def test_tokens_without_encryption_are_warned_of(tmp_path, version_folder, caplog, options, expected):
    tokens, certificate = tmp_path / "tokens", tmp_path / "ssl.config"
    tokens.write_text("secret")
    authority = Authority()
    certificate.write_text(
        text_format.MessageToString(pb.SSLConfig(server_key=authority.key, server_cert=authority.chain))
    )
    tls = {"ssl_config_file": certificate} if options.pop("tls", False) else {}
    with ModelServer("tiny", version_folder.parent, auth_token_file=tokens, **tls, **options):
        warned = [record.getMessage() for record in caplog.records if "without encryption" in record.getMessage()]
    assert len(warned) == bool(expected)
    assert expected in "".join(warned)


def test_files_of_old_prefixes_are_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(request_log, "_IDLE_SECONDS", 0.05)
    log = request_log.RequestLog(Metrics())
    exchange = (pb.PredictRequest(), pb.PredictResponse())

    def offer(prefix):
        config = pb.LoggingConfig()
        config.log_collector_config.filename_prefix, config.sampling_config.sampling_rate = str(tmp_path / prefix), 1
        log.offer(config, "Predict", ModelSpec("m", 1), lambda: exchange)

    def open_files():
        links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
        return sum(os.path.islink(link) and os.readlink(link).startswith(str(tmp_path)) for link in links)

    for number in range(5):
        offer(f"p{number}")
    until(lambda: len(list(tmp_path.iterdir())) == 5)
    until(lambda: open_files() == 0, 5)
    offer("p0")  # again
    until(lambda: len(list(tmp_path.iterdir())) == 6)
    log.close()


# ---------------------------------------------------------------- processes


def test_a_hangup_drains(slow_base, launch):
    from tests.serving.test_drain import slow_call

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, the server would ignore it
    try:
        server = launch(slow_base, "--grace_seconds=60")
    finally:
        signal.signal(signal.SIGHUP, before)
    with grpc.insecure_channel(server.address) as channel:
        slow = slow_call(channel, 2)
        assert server.stop(signal.SIGHUP) == 0
        assert slow.result().outputs["done"].float_val


def test_every_line_of_a_json_log_is_json(version_folder, launch, png):
    server = launch(version_folder.parent, "--log_format=json", "--log_level=debug", "--unknown_flag=1", "--workers=2")
    with ClassifierClient(server.address, "tiny", timeout=60) as client:
        client.predict({"image_bytes": [png]}, signature="encoded")  # imports TensorFlow
        with pytest.raises(Exception, match="must have the signature"):
            client.predict({"x": np.zeros(1)}, signature='no\n{"such": 1}')
    assert server.stop() == 0
    lines = server.log.read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert all(isinstance(record, dict) and {"time", "level", "message"} <= record.keys() for record in found)
    assert any("unknown_flag" in record["message"] for record in found)
    assert "Stopping" in [record["message"] for record in found]


def test_the_last_words_of_a_process_that_aborts_are_json(tmp_path):
    code = (
        "import os; from keraslight_serving.server.telemetry.json_lines import redirect_stderr as r; r(); "
        "os.write(2, b'F1129 00:00:00.1 7 x.cc:1] Check failed\\nlast words without an end'); os.abort()"
    )
    with (tmp_path / "log").open("w") as log:
        assert subprocess.run([sys.executable, "-c", code], stderr=log, check=False).returncode == -signal.SIGABRT
    until(lambda: (tmp_path / "log").read_text().count("\n") == 2)
    found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(record["level"], record["message"]) for record in found] == [
        ("CRITICAL", "F1129 00:00:00.1 7 x.cc:1] Check failed"),
        ("INFO", "last words without an end"),
    ]


@pytest.mark.parametrize(
    "line", [b"", b"   \n", b'{"a": 1}\n', b"{broken\n", b"W0000 00:00 x] y\n", b"\xff\x1b[31m\n", b"[1]"]
)
def test_lines_of_libraries_become_objects(line):
    text = as_json(line)
    if not line.strip():
        assert text == ""
    elif line.startswith(b'{"'):
        assert json.loads(text) == {"a": 1}
    else:
        found = json.loads(text)
        assert found["message"] == line.decode(errors="replace").rstrip()
        assert found["level"] == ("WARNING" if line.startswith(b"W0") else "INFO")


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\v", "\x85", "\u2028", "\x1b[2J", "\x00", "\u202e"])
def test_nothing_forges_a_line_of_the_text_log(separator):
    forged = f"m{separator}2026-01-01T00:00:00.000Z INFO [1] Serving"
    record = logging.LogRecord("keraslight_serving.server", logging.INFO, "", 0, "Loading %s", (forged,), None)
    record.request = {"model": forged}
    try:
        raise ValueError(forged)
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = TextFormatter().format(record).splitlines()
    assert all(line.startswith("  ") for line in lines[1:])
    assert "".join(lines).isprintable()


def test_other_characters_are_logged_as_they_are():
    assert escaped("Grüße, 犬 😀 \\n") == "Grüße, 犬 😀 \\n"
    assert escaped("a\tb\x7f") == "a\\tb\\x7f"


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "-1", "1e300", "1e10"])
def test_a_grace_that_is_no_time_is_refused(value, capsys):
    with pytest.raises(ValueError, match="`grace_seconds` must be"):
        ProcessSettings(grace_seconds=float(value))


@pytest.mark.parametrize(
    "settings",
    [
        {"file_system_poll_wait_seconds": float("nan")},
        {"model_config_file_poll_wait_seconds": float("inf")},
        {"rest_api_timeout_in_ms": 10**30},
        {"load_retry_interval_micros": -(10**20)},
        {"max_num_load_retries": 2**31},
    ],
)
def test_numbers_have_a_size(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` must be a number below 2147483648. Received: "):
        Settings("tiny", ".", **settings)


def test_bad_numbers_end_the_process_with_their_rule(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr("keraslight_serving.server.__main__._allow_many_files", lambda: None)
    assert main([f"--model_base_path={tmp_path}", "--grace_seconds=nan"]) == 255
    assert "Failed to start server. Error: INVALID_ARGUMENT: `grace_seconds` must be" in capsys.readouterr().out


def test_workers_need_a_place_for_temporary_files(version_folder, monkeypatch):
    def fail(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", fail)
    with pytest.raises(StartError, match="such as TMPDIR. Received: .*No usable temporary directory"):
        Supervisor(2, Settings("tiny", version_folder.parent))


class Nothing:
    def answer(self, asked, body, call):
        return "{}"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
def test_all_addresses_means_both_families():
    server = RestServer(RestApp(Nothing(), timeout=5, threads=1), "[::]", 0)
    server.start()
    try:
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{server.port}/v1/models/m", timeout=10).status_code == 200
    finally:
        server.stop(0)


def test_web_pages_may_send_tokens():
    server = RestServer(RestApp(Nothing(), timeout=5, threads=1, cors=True), "127.0.0.1", 0)
    server.start()
    try:
        asked = {"Origin": "https://example.org", "Access-Control-Request-Headers": "authorization"}
        found = httpx.options(f"http://127.0.0.1:{server.port}/v1/models/m:predict", headers=asked, timeout=10)
        allowed = found.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
        assert {"authorization", "content-type"} <= set(allowed)
    finally:
        server.stop(0)


# ---------------------------------------------------------------- containers


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"sys/fs/cgroup/cpu.max": "max 100000"}, 8),
        ({"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),
        ({"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ({"sys/fs/cgroup/cpu.max": "6400000 100000"}, 8),
        ({"sys/fs/cgroup/cpu.max": "nonsense"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000"}, 8),
        (
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            4,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "50000",
            },
            2,
        ),
    ],
)
def test_the_cpus_of_a_container(tmp_path, monkeypatch, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert available_cpus(tmp_path) == expected


def test_a_process_may_open_as_many_files_as_the_system_lets_it():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource; from keraslight_serving.server.__main__ import _allow_many_files as allow; "
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]; resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)); "
        "allow(); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
