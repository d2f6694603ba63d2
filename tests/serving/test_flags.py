"""The command line: TensorFlow Serving's flags, in its syntax, with its errors."""

import re

import pytest
from keraslight_serving.server.__main__ import main
from keraslight_serving.server._flags import IGNORED, parse_flags
from keraslight_serving.server.settings import OURS, TENSORFLOW_SERVING, flags

BASE = "--model_base_path=somewhere"

# tensorflow_model_server --help, version 2.20.
ALL_48 = set(
    re.findall(
        r"\w+",
        """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
enable_batching allow_version_labels_for_unavailable_models batching_parameters_file
enable_per_model_batching_parameters model_config_file model_config_file_poll_wait_seconds model_name model_base_path
num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds
flush_filesystem_caches tensorflow_session_parallelism tensorflow_session_config_file tensorflow_intra_op_parallelism
tensorflow_inter_op_parallelism use_alts_credentials ssl_config_file platform_config_file
per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
num_request_iterations_for_warmup version monitoring_config_file remove_unused_fields_from_bundle_metagraph
prefer_tflite_model num_tflite_pools num_tflite_interpreters_per_pool enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler enable_grpc_healthcheck_service
enable_serialization_as_tensor_content mixed_precision skip_initialize_tpu thread_pool_factory_config_file
""",
    )
)
SERVED = {flag.name: flag.type for flag in flags(TENSORFLOW_SERVING)}
EXAMPLES = {bool: ("true", True), int: ("3", 3), float: ("0.25", 0.25), str: ("text", "text")}


@pytest.mark.parametrize(
    "name", sorted(ALL_48 - {"version", "model_name", "model_config_file", "batching_parameters_file"})
)
def test_each_flag_of_tensorflow_serving_works_or_is_ignored_with_a_reason(name, caplog):
    kind = IGNORED[name][0] if name in IGNORED else SERVED[name]
    text, value = EXAMPLES[kind]
    found = parse_flags([BASE, f"--{name}={text}"])
    if name in IGNORED:
        assert name not in found
        assert [record.message for record in caplog.records] == [f"--{name} is ignored: {IGNORED[name][1]}"]
    else:
        assert found[name] == value
        assert caplog.text == ""


def test_all_48_flags_of_tensorflow_serving_are_known():
    assert len(ALL_48) == 48
    assert SERVED.keys() | IGNORED.keys() == ALL_48
    assert not SERVED.keys() & IGNORED.keys()


def test_our_own_flags_have_other_names():
    assert not {flag.name for flag in flags(OURS)} & ALL_48


@pytest.mark.parametrize(
    ("argument", "value"),
    [("--enable_batching", True), ("--enable_batching=true", True), ("--enable_batching=false", False)],
)
def test_a_boolean_may_stand_alone(argument, value):
    assert parse_flags([BASE, argument])["enable_batching"] == value


def test_the_last_one_wins_and_what_is_empty_was_not_given():
    found = parse_flags([BASE, "--port=1", "--port=2", "--model_config_file=", "--rest_api_port=0"])
    assert found == {"model_base_path": "somewhere", "port": 2}


def test_a_value_may_follow_its_flag():
    assert parse_flags(["--model_base_path", "somewhere", "--port", "9"])["port"] == 9


def test_a_config_file_takes_the_place_of_a_single_model():
    found = parse_flags(["--model_config_file=models.config", "--model_name=m", BASE])
    assert found == {"model_config_file": "models.config"}


def test_unknown_arguments_are_named(caplog):
    found = parse_flags([BASE, "--rest_port=8501", "extra", "--zzz"])
    assert found == {"model_base_path": "somewhere"}
    assert [record.message for record in caplog.records] == [
        "unknown argument: --rest_port=8501 (ignored; did you mean --rest_api_port?)",
        "unknown argument: extra (ignored)",
        "unknown argument: --zzz (ignored)",
    ]


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("--port=x", "argument --port: invalid int value: 'x'"),
        ("--port=1.5", "argument --port: invalid int value: '1.5'"),
        ("--port", "argument --port: expected one argument"),
        ("--per_process_gpu_memory_fraction=half", "invalid float value: 'half'"),
        ("--enable_batching=yes", "argument --enable_batching: must be true or false. Received: 'yes'"),
    ],
)
def test_values_that_can_not_be_read(argument, text, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_flags([BASE, argument])
    assert caught.value.code == 255
    said = capsys.readouterr().err
    assert said.startswith("usage: ")
    assert text in said


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (["--model_base_path="], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            [BASE, "--use_alts_credentials", "--ssl_config_file=ssl.config"],
            "Either use_alts_credentials must be false or ssl_config_file must be empty.",
        ),
        (
            [BASE, "--batching_parameters_file=batching.config"],
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        ),
        ([BASE, "--port=70000"], "`port` must be between 0 and 65535. Received: 70000"),
    ],
)
def test_starts_that_are_refused(arguments, text, capsys):
    assert main(arguments) == 255
    assert capsys.readouterr().out == f"Failed to start server. Error: INVALID_ARGUMENT: {text}\n"


def test_the_version_is_shown(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_flags(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("keraslight 0.")


def test_the_version_is_not_shown_if_the_flag_is_false():
    assert "port" in parse_flags(["--version=false", "--port=1", BASE])
