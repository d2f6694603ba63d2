"""The seams around a repository: what it needs of a version, and what the protocols' calls need of it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.models.config import ModelConfig
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.wire import serving_pb2 as pb


class LoadedVersion(Protocol):
    """A loaded version, as a repository sees it; what it computes is of no interest here.

    Implemented by `Servable`, by the supervisor's `SharedVersion`, and by `testing.FakeServable`.
    """

    @property
    def saved_model_loaded(self) -> bool:
        """Whether its SavedModel is in use, so that the next version should load its own before it serves."""

    def close(self) -> None:
        """Frees the memory. Called once, when the last request is done."""


V = TypeVar("V", bound=LoadedVersion)


class ServedModels(Protocol):
    """The models of a server, as the calls of both protocols see them. Safe to use from any thread.

    Every method with a `spec` raises StatusError with TensorFlow Serving's code and text where there is no such model,
    version or label. Implemented by `Repository`, by the workers' `Follower`, and by `testing.FakeRepository`.
    """

    def acquire(self, spec: ModelSpec) -> AbstractContextManager[tuple[int, Servable]]:
        """The number of the version that a request means, and the version, which stays loaded inside the `with`."""

    def runs_in(self, spec: ModelSpec) -> str:
        """What would run the signature of a request now: `tensorflow` or `litert`; empty if nothing would."""

    def status(self, spec: ModelSpec) -> list[pb.ModelVersionStatus]:
        """The states of one version, or of all versions seen so far, newest first."""

    def statuses(self) -> dict[str, list[pb.ModelVersionStatus]]:
        """The same for all models that the configuration names."""

    def logging(self, name: str) -> pb.LoggingConfig | None:
        """How requests for a model are logged; None if they are not, or if there is no such model."""

    def reload(self, configs: Sequence[ModelConfig], call: Call) -> None:
        """Serves these models instead and returns then. Raises StatusError if one can't be, or the call ends before."""
