"""Keras' random layers for images: augmentation that people build into their models."""

import keras

_NAMES = (
    *("AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter"),
    *("RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur"),
    *("RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomRotation"),
    *("RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "Solarization"),
)
AUGMENTATIONS = tuple(getattr(keras.layers, name) for name in _NAMES if hasattr(keras.layers, name))
"""Those that give images as they are in inference; not RandomCrop, which gives another size. Some are younger than the
oldest Keras that we take."""
