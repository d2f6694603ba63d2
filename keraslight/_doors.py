"""What each public package does first: it imports Keras and TensorFlow without their start-up lines, or says which
extra installs them."""

import contextlib
import logging
import os
import sys

from keraslight_serving.extras import require as _require
from keraslight_serving.startup import LEVEL, quiet

from keraslight.errors import MissingDependencyError


def require(needed_by: str, extra: str, *modules: str) -> None:
    """Imports modules that `needed_by` needs.

    Raises:
        MissingDependencyError: One is not installed. The text gives the command that installs `extra`.
    """
    if all(sys.modules.get(module) for module in modules):
        return
    os.environ.setdefault(LEVEL, "2")  # later messages: errors only
    if "keras" in modules and os.environ.get("KERAS_BACKEND") == "jax":
        _require(f"Keras with KERAS_BACKEND=jax, for {needed_by},", "distribute", "jax", error=MissingDependencyError)
    with quiet(" ".join(modules)):  # JAX's door comes before that of TensorFlow
        _require(needed_by, extra, *modules, error=MissingDependencyError)
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is not None:
            logger = logging.getLogger("tensorflow")
            if logger.level == logging.INFO and os.environ[LEVEL] not in ("0", "1"):
                logger.setLevel(logging.WARNING)  # as in scripts; in notebooks TensorFlow reports every file it writes
            # Looks for GPUs now, while the lines about it are left out, and sets none of them up.
            tensorflow.config.list_physical_devices()
            if "keras" in modules and sys.modules["keras"].backend.backend() != "tensorflow":
                with contextlib.suppress(RuntimeError):  # it has set them up before
                    # It only reads images then, and would take the memory of all GPUs.
                    tensorflow.config.set_visible_devices([], "GPU")
