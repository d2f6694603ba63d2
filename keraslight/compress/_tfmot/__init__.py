"""The only package that imports tensorflow_model_optimization and tf_keras.

Importing tensorflow_model_optimization sets `TF_USE_LEGACY_KERAS=1` in the environment, which child processes would
inherit, and makes `tf.keras` mean tf_keras if that attribute has not been used yet. Neither happens here: `tf.keras`
stays what it is, and tf_keras is available under its own name. Nothing here uses `tf.keras`, so that it may as well be
Keras 2 already: where the variable is set, or where the library was imported before.
"""

import os

from keraslight.errors import MissingDependencyError

_VARIABLE = "TF_USE_LEGACY_KERAS"
_before = os.environ.get(_VARIABLE)

try:
    import tensorflow as tf

    tf.keras.layers  # noqa: B018 - settles what the lazy attribute means before the next import
    import tensorflow_model_optimization.python.core.keras.compat  # noqa: F401
    import tf_keras  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        "Pruning and quantization-aware training need tensorflow-model-optimization and tf_keras: "
        f"pip install 'keraslight[compress]'. Received: {error}."
    ) from error
finally:
    if _before is None:
        os.environ.pop(_VARIABLE, None)
    else:
        os.environ[_VARIABLE] = _before
