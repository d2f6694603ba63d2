"""Training on several devices and in several processes, over `keras.distribution` on Keras' JAX backend.

Every process runs the same program on the same data: it computes the gradients of its rows of each batch, JAX adds them
up, and all make the same update. Weights, optimizer and metrics are replicated, and batch norms see the whole batch.
The first process alone reads and writes the run folder.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keraslight import _doors, errors
from keraslight.errors import InvalidArgumentError, KeraslightError, TrainingError
from keraslight.graph import Settling, keeping_modes

START_SECONDS = 300  # that the processes wait for each other at the start
_VARIABLES = {
    "coordinator": "KERAS_DISTRIBUTION_JOB_ADDRESSES",
    "processes": "KERAS_DISTRIBUTION_NUM_PROCESSES",
    "process": "KERAS_DISTRIBUTION_PROCESS_ID",
}
_CHUNK = 1 << 26  # bytes that are sent at once
_failed: list[bool] = []  # whether the training of this process failed


def distribute(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    seed: int | None = None,
    timeout: int = 60,
) -> keras.distribution.DataParallel:
    """Makes `train` use all GPUs of this machine, and those of other processes that run the same program.

    Needs Keras' JAX backend (`KERAS_BACKEND=jax` before Keras is imported). Call it first: before a model is built, and
    before anything else of JAX. Every process must then build the same model and call `train` with the same arguments
    and data. The batch size is that of all devices together. See `docs/distributed.md`.

    Without arguments, the variables KERAS_DISTRIBUTION_JOB_ADDRESSES, KERAS_DISTRIBUTION_NUM_PROCESSES and
    KERAS_DISTRIBUTION_PROCESS_ID are used; without them, what JAX detects (SLURM, Open MPI, Cloud TPU); otherwise, this
    is the only process.

    Args:
        coordinator: Address and port of process 0, such as `"10.0.0.1:9876"`, which all processes can reach.
        processes: Number of processes, at least 1.
        process: Number of this process, from 0.
        seed: Keras' random seed, 0 to 2**32 - 1, the same in all processes. None draws one for all of several.
        timeout: Seconds after which a process that no longer answers is given up, which ends all others; at least 5.

    Returns:
        The distribution, which is also Keras' global one from now on.

    Raises:
        InvalidArgumentError: Keras has another backend, JAX was used before, a value is missing or out of range, or the
            processes have different numbers of devices or seeds.
        MissingDependencyError: jax isn't installed.
        TrainingError: The processes didn't find each other within five minutes.
    """
    _doors.require("keraslight.training.distribute", "distribute", "jax")
    if keras.backend.backend() != "jax":
        raise InvalidArgumentError(
            "`distribute` needs Keras' JAX backend: set KERAS_BACKEND=jax before Keras is imported. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}."
        )
    if timeout < 5:
        raise InvalidArgumentError(f"`timeout` must be at least 5 seconds. Received: timeout={timeout}.")
    if seed is not None and not 0 <= seed < 2**32:
        raise InvalidArgumentError(f"`seed` must be 0 to 2**32 - 1. Received: seed={seed}.")
    coordinator, processes, process = _place(coordinator, processes, process)
    _join(coordinator, processes, process, timeout)
    import jax

    counts = np.bincount([device.process_index for device in jax.devices()], minlength=jax.process_count())
    if len(set(counts.tolist())) > 1:
        raise InvalidArgumentError(f"All processes must have the same number of devices. Received: {counts.tolist()}.")
    if jax.process_count() > 1:
        atexit.register(_leave)
        seed = _same_seed(seed)
    if seed is not None:
        keras.utils.set_random_seed(seed)
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def _same_seed(seed: int | None) -> int:
    """The seed of all processes; without one, what the first process draws. JAX refuses weights that differ."""
    from jax.experimental import multihost_utils

    drawn = np.random.default_rng().integers(2**32, dtype=np.uint32)
    own = np.array([seed is not None, drawn if seed is None else seed], np.uint32)
    found = multihost_utils.process_allgather(own)
    given = [int(value) if is_given else None for is_given, value in found]
    if len(set(given)) > 1:
        raise InvalidArgumentError(f"All processes must have the same `seed`. Received: {given}.")
    return int(found[0, 1])


def _place(
    coordinator: str | None, processes: int | None, process: int | None
) -> tuple[str | None, int | None, int | None]:
    """The arguments, or those of the environment if there are none; all of them, or only None."""
    given: dict[str, Any] = {"coordinator": coordinator, "processes": processes, "process": process}
    if all(value is None for value in given.values()):
        given = {name: os.environ.get(variable) for name, variable in _VARIABLES.items()}
        if given["coordinator"]:  # Keras takes the addresses of all processes, of which the first is needed
            given["coordinator"] = given["coordinator"].split(",")[0]
    if all(value is None for value in given.values()):
        return None, None, None
    if any(value is None for value in given.values()):
        raise InvalidArgumentError(
            "`coordinator`, `processes` and `process` belong together, also as "
            f"{', '.join(_VARIABLES.values())}. Received: {_said(given)}."
        )
    try:
        count, number = int(given["processes"]), int(given["process"])
    except ValueError:
        raise InvalidArgumentError(f"`processes` and `process` must be numbers. Received: {_said(given)}.") from None
    host, _, port = str(given["coordinator"]).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidArgumentError(
            "`coordinator` must be the address and a port of process 0, such as 10.0.0.1:9876. "
            f"Received: {given['coordinator']!r}."
        )
    if count < 1 or not 0 <= number < count:
        raise InvalidArgumentError(f"`process` must be at least 0 and less than `processes`. Received: {_said(given)}.")
    return given["coordinator"], count, number


def _said(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _join(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
    """Waits for the other processes, if there are any."""
    import jax

    if processes == 1:
        return
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=timeout,
            shutdown_timeout_seconds=timeout,
        )
    except ValueError as error:  # of a launcher, of which nothing was found, or not enough
        if "coordinator_address should be defined" not in str(error):
            raise InvalidArgumentError(
                f"`distribute` must be told the coordinator and the number of processes. Received: {error}"
            ) from error
    except jax.errors.JaxRuntimeError as error:
        raise TrainingError(
            f"All {processes} processes must be started within {START_SECONDS} s, and reach process 0 at "
            f"{coordinator}. Received: {error}"
        ) from error
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"`distribute` must be called once, before anything else that uses JAX. Received: {error}"
        ) from error


def _leave() -> None:
    """Ends a process whose training failed, without JAX's wait for the others, which can't finish."""
    if _failed:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that train together, and the devices of all of them.

    Attributes:
        count: Number of processes.
        index: Number of this process, from 0.
        places: Places of this process' devices among all of them.
        devices: Number of all devices.
    """

    count: int = 1
    index: int = 0
    places: tuple[int, ...] = (0,)
    devices: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Those that `distribute` joined; otherwise this one, with one device."""
        distribution = keras.distribution.distribution()
        if distribution is None:
            return cls()
        if not isinstance(distribution, keras.distribution.DataParallel) or distribution.auto_shard_dataset:
            raise InvalidArgumentError(
                "Keras' global distribution must be one that `keraslight.training.distribute` has made. "
                f"Received: {distribution}."
            )
        import jax

        devices = list(distribution.device_mesh.backend_mesh.devices.flat)
        places = tuple(n for n, device in enumerate(devices) if device.process_index == jax.process_index())
        return cls(jax.process_count(), jax.process_index(), places, len(devices))

    @property
    def first(self) -> bool:
        """Whether this process writes the run folder and shows progress."""
        return self.index == 0

    def check_batch(self, batch: int, wanted: int) -> None:
        """Raises InvalidArgumentError for a batch that can't be divided among all devices."""
        if batch % self.devices:
            less = "" if batch == wanted else f" (of a batch_size of {wanted}, since there are no more images)"
            raise InvalidArgumentError(
                f"`batch_size` must be divisible by the number of devices of all processes, {self.devices}. "
                f"Received: {batch}{less}."
            )

    def own(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Of each batch, the rows of this process' devices."""
        if self.count == 1:
            return batches

        def rows(*parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
            each = tf.shape(parts[0])[0] // self.devices
            chosen = tf.concat([each * place + tf.range(each) for place in self.places], axis=0)
            return tuple(tf.ensure_shape(tf.gather(part, chosen), (None, *part.shape[1:])) for part in parts)

        return batches.map(rows, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)

    def padded(self, batches: tf.data.Dataset, images: int, batch: int) -> tf.data.Dataset:
        """Validation batches (images, targets), of which each device gets the same number of rows.

        Where the last batch has to be filled up, all get weights, with which means over all rows are those over all
        images: zeros for what was added.
        """
        if not self.lacking(images, batch):
            return self.own(batches)
        rows = images + self.lacking(images, batch)

        def pad(pixels: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
            count = tf.shape(targets)[0]
            wanted = -(-count // self.devices) * self.devices
            chosen = tf.minimum(tf.range(wanted), count - 1)
            weights = tf.where(tf.range(wanted) < count, rows / images, 0.0)
            filled = (tf.ensure_shape(tf.gather(part, chosen), part.shape) for part in (pixels, targets))
            return (*filled, tf.cast(weights, tf.float32))

        return self.own(batches.map(pad, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True))

    def lacking(self, images: int, batch: int) -> int:
        """How many rows the last batch lacks to be divisible among the devices."""
        return -(images % batch) % self.devices

    def spread(self, own: np.ndarray) -> Any:
        """The array of all devices, from the rows of this process."""
        distribution = keras.distribution.distribution()
        if distribution is None:
            return own
        import jax

        return jax.make_array_from_process_local_data(distribution.get_data_layout(own.shape).backend_layout, own)

    def from_first(self, make: Callable[[], bytes]) -> bytes:
        """What `make` returns in the first process, which alone calls it. Its error is raised in all of them."""
        if self.count == 1:
            return make()
        from jax.experimental import multihost_utils

        failure: Exception | None = None
        content = b""
        if self.first:
            try:
                content = make()
            except Exception as error:
                failure, content = error, f"{type(error).__name__}\n{error}".encode()
        # JAX has no 64 bits unless it is told so.
        size = np.array([*divmod(len(content), _CHUNK), failure is not None], np.int32)
        whole, rest, failed = multihost_utils.broadcast_one_to_all(size).tolist()
        pieces = []
        for place, length in enumerate([*[_CHUNK] * whole, rest]):
            piece = np.zeros(length, np.uint8)
            if self.first:
                piece[:] = np.frombuffer(content, np.uint8, length, place * _CHUNK)
            pieces.append(multihost_utils.broadcast_one_to_all(piece).tobytes())
        content = b"".join(pieces)
        if failure is not None:
            raise failure
        if failed:
            name, _, text = content.decode().partition("\n")
            kind = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, KeraslightError):
                raise kind(text)
            raise TrainingError(f"Process 0 must be able to use its run folder. Received: {name}: {text}")
        return content

    def check_equal(self, parts: dict[str, Any]) -> None:
        """Raises InvalidArgumentError, in all processes, where they differ in what they train. Of weights, JAX does."""
        if self.count == 1:
            return
        from jax.experimental import multihost_utils

        said = {name: json.dumps(value, sort_keys=True).encode() for name, value in sorted(parts.items())}
        digests = np.array([np.frombuffer(hashlib.sha256(value).digest(), np.uint8) for value in said.values()])
        found = multihost_utils.process_allgather(digests)
        for number, theirs in enumerate(found):
            differing = [name for name, equal in zip(said, (theirs == found[0]).all(1), strict=True) if not equal]
            if differing:
                raise InvalidArgumentError(
                    "All processes must train the same model with the same recipe and data. "
                    f"Received: another {' and '.join(differing)} in process {number} than in process 0."
                )

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Training, which ends in all processes if it fails in one of them."""
        if self.count == 1:
            yield
            return
        import jax

        try:
            yield
        except KeraslightError:  # in all of them
            raise
        except jax.errors.JaxRuntimeError as error:
            _failed.append(True)
            raise TrainingError(
                "All processes must run until the training ends. Start all of them again with the same command, which "
                f"resumes after the last saved epoch. Received: process {self.index} lost another one: {error}"
            ) from error
        except BaseException:
            _failed.append(True)
            raise


def settling(model: keras.Model, processes: Processes) -> Settling:
    """What measures the statistics of a model's batch norms again."""
    return _SettlingOnJax(model, processes) if keras.backend.backend() == "jax" else Settling(model)


class _SettlingOnJax(Settling):
    """The same in one or several processes, by a call that assigns nothing."""

    def __init__(self, model: keras.Model, processes: Processes) -> None:
        super().__init__(model)
        self._processes = processes

    def _statistics(self, images: Any, moving: list[keras.Variable]) -> list[Any]:
        import jax

        model = self._model
        trainable = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        if self._forward is None:
            training = keeping_modes(model)

            def forward(trainable: list[Any], others: list[Any], images: Any) -> list[Any]:
                changed: list[Any] = training.stateless_call(trainable, others, images, training=True)[1]
                return changed

            self._forward = jax.jit(forward)
        changed = self._forward(trainable, others, self._processes.spread(np.asarray(images)))
        places = {id(variable): place for place, variable in enumerate(model.non_trainable_variables)}
        return [changed[places[id(average)]] for average in moving]


def forget_traces(model: keras.Model) -> None:
    """Makes a compiled model trace its training step again, in which layers or the optimizer have changed."""
    model.train_function = None
    if keras.backend.backend() == "jax":
        import jax

        model.test_function = None  # it takes the variables that train and the others apart
        jax.clear_caches()  # or the same step of the same model would be taken for the same computation
