"""One version of a model: its signatures, and which engine runs each."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from keraslight_serving.server._call import Call
from keraslight_serving.server._errors import invalid, not_found
from keraslight_serving.server._signatures import check_arrays
from keraslight_serving.server.engines.litert import LiteRTEngine
from keraslight_serving.server.engines.saved_model import SavedModelEngine
from keraslight_serving.wire import serving_pb2 as pb


class Servable:
    """A loaded version folder.

    Signatures that its `model.tflite` has run in LiteRT; all others run in the SavedModel, which needs TensorFlow and
    is loaded at the first request for one of them. A folder without `model.tflite` has its SavedModel loaded here.

    Args:
        folder: `<base path>/<version>`, with `saved_model.pb`, `model.tflite` or both.
        threads: CPU threads of a LiteRT interpreter.
        interpreters: LiteRT interpreters, that is requests that run at once.
        eager: load the SavedModel here in any case.

    Raises:
        StatusError: the folder can't be served.
    """

    def __init__(self, folder: Path, *, threads: int, interpreters: int, eager: bool) -> None:
        lite, saved = folder / "model.tflite", folder / "saved_model.pb"
        if not lite.is_file() and not saved.is_file():
            raise not_found(
                "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
                f"`saved_model.pb`)\nSpecified file path: {folder}"
            )
        self.signatures = _saved_signatures(saved) if saved.is_file() else {}
        self._saved_model = SavedModelEngine(folder, dict(self.signatures)) if saved.is_file() else None
        self._litert = None
        if lite.is_file():
            try:
                self._litert = LiteRTEngine(lite, threads=threads, interpreters=interpreters)
            except (OSError, ValueError, RuntimeError) as error:
                raise invalid(f"LiteRT can't load {lite}: {error}") from error
            # What the file declares is what it takes: a quantized one may want int8 where the SavedModel has float.
            self.signatures |= self._litert.signatures
        if self._saved_model and (eager or not self._litert):
            self._saved_model.load()

    @property
    def saved_model_loaded(self) -> bool:
        return self._saved_model is not None and self._saved_model.loaded

    def check(self, signature: str, inputs: Mapping[str, np.ndarray]) -> None:
        """Raises INVALID_ARGUMENT for dtypes and shapes that the signature can't take."""
        check_arrays(self.signatures[signature], inputs, exact_rank=self._in_litert(signature))

    def run(
        self, signature: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str], call: Call
    ) -> dict[str, np.ndarray]:
        """Runs a signature on inputs that `check` has passed.

        Raises:
            StatusError: the graph refuses its inputs.
        """
        call.check()
        engine = self._litert if self._in_litert(signature) else self._saved_model
        start = time.perf_counter()
        arrays = engine.run(signature, inputs, outputs)
        call.on_run("LiteRT" if engine is self._litert else "TF1", time.perf_counter() - start)
        return arrays

    def close(self) -> None:
        """Frees the memory. No request may be running."""
        for engine in (self._litert, self._saved_model):
            if engine is not None:
                engine.close()

    def _in_litert(self, signature: str) -> bool:
        return self._litert is not None and signature in self._litert.signatures


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
