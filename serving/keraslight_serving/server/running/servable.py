"""One version of a model: its signatures, and which engine runs each."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import invalid, not_found
from keraslight_serving.server.running.batching import Batcher
from keraslight_serving.server.running.engines import Engine
from keraslight_serving.server.running.engines.litert import LiteRTEngine
from keraslight_serving.server.running.engines.saved_model import SavedModelEngine
from keraslight_serving.server.running.pipelines import Pipeline, read_pipelines
from keraslight_serving.server.running.signatures import Arrays, Outputs, Signature, check_arrays
from keraslight_serving.wire import methods, serving_pb2 as pb

ENGINES = ("auto", "litert", "tensorflow")

# Rows that are decoded and run at a time: decoded images are much larger than the files that were sent.
PIPELINE_ROWS = 32


class Servable:
    """A loaded version, whose `pipelines` run in steps, by the engines of the signatures that they name.

    `saved_model` is the one of the engines that needs TensorFlow. `batcher` joins requests to batches, but not for the
    decoding before a network, so that a file that can't be decoded never spoils a batch; None runs each request alone.
    """

    def __init__(
        self,
        signatures: Mapping[str, Signature],
        engines: Mapping[str, Engine],
        *,
        saved_model: SavedModelEngine | None = None,
        pipelines: Mapping[str, Pipeline] | None = None,
        batcher: Batcher | None = None,
    ) -> None:
        self.signatures = signatures
        self._engines, self._saved_model = engines, saved_model
        self._pipelines, self._batcher = pipelines or {}, batcher

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        threads: int,
        interpreters: int,
        eager: bool,
        engine: str = "auto",
        batcher: Batcher | None = None,
        saved_model_runs: int = 4,
    ) -> "Servable":
        """Loads a version folder, `<base path>/<version>` with `saved_model.pb`, `model.tflite` or both.

        LiteRT runs the signatures of its `model.tflite`, and the network of those that the folder declares as
        pipelines. All others run in the SavedModel, which needs TensorFlow and is loaded by the first request for one
        of them, or here if `eager`, or if there is no `model.tflite`. `engine` may also be `litert`, to serve only what
        runs without TensorFlow, or `tensorflow`, to run everything in the SavedModel. LiteRT has `interpreters`
        (requests that run at once) with `threads` CPU threads each, and the SavedModel runs `saved_model_runs` at once.

        Whether an image file is too large to decode is for the graph to check: keraslight's exports reject more than
        their `max_pixels`. From outside there is no telling which string of a graph is a picture.
        """
        lite, saved = folder / "model.tflite", folder / "saved_model.pb"
        if engine == "litert" and not lite.is_file():
            raise not_found(f"`engine` litert needs a file called `model.tflite`\nSpecified file path: {folder}")
        if not saved.is_file() and (engine == "tensorflow" or not lite.is_file()):
            raise not_found(
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`)\nSpecified file path: {folder}"
            )
        signatures = _saved_signatures(saved) if saved.is_file() else {}
        fast: LiteRTEngine | None = None
        saved_model: SavedModelEngine | None = None
        engines: dict[str, Engine] = {}
        pipelines: dict[str, Pipeline] = {}
        if lite.is_file() and engine != "tensorflow":
            try:
                # Next to a SavedModel, which declares signatures, none are made up from the names of tensors.
                fast = LiteRTEngine(lite, threads=threads, interpreters=interpreters, undeclared=not saved.is_file())
            except (OSError, ValueError, RuntimeError) as error:
                raise invalid(f"LiteRT can't load {lite}: {error}") from error
            pipelines = read_pipelines(folder, signatures, fast.signatures)
        if engine == "litert":
            pipelines = {name: p for name, p in pipelines.items() if p.decode is None}
            signatures = {name: signatures[name] for name in pipelines}
        elif saved.is_file():
            saved_model = SavedModelEngine(folder, dict(signatures), runs=saved_model_runs)
            engines |= dict.fromkeys(signatures, saved_model)
        if fast:
            # Here the file's own declaration counts: a quantized one may want int8 where the SavedModel has float.
            signatures |= fast.signatures
            engines |= dict.fromkeys(fast.signatures, fast)
        if saved_model and (eager or not fast):
            saved_model.load()
        return cls(signatures, engines, saved_model=saved_model, pipelines=pipelines, batcher=batcher)

    @property
    def saved_model_loaded(self) -> bool:
        """Whether a SavedModel is in memory."""
        return self._saved_model is not None and self._saved_model.loaded

    def needs_tensorflow(self, signature: str) -> bool:
        """Whether a request for this signature, which exists, runs something in the SavedModel."""
        if signature in self._pipelines:
            return self._pipelines[signature].decode is not None
        return self._engines[signature] is self._saved_model

    def runs_in(self, signature: str) -> str:
        """`tensorflow` or `litert`, for the signature of a request; empty if there is no such signature."""
        name = signature or methods.DEFAULT_SIGNATURE
        if name not in self.signatures:
            return ""
        return "tensorflow" if self.needs_tensorflow(name) else "litert"

    def check(self, signature: str, inputs: Arrays) -> None:
        """Raises INVALID_ARGUMENT for dtypes, shapes and numbers of rows that the signature can't take."""
        check_arrays(self.signatures[signature], inputs, exact_rank=not self.needs_tensorflow(signature))
        if self._batcher is not None:
            self._batcher.check(inputs)

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        """Runs a signature on inputs that `check` has accepted."""
        call.check()
        pipeline = self._pipelines.get(signature)
        if pipeline is None:
            return self._join(signature, inputs, outputs, call)
        ((alias, array),) = inputs.items()
        if pipeline.decode is None:
            answers = self._join(pipeline.network, {pipeline.input: array}, pipeline.needed(outputs), call)
        else:
            parts = [self._decode_and_run(pipeline, alias, part, outputs, call) for part in _slices(array)]
            answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return pipeline.finish(answers, outputs)

    def close(self) -> None:
        """Frees the memory. No request may be running."""
        for engine in {*self._engines.values(), self._saved_model}:
            if engine is not None:
                engine.close()

    def _decode_and_run(
        self, pipeline: Pipeline, alias: str, rows: NDArray[Any], outputs: Sequence[str], call: Call
    ) -> Outputs:
        call.check()
        assert pipeline.decode is not None  # noqa: S101, for the type checker
        images = self._execute(pipeline.decode, {alias: rows}, [pipeline.decoded], call)[pipeline.decoded]
        return self._join(pipeline.network, {pipeline.input: images}, pipeline.needed(outputs), call)

    def _join(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        if self._batcher is None:
            return self._execute(signature, inputs, outputs, call)
        return self._batcher.run(self._engines[signature], signature, inputs, outputs, call)

    def _execute(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Outputs:
        engine = self._engines[signature]
        began = time.perf_counter()
        answers = engine.run(signature, inputs, outputs, call)
        call.on_run(engine.name, time.perf_counter() - began)
        return answers


def _slices(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The rows in slices of `PIPELINE_ROWS`; at least one."""
    return [array[start : start + PIPELINE_ROWS] for start in range(0, max(1, len(array)), PIPELINE_ROWS)]


def _saved_signatures(path: Path) -> dict[str, Signature]:
    """Reads the signatures of the graph tagged `serve`, without TensorFlow."""
    try:
        saved_model = pb.SavedModel.FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise invalid(f"Can't parse {path} as binary proto: {error}") from error
    for graph in saved_model.meta_graphs:
        if list(graph.meta_info_def.tags) == ["serve"]:
            # Copies: views would keep the whole graph in memory.
            return {
                name: Signature.of(pb.SignatureDef.FromString(definition.SerializeToString()))
                for name, definition in graph.signature_def.items()
            }
    raise not_found(
        "Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )
