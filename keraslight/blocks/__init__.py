"""Functions from tensor to tensor over stock Keras layers, so that a model's graph stays flat."""
