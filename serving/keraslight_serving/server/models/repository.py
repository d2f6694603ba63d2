"""The models of a server: finding the one that a request means, and changing which ones there are."""

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic

import grpc

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StartError, StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.choice import chosen_statuses, chosen_version, not_served
from keraslight_serving.server.models.config import ModelConfig, read_config_file
from keraslight_serving.server.models.model import LoadPolicy, Model
from keraslight_serving.server.models.protocols import V
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.wire import serving_pb2 as pb

logger = logging.getLogger("keraslight_serving.server")


class Repository(Generic[V]):
    """Serves several models (`ServedModels`), each of which follows its own folder in its own thread.

    The first `configs` come from `config_file`, if any; it is read again every `config_file_poll_seconds`, unless they
    are 0. With `allow_labels_anywhere`, a reload may assign a label that is not in use to a version that isn't loaded.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        how: LoadPolicy[V],
        *,
        allow_labels_anywhere: bool = False,
        config_file: Path | None = None,
        config_file_poll_seconds: float = 0,
    ) -> None:
        self._how = how
        self._allow_labels_anywhere = allow_labels_anywhere
        self._config_file, self._config_file_poll_seconds = config_file, config_file_poll_seconds
        self._first = list(configs)
        self._models = {config.name: Model(config, how) for config in configs}  # replaced, never changed
        self._reloading = threading.Lock()
        self._stopping = threading.Event()
        self._file_thread: threading.Thread | None = None

    @property
    def models(self) -> dict[str, Model[V]]:
        """All models by name, including those that are no longer wanted."""
        return dict(self._models)

    def start(self) -> None:
        """Loads what each model wants, all models at the same time, and then follows the config file, if any.

        A model without anything to serve doesn't keep the others from being served: it is logged, and followed.

        Raises:
            StartError: There are models, and none has a version that loads.
        """
        models = list(self._models.values())
        for model in models:
            model.start()
        for model in models:
            model.wait_for_look()
        failed = [model for model in models if not model.versions.are_serving]
        if models and failed == models:
            problem = "; ".join(model.problem for model in models)
            self.close()
            raise StartError(problem)
        for model in failed:
            logger.error("%s", model.problem)
        if self._config_file is not None and self._config_file_poll_seconds > 0:
            self.follow_file(self._config_file, self._config_file_poll_seconds)

    def close(self) -> None:
        """Stops following, and unloads every version when its last request is done."""
        self._stopping.set()
        if self._file_thread is not None:
            self._file_thread.join()
        with self._reloading:
            for model in self._models.values():
                model.close()

    def acquire(self, spec: ModelSpec) -> AbstractContextManager[tuple[int, V]]:
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        model = self._models.get(spec.name)
        if model is None:
            raise not_served(spec.name, chosen_version(spec, {}, ()))
        return model.versions.acquire(spec)

    def runs_in(self, spec: ModelSpec) -> str:
        model = self._models.get(spec.name)
        servable = None if model is None else model.versions.peek(spec)
        return servable.runs_in(spec.signature) if isinstance(servable, Servable) else ""

    def status(self, spec: ModelSpec) -> list[pb.ModelVersionStatus]:
        model = self._models.get(spec.name)
        return chosen_statuses(spec, [] if model is None else model.versions.statuses)

    def statuses(self) -> dict[str, list[pb.ModelVersionStatus]]:
        return {name: model.versions.statuses for name, model in self._models.items() if model.config is not None}

    def logging(self, name: str) -> pb.LoggingConfig | None:
        model = self._models.get(name)
        config = model.config if model is not None else None
        return config.logging if config is not None else None

    def reload(self, configs: Sequence[ModelConfig], call: Call) -> None:
        """Serves these models instead, and waits until every new one has a version that serves.

        Models that are no longer named are unloaded in the background. As in TensorFlow Serving, a new model whose
        folder has no version makes this wait for as long as the caller does. Unlike there, a known model that serves
        nothing or moves to another folder is waited for until it has read that folder: what the folder contains then
        serves before this returns. A call whose caller is gone before its turn changes nothing.

        Raises:
            StatusError: FAILED_PRECONDITION, a label is assigned to a version that isn't loaded (then nothing is
                changed); UNKNOWN, a new model has no version that loads; UNAVAILABLE, the server stops;
                DEADLINE_EXCEEDED or CANCELLED.
        """
        with self._reloading:
            call.check()  # others may have come first, and a later one must not be undone
            if self._stopping.is_set():  # models added now would never be closed
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server stops")
            for config in configs:
                self._check_labels(config)
            new, moved = self._apply(configs)
            for config in configs:
                self._models[config.name].versions.assign_labels(config.labels)
        while not (all(m.settled(n) for m, n in new.items()) and all(m.has_followed(n) for m, n in moved.items())):
            call.check()
            if self._stopping.wait(0.02):
                raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server stops")
        failed = [model for model in new if not model.versions.are_serving]
        if failed:
            details = ", ".join(f"{{name: {model.name}}} due to error: {model.problem}" for model in failed)
            text = f"{len(failed)} model(s) did not become available: {{{details}}}"
            raise StatusError(grpc.StatusCode.UNKNOWN, text)

    def follow_file(self, path: Path, seconds: float) -> None:
        """Reads a model config file every so many seconds and serves what it says; each error is logged once.

        The repository began with this file: nothing changes, nor is a reload undone, before the file says otherwise.
        Labels move when their version is loaded, so that one edit can add a version and give it a label.
        """
        self._file_thread = threading.Thread(target=self._follow_file, args=(path, seconds), daemon=True)
        self._file_thread.start()

    def _follow_file(self, path: Path, seconds: float) -> None:
        trouble, last = "", self._first
        while not self._stopping.wait(seconds):
            try:
                configs = read_config_file(path)
                if configs != last:
                    with self._reloading:
                        self._apply(configs)
                    last = configs
                trouble = ""
            except Exception as error:
                if str(error) != trouble:
                    logger.error("Can't follow %s, keeping what is served: %s", path, error)
                trouble = str(error)

    def _apply(self, configs: Sequence[ModelConfig]) -> tuple[dict[Model[V], int], dict[Model[V], int]]:
        """Makes these the models.

        Returns the new models, and the known models that serve nothing or move to another folder, each with the number
        of its configuration.
        """
        new: dict[Model[V], int] = {}
        moved: dict[Model[V], int] = {}
        added: dict[str, Model[V]] = {}
        for config in configs:
            known = self._models.get(config.name)
            if known is None:
                added[config.name] = Model(config, self._how)
                new[added[config.name]] = 0
                continue
            before, serves = known.config, known.versions.are_serving
            number = known.configure(config)
            if before is None:
                new[known] = number
            elif not serves or before.base_path != config.base_path:
                moved[known] = number
        for name in self._models.keys() - {config.name for config in configs}:
            self._models[name].configure(None)
        self._models = {**self._models, **added}
        for model in added.values():
            model.start()
        return new, moved

    def _check_labels(self, config: ModelConfig) -> None:
        model = self._models.get(config.name)
        for label, number in config.labels.items():
            if model is not None and model.versions.holds(number):
                continue
            taken = model is not None and model.versions.labels.get(label, number) != number
            if taken or not self._allow_labels_anywhere:
                which = f"version {number} of model {config.name}, which is not currently available for inference"
                raise StatusError(grpc.StatusCode.FAILED_PRECONDITION, f"Request to assign label to {which}")
