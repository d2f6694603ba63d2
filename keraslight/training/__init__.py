"""Training: labeled images, light augmentation, recipes, and a trainer that resumes interrupted runs.

data = load_digits(DIGITS_PREPROCESSING)
result = train(model, data, DIGITS_RECIPE, run_dir="runs/digits")
model, info = load_run("runs/digits")
result = train(small, data, DIGITS_RECIPE, run_dir="runs/small", distillation=Distillation(teacher=model))
"""

from keraslight.training._augmentation import Augmentation
from keraslight.training._data import ImageData
from keraslight.training._distillation import Distillation
from keraslight.training._loss import ClassificationLoss
from keraslight.training._recipe import DIGITS_PREPROCESSING, DIGITS_RECIPE, Recipe
from keraslight.training._sources import load_digits, load_directory, load_images
from keraslight.training._trainer import TrainingResult, train
from keraslight.training.run_folder import load_run

__all__ = [
    "DIGITS_PREPROCESSING",
    "DIGITS_RECIPE",
    "Augmentation",
    "ClassificationLoss",
    "Distillation",
    "ImageData",
    "Recipe",
    "TrainingResult",
    "load_digits",
    "load_directory",
    "load_images",
    "load_run",
    "train",
]
