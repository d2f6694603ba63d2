"""Runs of a TF1 session that can be stopped: at their deadline, or when nobody waits for them any more.

TensorFlow stops a run at `RunOptions.timeout_in_ms`, but offers nothing to stop one of several runs of a session early.
So each run also waits for a number in an accumulator of its own, and fails where that is NaN. Its outputs are followed
by an operation that adds 0; to stop the run, another run adds NaN. This takes 0.1 ms per run.

Not a queue, although its elements are simpler: adding one may wait for room. Where a run fails just as its outputs are
there (by an assertion), TensorFlow then waits for itself: the thread that cancels what waits for an element
also completes what adds one, and that asks to be taken off the list of what the same thread is cancelling. Nothing ends
such a run any more, not even its deadline. Adding to an accumulator never waits, so it is not on that list.

Places are numbered, as many as the session executes runs at once; further ones wait for a place. All share one plan of
execution per signature, in which the place chooses the accumulator. Each place also has its own threads: a loop may
keep those of its run busy, and then no other run, nor the operations above, would have any.
"""

import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keraslight_serving.server.base.call import Call
from keraslight_serving.server.base.cpus import available_cpus
from keraslight_serving.server.base.errors import StatusError
from keraslight_serving.wire.tensors import varint

MOST_THREADS = 8  # per run, of those that schedule operations; convolutions use threads that all runs share
LOOK_SECONDS = 0.05  # between two looks whether the callers of runs are still there


def session_config(tf: Any, count: int) -> Any:
    """The ConfigProto of a session for `StoppableRuns`."""
    config = tf.compat.v1.ConfigProto()
    for _ in range(count):
        config.session_inter_op_thread_pool.add(num_threads=min(max(available_cpus(), 2), MOST_THREADS))
    config.experimental.disable_thread_spinning = True  # most of them are idle
    return config


