"""The settings are written once: keywords, documentation, flags, `--help` and checks derive from their fields."""

import dataclasses
import inspect
import re

import pytest
from keraslight_serving.server import ModelServer, _flags
from keraslight_serving.server._flags import parse_flags
from keraslight_serving.server.settings import OURS, TENSORFLOW_SERVING, ProcessSettings, Settings, flags

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
PROCESS_FIELDS = {field.name: field for field in dataclasses.fields(ProcessSettings)}
FLAGS = {flag.name: flag for group in (TENSORFLOW_SERVING, OURS) for flag in flags(group)}


def setting(name):
    return (FIELDS | PROCESS_FIELDS)[name].metadata["setting"]


LIMITED = [name for name in FIELDS | PROCESS_FIELDS if setting(name).minimum is not None]
CHOOSING = [name for name in FIELDS if setting(name).choices]


def build(name, value):
    """Sets one setting on whichever class has it."""
    if name in PROCESS_FIELDS:
        return ProcessSettings(**{name: value})
    return ModelServer("tiny", ".", **{name: value})


@pytest.fixture
def help_text(capsys):
    """`--help`, with each run of blanks and line breaks as one blank."""
    with pytest.raises(SystemExit) as caught:
        parse_flags(["--help"])
    assert caught.value.code == 0
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_the_keywords_of_the_server_are_the_fields_in_their_order_and_with_their_defaults():
    parameters = inspect.signature(ModelServer).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        name: field.default for name, field in FIELDS.items()
    }
    assert list(parameters) == list(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_the_documentation_of_the_server_describes_each_field(name):
    text = re.sub(r"\s+", " ", ModelServer.__init__.__doc__)
    assert f" {name}: {setting(name).help} {setting(name).details}".rstrip() in text


def test_the_server_gets_what_its_keywords_say():
    given = {name: field.default for name, field in FIELDS.items()} | {"model_name": "tiny", "model_base_path": "."}
    assert vars(ModelServer(**given)._settings) == given


def test_each_field_with_a_group_is_a_flag():
    assert FLAGS.keys() == {name for name in FIELDS | PROCESS_FIELDS if setting(name).group is not None}


def test_only_what_workers_need_has_no_flag():
    assert FIELDS.keys() - FLAGS.keys() == {"metrics_directory", "make_repository", "shared_port"}


def test_the_defaults_of_flags_differ_only_where_a_process_differs_from_an_object():
    """An object in a test must not take the port of a running server, nor the log of its program."""
    different = {name for name, flag in FLAGS.items() if flag.default != (FIELDS | PROCESS_FIELDS)[name].default}
    assert different == {"port", "rest_api_port", "log_format", "log_level", "num_threads", "num_interpreters"}


@pytest.mark.parametrize("name", FLAGS)
def test_help_describes_each_flag(name, help_text):
    assert f"--{name} " in help_text
    assert setting(name).help.removesuffix(".") in help_text


def test_help_says_what_happens_to_other_flags(help_text):
    assert "--mixed_precision" not in help_text
    assert _flags.EPILOG in help_text


@pytest.mark.parametrize("name", LIMITED)
def test_a_number_below_the_minimum_is_rejected(name):
    low, high = setting(name).minimum, setting(name).maximum
    rule = f"at least {low}" if high is None else f"between {low} and {high}"
    with pytest.raises(ValueError, match=f"`{name}` must be {rule}. Received: {low - 1}"):
        build(name, low - 1)
    build(name, low)


@pytest.mark.parametrize("name", [name for name in LIMITED if setting(name).maximum is not None])
def test_a_number_above_the_maximum_is_rejected(name):
    high = setting(name).maximum
    with pytest.raises(ValueError, match=f"`{name}` must be between 0 and {high}. Received: {high + 1}"):
        build(name, high + 1)
    build(name, high)


@pytest.mark.parametrize("name", CHOOSING)
def test_an_unknown_choice_is_rejected(name):
    choices = setting(name).choices
    with pytest.raises(ValueError, match=f"`{name}` must be one of {', '.join(choices)}. Received: 'other'"):
        Settings("tiny", ".", **{name: "other"})
    assert [getattr(Settings("tiny", ".", **{name: choice}), name) for choice in choices] == list(choices)


@pytest.mark.parametrize("given", [{}, {"model_base_path": ".", "model_config_file": "models.config"}])
def test_either_a_model_or_a_config_file_is_given(given):
    with pytest.raises(ValueError, match="Either `model_base_path` or `model_config_file` must be given. Received: "):
        ModelServer(**given)


def test_a_model_has_a_name():
    with pytest.raises(ValueError, match="`model_name` must not be empty"):
        ModelServer("", ".")


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'prot'"):
        ModelServer("tiny", ".", prot=8500)
