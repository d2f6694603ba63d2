"""One version of a model: its signatures, and which engine runs each."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.errors import invalid, not_found
from keraslight_serving.server.running.batching import Batcher
from keraslight_serving.server.running.engines.litert import LiteRTEngine
from keraslight_serving.server.running.engines.saved_model import SavedModelEngine
from keraslight_serving.server.running.pipelines import read_pipelines
from keraslight_serving.server.running.signatures import check_arrays, declared_inputs
from keraslight_serving.wire import serving_pb2 as pb

Engine = LiteRTEngine | SavedModelEngine
Arrays = Mapping[str, np.ndarray]
Answers = dict[str, np.ndarray]

ENGINES = ("auto", "litert", "tensorflow")


class Servable:
    """A loaded version folder.

    Signatures that its `model.tflite` has run in LiteRT, and so does the network of those that the folder describes as
    pipelines (`_pipelines.py`): TensorFlow only decodes. All others run in the SavedModel, which needs TensorFlow and
    is loaded at the first request for one of them. A folder without `model.tflite` has its SavedModel loaded here.

    What an image file claims to be is for the graph to check before it decodes: keraslight's exports refuse more than
    their `max_pixels`; from the outside there is no telling which string of other people's graphs is a picture.

    Args:
        folder: `<base path>/<version>`, with `saved_model.pb`, `model.tflite` or both.
        threads: CPU threads of a LiteRT interpreter.
        interpreters: LiteRT interpreters, that is requests that run at once.
        eager: load the SavedModel here in any case where there is one to run.
        engine: `auto`, as above; `litert`: only what runs without TensorFlow is served; `tensorflow`: everything runs
            in the SavedModel.
        batcher: joins requests to batches, but for the decoding in front of a network: so a file that can't be decoded
            never spoils a batch. None: each request runs alone.

    Raises:
        StatusError: the folder can't be served.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        interpreters: int,
        eager: bool,
        engine: str = "auto",
        batcher: Batcher | None = None,
    ) -> None:
        lite, saved = folder / "model.tflite", folder / "saved_model.pb"
        _check_files(folder, lite.is_file(), saved.is_file(), engine)
        self._batcher = batcher
        self.signatures = _saved_signatures(saved) if saved.is_file() else {}
        self._litert = None
        self._pipelines = {}
        if lite.is_file() and engine != "tensorflow":
            try:
                # Beside a SavedModel, which declares them, none are made up from the names of tensors.
                self._litert = LiteRTEngine(
                    lite, threads=threads, interpreters=interpreters, undeclared=not saved.is_file()
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise invalid(f"LiteRT can't load {lite}: {error}") from error
            self._pipelines = read_pipelines(folder, self.signatures, self._litert.signatures)
        self._saved_model = None
        if engine == "litert":
            self._pipelines = {name: p for name, p in self._pipelines.items() if p.decode is None}
            self.signatures = {name: self.signatures[name] for name in self._pipelines}
        elif saved.is_file():
            self._saved_model = SavedModelEngine(folder, dict(self.signatures))
        if self._litert:
            # What the file declares is what it takes: a quantized one may want int8 where the SavedModel has float.
            self.signatures |= self._litert.signatures
        self._declared = {name: declared_inputs(signature) for name, signature in self.signatures.items()}
        if self._saved_model and (eager or not self._litert):
            self._saved_model.load()

    @property
    def saved_model_loaded(self) -> bool:
        return self._saved_model is not None and self._saved_model.loaded

    def needs_tensorflow(self, signature: str) -> bool:
        """Whether a request for this signature, which exists, runs something in the SavedModel."""
        if signature in self._pipelines:
            return self._pipelines[signature].decode is not None
        return not self._in_litert(signature)

    def check(self, signature: str, inputs: Arrays) -> None:
        """Raises INVALID_ARGUMENT for dtypes and shapes that the signature can't take."""
        check_arrays(self._declared[signature], inputs, exact_rank=not self.needs_tensorflow(signature))

    def run(self, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Answers:
        """Runs a signature on inputs that `check` has passed.

        Raises:
            StatusError: the graph refuses its inputs, or the call's time is over.
        """
        call.check()
        pipeline = self._pipelines.get(signature)
        if pipeline is None:
            engine = self._litert if self._in_litert(signature) else self._saved_model
            return self._join(engine, signature, inputs, outputs, call)
        (array,) = inputs.values()
        if pipeline.decode is not None:
            decoded = self._execute(self._saved_model, pipeline.decode, inputs, [pipeline.decoded], call)
            array = decoded[pipeline.decoded]
        needed = pipeline.needed(outputs)
        answers = self._join(self._litert, pipeline.network, {pipeline.input: array}, needed, call)
        return pipeline.finish(answers, outputs)

    def close(self) -> None:
        """Frees the memory. No request may be running."""
        for engine in (self._litert, self._saved_model):
            if engine is not None:
                engine.close()

    def _join(self, engine: Engine, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Answers:
        run = self._execute if self._batcher is None else self._batcher.run
        return run(engine, signature, inputs, outputs, call)

    def _execute(self, engine: Engine, signature: str, inputs: Arrays, outputs: Sequence[str], call: Call) -> Answers:
        began = time.perf_counter()
        answers = engine.run(signature, inputs, outputs, call)
        call.on_run(engine.name, time.perf_counter() - began)
        return answers

    def _in_litert(self, signature: str) -> bool:
        return self._litert is not None and signature in self._litert.signatures


def _check_files(folder: Path, lite: bool, saved: bool, engine: str) -> None:
    """Raises NOT_FOUND where the files that the engine needs are missing."""
    if engine == "litert" and not lite:
        raise not_found(f"`engine` litert needs a file called `model.tflite`\nSpecified file path: {folder}")
    if not saved and (engine == "tensorflow" or not lite):
        raise not_found(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {folder}"
        )


def _saved_signatures(path: Path) -> dict[str, pb.SignatureDef]:
    """The signatures of the graph tagged `serve`, read without TensorFlow."""
    try:
        saved_model = pb.SavedModel.FromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise invalid(f"Can't parse {path} as binary proto: {error}") from error
    for graph in saved_model.meta_graphs:
        if list(graph.meta_info_def.tags) == ["serve"]:
            # Copies: a view would keep the whole graph in memory.
            return {name: pb.SignatureDef.FromString(s.SerializeToString()) for name, s in graph.signature_def.items()}
    raise not_found(
        "Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )
