"""Classifies images with MediaPipe Tasks; run by test_litert_mediapipe.py with the Python that has MediaPipe.

Usage: python mediapipe_classify.py MODEL.tflite IMAGES.npz. The archive's `images` are uint8 (N, H, W, 3). Prints one
JSON list a line and image: [label, score] of the best five, best first.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions

options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=sys.argv[1]), max_results=5)
with ImageClassifier.create_from_options(options) as classifier:
    for pixels in np.load(sys.argv[2])["images"]:
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
        categories = classifier.classify(image).classifications[0].categories
        print(json.dumps([[category.category_name, category.score] for category in categories]))
