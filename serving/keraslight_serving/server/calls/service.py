"""The calls of PredictionService and ModelService on arrays: what is checked, in which order, and what is computed.

Requests of both protocols are a ModelSpec and arrays when they get here: from `messages.py` (gRPC) or `rest/`.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import grpc
from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import StatusError, invalid
from keraslight_serving.server.base.spec import ModelSpec
from keraslight_serving.server.calls import examples as on_examples
from keraslight_serving.server.calls.examples import Classes, Examples, Task
from keraslight_serving.server.calls.observe import Observer
from keraslight_serving.server.calls.slots import Slots
from keraslight_serving.server.models.protocols import ServedModels
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature, UnknownSignature, choose_outputs
from keraslight_serving.wire import methods

_KINDS = {on_examples.CLASSIFY: "classification", on_examples.REGRESS: "regression"}
_METHODS = ("tensorflow/serving/predict", *_KINDS)

# Converts a request's inputs to arrays, or raises StatusError. Called at most once, while the signature's version is
# held; `check_arrays` checks dtypes and shapes afterwards. A function, since inputs can only be read for a signature.
ReadInputs = Callable[[Signature], Arrays]


class Service:
    """Answers the requests of both protocols.

    A request acquires its version once, so its signature and its answer belong to the same version. All methods may be
    called from many threads, inside `observer.request(...)`. They return the ModelSpec that answered along with the
    answer, and raise StatusError for a request that fails. Those that run signatures are called inside `slot`.

    `check_methods`: whether to run, for each call, only signatures whose `method_name` is made for it. `slots` requests
    of each model and engine are worked on at once, and `waiting` requests may wait for that; see `Slots`.
    """

    def __init__(
        self,
        models: ServedModels,
        *,
        observer: Observer | None = None,
        check_methods: bool = False,
        slots: int = 64,
        waiting: int = 512,
    ) -> None:
        self.models, self.observer, self._check_methods = models, observer or Observer(), check_methods
        self._slots = Slots(slots, waiting)
        self._closing = False

    def close(self) -> None:
        """Rejects new requests with UNAVAILABLE, upon which clients try another server."""
        self._closing = True

    @contextlib.contextmanager
    def slot(self, spec: ModelSpec, call: Call) -> Iterator[None]:
        """Waits until a request may be worked on, inside the `with`: before its message is converted.

        Requests that run in TensorFlow don't hold up those of the same model that run in LiteRT, and no model holds up
        another. A request whose model isn't there gets that error later, when its turn to be checked comes.
        """
        self._check_open()
        runs_in = self.models.runs_in(spec)
        with self._slots.take((spec.name, runs_in) if runs_in else None, call):
            call.check()
            yield

    def predict(
        self, spec: ModelSpec, read_inputs: ReadInputs, call: Call, output_filter: Iterable[str] = ()
    ) -> tuple[ModelSpec, Outputs]:
        """Runs a signature for the outputs of these aliases, or for all outputs if there are none."""
        with self._acquire(spec, call) as (version, servable):
            name = spec.signature or methods.DEFAULT_SIGNATURE
            signature = servable.signatures.get(name)
            if signature is None:
                raise UnknownSignature(name)
            if self._check_methods and signature.definition.method_name not in _METHODS:
                raise StatusError(
                    grpc.StatusCode.INTERNAL,
                    f"Expected prediction signature method_name to be one of {{{', '.join(_METHODS)}}}. "
                    f"Was: {signature.definition.method_name}",
                )
            inputs = read_inputs(signature)
            outputs = choose_outputs(signature, output_filter)
            servable.check(name, inputs)
            return ModelSpec(spec.name, version, signature=name), servable.run(name, inputs, outputs, call)

    def classify(self, spec: ModelSpec, examples: Examples, call: Call) -> tuple[ModelSpec, Classes]:
        """Runs a signature `inputs` (serialized tf.Examples) -> `classes`, `scores` or both."""
        with self._acquire(spec, call) as (version, servable):
            name = spec.signature or methods.DEFAULT_SIGNATURE
            self._check_method(servable, name, on_examples.CLASSIFY)
            return ModelSpec(spec.name, version, signature=name), on_examples.classify(servable, name, examples, call)

    def regress(self, spec: ModelSpec, examples: Examples, call: Call) -> tuple[ModelSpec, NDArray[Any]]:
        """Runs a signature `inputs` (serialized tf.Examples) -> `outputs`, one float32 per example."""
        with self._acquire(spec, call) as (version, servable):
            name = spec.signature or methods.DEFAULT_SIGNATURE
            self._check_method(servable, name, on_examples.REGRESS)
            return ModelSpec(spec.name, version, signature=name), on_examples.regress(servable, name, examples, call)

    def multi_inference(
        self, tasks: Sequence[Task], examples: Examples, call: Call
    ) -> list[tuple[ModelSpec, Classes | NDArray[Any]]]:
        """Classifies and regresses the same tf.Examples with several signatures of one version.

        Each signature runs on its own. TensorFlow Serving runs all at once, which only works for signatures that share
        their input tensor; those saved by TensorFlow 2 never do.
        """
        first = tasks[0].spec if tasks else ModelSpec()
        with self._acquire(first, call) as (version, servable):
            by_signature = on_examples.check_tasks(tasks, servable)
            for name, method in by_signature.items():
                self._check_method(servable, name, method)
            found: list[tuple[ModelSpec, Classes | NDArray[Any]]] = []
            for name, method in by_signature.items():
                run = on_examples.classify if method == on_examples.CLASSIFY else on_examples.regress
                found.append((ModelSpec(first.name, version, signature=name), run(servable, name, examples, call)))
        return found

    def metadata(self, spec: ModelSpec, call: Call) -> tuple[ModelSpec, Mapping[str, Signature]]:
        """Returns all signatures of a version."""
        with self._acquire(spec, call) as (version, servable):
            return ModelSpec(spec.name, version), servable.signatures

    @contextlib.contextmanager
    def _acquire(self, spec: ModelSpec, call: Call) -> Iterator[tuple[int, Servable]]:
        """As `ServedModels.acquire`, unless the call is over or the server stops."""
        self._check_open()
        call.check()
        with self.models.acquire(spec) as found:
            yield found

    def _check_open(self) -> None:
        if self._closing:
            raise StatusError(grpc.StatusCode.UNAVAILABLE, "The server is shutting down")

    def _check_method(self, servable: Servable, name: str, expected: str) -> None:
        found = servable.signatures.get(name)
        if self._check_methods and found is not None and found.definition.method_name != expected:
            raise invalid(
                f"Expected {_KINDS[expected]} signature method_name to be {expected}. "
                f"Was: {found.definition.method_name}"
            )
