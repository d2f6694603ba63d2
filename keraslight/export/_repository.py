"""The model repository: configuration files for TensorFlow Serving, version labels, pruning of old versions.

<repository>/
    models.config       models, versions and `version_labels`
    batching.config     allowed batch sizes
    monitoring.config   enables the Prometheus page
    <name>/<version>/
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from keraslight._files import write_file
from keraslight.errors import ExportError, InvalidArgumentError, MissingDependencyError
from keraslight.export._versions import list_versions, locked, remove_version

CONTAINER = "/models"
"""Path of the repository in TensorFlow Serving's container image."""

_MODELS = """\
# The models of this folder, for tensorflow_model_server --model_config_file. keraslight's exporter keeps the list, the
# labels and the labelled versions true, and leaves everything else of an entry as you write it, such as another
# base_path (which must be absolute) than the one in TensorFlow Serving's container. Comments do not last.
"""
_BATCHING = """\
# For tensorflow_model_server --enable_batching --batching_parameters_file. keraslight's exporter writes warmup requests
# for each allowed batch size. The last one must be max_batch_size.
max_batch_size { value: 32 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
allowed_batch_sizes: 16
allowed_batch_sizes: 32
"""
_MONITORING = """\
# For tensorflow_model_server --monitoring_config_file; the page is on the port of --rest_api_port.
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


def batch_sizes(path: Path) -> tuple[int, ...]:
    """The allowed batch sizes of the repository of the servable `path`, lowest first; (1,) if it lists none.

    ExportError if the last one is not `max_batch_size`: TensorFlow Serving would reject every model.
    """
    file = path.parent / "batching.config"
    text = re.sub(r"#.*", "", file.read_text(encoding="utf-8") if file.is_file() else _BATCHING)
    lists = re.findall(r"\ballowed_batch_sizes\s*:\s*(\[[\d\s,]*\]|\d+)", text)
    sizes = [int(number) for found in lists for number in re.findall(r"\d+", found)]
    largest = re.search(r"\bmax_batch_size\s*:?\s*{\s*value\s*:\s*(\d+)", text)
    if sizes and sizes[-1] != int(largest[1] if largest else 1000):  # 1000: TensorFlow Serving's default
        raise ExportError(
            f"The last of `allowed_batch_sizes` must be `max_batch_size`. Received: {sizes} in {file}, where it is "
            f"{largest[1] if largest else '1000, the default'}."
        )
    return tuple(sorted(set(sizes))) or (1,)


def check_config(path: Path) -> None:
    """Reads the repository's models.config, so that an export fails early if it is broken."""
    _read(path.parent / "models.config")


def update_config(path: Path) -> None:
    """Updates models.config to list what is in the repository of the servable `path`, and writes missing files.

    Entries with other base paths are kept. In the repository's own entries only the versions of a model with labels
    change: its labelled versions and the highest, unless the policy is to serve all.
    """
    _change(path, lambda entry: None)


def label_version(path: str | Path, label: str, version: int | None) -> None:
    """Gives a version of a servable a name that clients can request, such as `stable` or `canary`.

    The name is written to the repository's models.config. If TensorFlow Serving was started with
    `--model_config_file_poll_wait_seconds`, it applies the change while it runs. It loads the labelled versions and the
    highest; a server that starts with labels also needs `--allow_version_labels_for_unavailable_models`.

    Args:
        path: The servable's directory.
        label: The label. An existing one is moved.
        version: An existing version, or None to remove the label.

    Raises:
        InvalidArgumentError: The version or label does not exist, or the label is empty.
        ExportError: Models.config can't be read.
    """
    path = Path(path)
    versions = list_versions(path)
    if not label:
        raise InvalidArgumentError("`label` must not be empty. Received: ''.")
    if version is not None and version not in versions:
        raise InvalidArgumentError(f"`version` must be one of {versions}, those in {path}. Received: {version}.")
    known = version_labels(path)
    if version is None and label not in known:
        raise InvalidArgumentError(f"`label` must be one of {sorted(known)} to be removed. Received: {label!r}.")

    def change(entry: Any) -> None:
        if version is not None:
            entry.version_labels[label] = version
            return
        del entry.version_labels[label]
        if not entry.version_labels:  # the policy was for the labels
            entry.ClearField("model_version_policy")

    _change(path, change)


def version_labels(path: str | Path) -> dict[str, int]:
    """The version labels of a servable in the repository's models.config."""
    path = Path(path).absolute()
    entries = _read(path.parent / "models.config").model_config_list.config
    labels = (item for entry in entries if entry.name == path.name for item in sorted(entry.version_labels.items()))
    return dict(labels)


def prune_versions(path: str | Path, keep: int) -> list[int]:
    """Removes old versions of a servable.

    Args:
        path: The servable's directory.
        keep: Number of highest versions to keep, at least 1. Versions with a label are always kept.

    Returns:
        The removed versions, lowest first.

    Raises:
        InvalidArgumentError: `keep` is less than 1.
    """
    if keep < 1:
        raise InvalidArgumentError(f"`keep` must be at least 1. Received: keep={keep}.")
    path = Path(path)
    labelled = set(version_labels(path).values())
    old = [number for number in list_versions(path)[:-keep] if number not in labelled]
    for number in old:
        remove_version(path, number)
    return old


def _change(path: Path, change: Callable[[Any], None]) -> None:
    path = path.absolute()
    repository = path.parent
    with locked(repository):
        file = repository / "models.config"
        config = _read(file)
        models = config.model_config_list.config
        entries = {entry.name: entry for entry in models}
        for name in sorted(child.name for child in repository.iterdir()):
            if name not in entries and any((repository / name).glob("[0-9]*/saved_model.pb")):
                base = f"{CONTAINER}/{name}"
                entries[name] = models.add(name=name, base_path=base, model_platform="tensorflow")
        if path.name in entries:
            change(entries[path.name])
        for name, entry in entries.items():
            if versions := list_versions(repository / name):
                _keep_labels_true(entry, versions)
            elif entry.base_path == f"{CONTAINER}/{name}":  # one missing folder stops the polling of all
                models.remove(entry)
        write_file(file, _MODELS + text_format.MessageToString(config))
        for name, text in (("batching.config", _BATCHING), ("monitoring.config", _MONITORING)):
            if not (repository / name).exists():
                write_file(repository / name, text)


def _keep_labels_true(entry: Any, versions: list[int]) -> None:
    """Drops labels of missing versions, and lists the labelled ones to be loaded."""
    for label in [label for label, number in entry.version_labels.items() if number not in versions]:
        del entry.version_labels[label]
    if entry.version_labels and entry.model_version_policy.WhichOneof("policy_choice") != "all":
        entry.model_version_policy.specific.versions[:] = sorted({*entry.version_labels.values(), versions[-1]})


def _read(file: Path) -> Any:
    try:
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError as error:
        raise MissingDependencyError(
            'models.config needs tensorflow-serving-api: pip install "keraslight[export]".'
        ) from error
    config = model_server_config_pb2.ModelServerConfig()
    try:
        if file.is_file():
            text_format.Parse(file.read_text(encoding="utf-8"), config)
    except text_format.ParseError as error:
        raise ExportError(
            f"models.config must be a ModelServerConfig in text form. Received: {file}, {error}."
        ) from error
    return config
