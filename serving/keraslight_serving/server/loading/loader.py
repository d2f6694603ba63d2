"""How a version folder becomes a servable that is ready for requests."""

import logging
import os
from pathlib import Path

from keraslight_serving.server.base.cpus import available_cpus, share_cpus
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.loading.warmup import warm_up
from keraslight_serving.server.running.batch_queues import BatchScheduler
from keraslight_serving.server.running.batching import Batcher, Execution
from keraslight_serving.server.running.batching_parameters import MODEL_FILE, default_parameters, read_parameters
from keraslight_serving.server.running.servable import ENGINES, Servable
from keraslight_serving.server.telemetry.metrics import Metrics

logger = logging.getLogger("keraslight_serving.server")

# So many requests may wait for their batch, each in a thread; beyond that they wait in front of the server.
_MOST_CALLERS = 256


class Loader:
    """Loads, with the same settings, the versions of all models of a server; they share the threads of the batches.

    Args: as those of `ModelServer`; `metrics` counts batches and warmups.

    Raises:
        ValueError: a number is out of range, or `batching_parameters_file` can't be used.
    """

    def __init__(
        self,
        *,
        num_threads: int | None = None,
        num_interpreters: int | None = None,
        load_saved_model: bool = False,
        engine: str = "auto",
        enable_batching: bool = False,
        batching_parameters_file: str | os.PathLike | None = None,
        enable_per_model_batching_parameters: bool = False,
        enable_model_warmup: bool = True,
        num_request_iterations_for_warmup: int = 1,
        metrics: Metrics | None = None,
    ) -> None:
        for name, value in (
            ("num_threads", num_threads),
            ("num_interpreters", num_interpreters),
            ("num_request_iterations_for_warmup", num_request_iterations_for_warmup),
        ):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {value}")
        if engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}. Received: {engine!r}")
        if batching_parameters_file and not enable_batching:
            raise ValueError(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        cpus = available_cpus()
        self._threads, self._interpreters = share_cpus(cpus, num_threads, num_interpreters)
        self._load_saved_model = load_saved_model
        self._engine = engine
        self._per_model = enable_per_model_batching_parameters
        self._iterations = num_request_iterations_for_warmup if enable_model_warmup else 0
        self._metrics = metrics or Metrics()
        # More threads than run at once: those that wait for an interpreter must not keep GetModelStatus waiting, too.
        self.callers = 4 * max(cpus, self._interpreters) + 4
        self._scheduler = None
        if enable_batching:
            read = read_parameters(batching_parameters_file) if batching_parameters_file else default_parameters()
            self._parameters = read
            self._scheduler = BatchScheduler(read.num_batch_threads)
            self.callers = max(self.callers, min(2 * read.max_batch_size, _MOST_CALLERS))

    def __call__(self, model: str, folder: Path, eager: bool) -> Servable:
        """Loads a version and replays its warmup requests.

        Args:
            model: its name, for the metrics.
            folder: of the version.
            eager: load the SavedModel, too, wherever there is one to run.

        Raises:
            StatusError: the version can't be served.
        """
        servable = Servable.load(
            folder,
            threads=self._threads,
            interpreters=self._interpreters,
            eager=eager or self._load_saved_model,
            engine=self._engine,
            batcher=self._batcher(model, folder),
        )
        try:
            warm_up(servable, folder, self._iterations, self._metrics)
        except BaseException:
            servable.close()
            raise
        return servable

    def close(self) -> None:
        """Ends the threads of the batches. No request may be running."""
        if self._scheduler is not None:
            self._scheduler.close()

    def _batcher(self, model: str, folder: Path) -> Batcher | None:
        if self._scheduler is None:
            return None
        parameters = self._parameters
        if self._per_model:
            file = folder / MODEL_FILE
            if not file.is_file():
                return None
            try:
                parameters = read_parameters(file)
            except ValueError as error:
                raise invalid(str(error)) from error

        def observe(batch: Execution) -> None:
            padded_to = sum(batch.rows) + batch.padding
            pool = parameters.thread_pool_name
            self._metrics.batch(model, batch.engine, batch.rows, batch.queue_seconds, padded_to, pool)

        return Batcher(self._scheduler, parameters, observe)
