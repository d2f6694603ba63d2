"""Turns a version folder into a servable that is ready for requests."""

from pathlib import Path

from keraslight_serving.server.base.cpus import available_cpus, share_cpus
from keraslight_serving.server.base.errors import invalid
from keraslight_serving.server.loading.warmup import warm_up
from keraslight_serving.server.running.batch_queues import BatchScheduler
from keraslight_serving.server.running.batching import Batcher, Execution
from keraslight_serving.server.running.batching_parameters import (
    MODEL_FILE,
    BatchingParameters,
    default_parameters,
    read_parameters,
)
from keraslight_serving.server.running.servable import Servable
from keraslight_serving.server.settings import Settings
from keraslight_serving.server.telemetry.metrics import Metrics


class Loader:
    """Loads the versions of all models of a server, with the same settings; they share the batching threads.

    The metrics count batches and warmups. `callers` is the number of requests that may be processed at once.

    Raises:
        ValueError: `batching_parameters_file` can't be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._metrics = metrics or Metrics()
        cpus = available_cpus()
        self._threads, self._interpreters = share_cpus(cpus, settings.num_threads, settings.num_interpreters)
        self._saved_model_runs = min(cpus + 2, 16)  # one waits for a file, say, while others compute
        # More threads than run at once: those that wait for an interpreter must not block GetModelStatus, too.
        self.callers = 4 * max(cpus, self._interpreters) + 4
        self._scheduler: BatchScheduler | None = None
        self._parameters = server_parameters(settings)
        if settings.enable_batching:
            self._scheduler = BatchScheduler(self._parameters.num_batch_threads)
            # At most 256 requests wait for their batch, each in a thread; others wait for a slot.
            self.callers = max(self.callers, min(2 * self._parameters.max_batch_size, 256))

    def __call__(self, model: str, folder: Path, eager: bool) -> Servable:
        """Loads a version, with its SavedModel if `eager` and there is one to run, and replays its warmup requests.

        Raises:
            StatusError: The version can't be served.
        """
        settings = self._settings
        servable = Servable.load(
            folder,
            threads=self._threads,
            interpreters=self._interpreters,
            eager=eager or settings.load_saved_model,
            engine=settings.engine,
            saved_model_runs=self._saved_model_runs,
            batcher=self._batcher(model, folder),
        )
        try:
            iterations = settings.num_request_iterations_for_warmup if settings.enable_model_warmup else 0
            warm_up(servable, folder, iterations, self._metrics)
        except BaseException:
            servable.close()
            raise
        return servable

    def close(self) -> None:
        """Ends the batching threads. No request may be running."""
        if self._scheduler is not None:
            self._scheduler.close()

    def _batcher(self, model: str, folder: Path) -> Batcher | None:
        if self._scheduler is None:
            return None
        parameters = self._parameters
        if self._settings.enable_per_model_batching_parameters:
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


def server_parameters(settings: Settings) -> BatchingParameters:
    """The batching parameters of a server. Raises ValueError if `batching_parameters_file` can't be used."""
    file = settings.batching_parameters_file
    return read_parameters(file) if file else default_parameters()
