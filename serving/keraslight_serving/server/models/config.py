"""Which models a server serves: reads and checks a model config file or the message of a reload."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from keraslight_serving.server.base.errors import StartError, StatusError, invalid
from keraslight_serving.server.base.text_proto import read_text_proto
from keraslight_serving.server.telemetry.request_log import check_logging
from keraslight_serving.wire import serving_pb2 as pb

MOST_MODELS = 1000  # per server: each is followed in a thread of its own


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions on disk are wanted."""

    versions: frozenset[int] | None = None  # None for any
    most: int | None = 1  # maximum number, the highest that load; None for no limit


@dataclass(frozen=True)
class ModelConfig:
    """A model to serve."""

    name: str
    base_path: Path  # contains the version folders
    policy: VersionPolicy = VersionPolicy()  # the latest version
    labels: Mapping[str, int] = field(default_factory=dict)  # names of versions, such as `stable`
    logging: pb.LoggingConfig | None = None  # None if requests are not logged


def read_config_file(path: Path) -> list[ModelConfig]:
    """Reads a `ModelServerConfig` in protobuf's text format; an empty file names no models.

    Raises:
        StartError: The file can't be read or parsed, or a model is invalid.
    """
    config = read_text_proto("model_config_file", path, pb.ModelServerConfig())
    if config.WhichOneof("config") == "custom_model_config":
        raise StartError(f"`model_config_file` must hold a model_config_list. Received: {path}, a custom_model_config")
    try:
        return model_configs(config.model_config_list)
    except StatusError as error:
        raise StartError(f"Error: {error.code.name}: {error.text}, in '{path}'") from error


def model_configs(configs: pb.ModelConfigList) -> list[ModelConfig]:
    """The models of a config list.

    Raises:
        StatusError: INVALID_ARGUMENT or NOT_FOUND, with TensorFlow Serving's texts.
    """
    if len(configs.config) > MOST_MODELS:
        raise invalid(f"A config list must name at most {MOST_MODELS} models; got {len(configs.config)}")
    found: dict[str, ModelConfig] = {}
    for config in configs.config:
        name = config.name
        if not name:
            raise invalid("Expected every model of the config list to have a name; got an empty one")
        if name in found:
            raise invalid(f"Illegal to list model {name} multiple times in config list")
        if "://" in config.base_path:
            raise invalid(f"Expected model {name} to be in a local folder; got base_path()={config.base_path}")
        if not Path(config.base_path).is_absolute():
            raise invalid(f"Expected model {name} to have an absolute path or URI; got base_path()={config.base_path}")
        if config.model_platform not in ("", "tensorflow"):
            raise invalid(f"Model {name} requests unsupported platform {config.model_platform}")
        if not config.model_platform and config.model_type != pb.TENSORFLOW:
            raise invalid(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                f"ModelServerConfig::model_platform, model name is {name}"
            )
        logging = config.logging_config if config.HasField("logging_config") else None
        if logging is not None:
            check_logging(name, logging)
        policy, labels = _policy(config.model_version_policy), dict(config.version_labels)
        found[name] = ModelConfig(name, Path(config.base_path), policy, labels, logging)
    return list(found.values())


def _policy(policy: pb.ServableVersionPolicy) -> VersionPolicy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(most=None)
    if choice == "specific":
        return VersionPolicy(frozenset(policy.specific.versions), most=None)
    return VersionPolicy(most=policy.latest.num_versions or 1)