class StoppableRuns:
    """Runs in the graph and session of a SavedModel, `count` at once. `tf`: the module `tensorflow`.

    The session was made with `session_config`.

    Tensors are `TF_Output`s. Raises TensorFlow's errors, or the StatusError of a call that is over.
    """

    def __init__(self, tf: Any, session: Any, count: int) -> None:
        # Session.run casts feeds and compares shapes in Python, with other texts than TensorFlow Serving's and four
        # times slower, and so does make_callable. TensorFlow Serving, too, calls the function below them.
        from tensorflow.python.client import pywrap_tf_session

        self._c, self._tf, self._session = pywrap_tf_session, tf, session
        self._changing = threading.Lock()  # guards changes of the graph
        self._finishes: dict[tuple[str, ...], Any] = {}  # the operation that follows these tensors, by their names
        self._places: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(count):
            self._places.put(place)
        self._watch = _Watch()
        with session.graph.as_default(), tf.name_scope("keraslight_stoppable"):
            self._place = tf.compat.v1.placeholder(tf.int32, [])
            self._accumulator = self._chosen_accumulator(count)
            self._end = tf.debugging.check_numerics(self._take(), "stopped").op
            self._stop = self._add(math.nan)
            with tf.control_dependencies([self._add(0.0)]):  # so that there is something to take
                self._reset = self._take().op

    def run(self, feeds: Mapping[Any, Any], fetches: Sequence[Any], call: Call) -> list[Any]:
        """Returns the values of tensors, given those of others."""
        finish = self._finish(fetches)
        place = self._wait_for_place(call)
        watched, clean = _Watched(call, lambda: self._at(place, self._stop)), False
        options = self._c.TF_NewBufferFromString(_options(place, call.deadline))
        try:
            self._watch.add(watched)
            targets = [self._end._c_op, finish._c_op]
            feeds = {**feeds, self._place._as_tf_output(): np.int32(place)}
            outputs = [tensor._as_tf_output() for tensor in fetches]
            found: list[Any] = self._c.TF_SessionRun_wrapper(
                self._session._session, options, feeds, outputs, targets, None
            )
            clean = not self._watch.remove(watched)
            return found
        except self._tf.errors.OpError:
            if self._watch.remove(watched):
                call.check()  # raises: that is why it was stopped
            raise
        finally:
            self._watch.remove(watched)
            if not clean:
                self._at(place, self._reset)
            self._c.TF_DeleteBuffer(options)
            self._places.put(place)

    def close(self) -> None:
        self._watch.close()

    def _chosen_accumulator(self, count: int) -> Any:
        """The accumulator of the run's place. Only that one is looked up, as the inputs of all others are dead."""
        tf, accumulators = self._tf, []
        for place in range(count):
            chosen = tf.raw_ops.Switch(data=self._place, pred=tf.equal(self._place, place))[1]
            with tf.control_dependencies([tf.identity(chosen)]):
                accumulators.append(
                    tf.raw_ops.ResourceConditionalAccumulator(
                        dtype=tf.float32, shape=[], shared_name=f"keraslight_stoppable_{place}"
                    )
                )
        return tf.raw_ops.Merge(inputs=accumulators)[0]

    def _take(self) -> Any:
        """Takes the mean of all numbers that were added, and waits for one."""
        return self._tf.raw_ops.ResourceAccumulatorTakeGradient(
            handle=self._accumulator, num_required=1, dtype=self._tf.float32
        )

    def _add(self, number: float) -> Any:
        # An accumulator drops what was added before as many steps as were taken.
        return self._tf.raw_ops.ResourceAccumulatorApplyGradient(
            handle=self._accumulator, local_step=2**62, gradient=number
        )

    def _finish(self, fetches: Sequence[Any]) -> Any:
        key = tuple(tensor.name for tensor in fetches)
        if (found := self._finishes.get(key)) is not None:
            return found
        with self._changing:
            if key not in self._finishes:
                with self._session.graph.as_default():
                    # Not the outputs themselves: what follows a call of a function doesn't wait for its values.
                    values = [self._tf.identity(tensor) for tensor in fetches]
                    with self._tf.control_dependencies(values):
                        made = self._add(0.0)
                self._session._extend_graph()
                self._finishes[key] = made
            return self._finishes[key]

    def _wait_for_place(self, call: Call) -> int:
        while True:
            seconds = math.inf if call.deadline is None else call.deadline - time.monotonic()
            try:
                return self._places.get(timeout=max(0.0, min(seconds, LOOK_SECONDS)))
            except queue.Empty:
                call.check()

    def _at(self, place: int, operation: Any) -> None:
        feeds = {self._place._as_tf_output(): np.int32(place)}
        options = self._c.TF_NewBufferFromString(_IN_THIS_THREAD)
        try:
            self._c.TF_SessionRun_wrapper(self._session._session, options, feeds, [], [operation._c_op], None)
        finally:
            self._c.TF_DeleteBuffer(options)


class _Watched:
    """A run in flight, and what stops it."""

    def __init__(self, call: Call, stop: Any) -> None:
        self.call, self.stop = call, stop
        self.lock = threading.Lock()  # guards the two below
        self.stopped = self.over = False


class _Watch:
    """A thread that stops runs whose call is over. It sleeps while there are none."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._runs: set[_Watched] = set()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, run: _Watched) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="watch runs", daemon=True)
                self._thread.start()
            self._runs.add(run)
            if len(self._runs) == 1:
                self._changed.notify()

    def remove(self, run: _Watched) -> bool:
        """Returns whether it was stopped; it isn't from now on."""
        with self._changed:
            self._runs.discard(run)
        with run.lock:
            run.over = True
            return run.stopped

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._runs or self._closed)
                if self._closed:
                    return
                self._changed.wait_for(lambda: self._closed, LOOK_SECONDS)
                runs = list(self._runs)
            for run in runs:
                try:
                    run.call.check()
                except StatusError:
                    with run.lock:
                        if not run.over and not run.stopped:
                            run.stopped = True
                            run.stop()


# Serialized RunOptions: field 2 is `timeout_in_ms`, and field 3 `inter_op_thread_pool`, here -1.
_IN_THIS_THREAD = b"\x18" + varint(2**64 - 1)


def _options(place: int, deadline: float | None) -> bytes:
    options = b"\x18" + varint(place)
    if deadline is not None:
        options += b"\x10" + varint(max(1, math.ceil((deadline - time.monotonic()) * 1000)))
    return options
