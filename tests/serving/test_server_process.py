"""The server in a process of its own."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from keraslight_serving.client import ClassifierClient

COMMAND = [sys.executable, "-m", "keraslight_serving.server"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_ready_line_unknown_flags_and_a_clean_end(publish, stop):
    flags = ["--port=0", "--model_name=tiny", f"--model_base_path={publish(1)}", "--nodelay=true"]
    with subprocess.Popen([*COMMAND, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"listening on (127\.0\.0\.1:\d+)", line)[1]
            with ClassifierClient(address, "tiny") as client:
                answer = client.predict({"images": np.zeros((1, 8, 8, 1), np.float32)})
            assert answer["probabilities"].shape == (1, 3)
        finally:
            process.send_signal(stop)
            _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "unknown argument: --nodelay=true (ignored)" in log
    assert f"listening on {address}" in log


def test_a_start_that_fails_says_why(tmp_path):
    flags = ["--port=0", f"--model_base_path={tmp_path / 'nowhere'}"]
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 255
    text = f"Failed to start server. Error: `model_base_path` must be an existing folder. Received: {tmp_path}/nowhere"
    assert done.stdout == f"{text}\n"
    assert text in done.stderr


def test_help_teaches():
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    for words in (
        "--port=8500 --model_name=digits --model_base_path=",
        "--num_threads",
        "SIGTERM",
        "default: 127.0.0.1",
    ):
        assert words in done.stdout


LAZY = """
import sys
import numpy as np
from keraslight_serving.client import ClassifierClient
from keraslight_serving.server import ModelServer

with ModelServer("tiny", sys.argv[1]) as server, ClassifierClient(server.address, "tiny", timeout=90) as client:
    client.predict({"images": np.zeros((2, 8, 8, 1), np.float32)})
    client.metadata(), client.status()
    print("tensorflow" in sys.modules, "keras" in sys.modules, "keraslight" in sys.modules)
    client.classify(np.zeros((8, 8), np.uint8))
    print("tensorflow" in sys.modules)
"""


def test_tensorflow_is_imported_by_the_first_request_that_needs_it(publish):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", LAZY, publish(1)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.split() == ["False", "False", "False", "True"], done.stderr
    assert done.stderr == ""


WITHOUT_REST = """
import sys
from keraslight_serving.server import ModelServer

for options in ({}, {"rest_api_port": 0}):
    with ModelServer("tiny", sys.argv[1], **options):
        print("starlette" in sys.modules, "uvicorn" in sys.modules)
"""


def test_rest_is_imported_by_servers_that_have_it(publish):
    done = subprocess.run([sys.executable, "-c", WITHOUT_REST, publish(1)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "False", "True", "True"], done.stderr


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None  # as where it is not installed
import numpy as np
from keraslight_serving.client import ClassifierClient, Unsupported
from keraslight_serving.server import ModelServer

with ModelServer("tiny", sys.argv[1]) as server, ClassifierClient(server.address, "tiny") as client:
    try:
        client.classify(np.zeros((8, 8), np.uint8))
    except Unsupported as error:
        print(error)
    print(client.predict({"images": np.zeros((1, 8, 8, 1), np.float32)})["probabilities"].shape)
"""


def test_a_server_without_tensorflow_says_what_is_missing(publish):
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, publish(1)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert first.startswith(
        "This signature runs in TensorFlow, which the server does not have: pip install tensorflow."
    )
    assert second == "(1, 3)"
