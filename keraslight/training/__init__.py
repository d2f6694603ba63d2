"""Training: labeled images, light augmentation, recipes, and a trainer that resumes interrupted runs.

data = load_digits(DIGITS_PREPROCESSING)
result = train(model, data, DIGITS_RECIPE, run_dir="runs/digits")
model, info = load_run("runs/digits")
result = train(small, data, DIGITS_RECIPE, run_dir="runs/small", distillation=Distillation(teacher=model))
"""

from keraslight import _doors, _faces

_doors.require("keraslight.training", "train", "numpy", "keras", "tensorflow")

from keraslight.graph import without_auxiliary as without_auxiliary
from keraslight.training._augmentation import Augmentation as Augmentation
from keraslight.training._data import ImageData as ImageData
from keraslight.training._distillation import Distillation as Distillation
from keraslight.training._find_rate import (
    LearningRateSearch as LearningRateSearch,
    find_learning_rate as find_learning_rate,
)
from keraslight.training._loss import ClassificationLoss as ClassificationLoss
from keraslight.training._processes import distribute as distribute
from keraslight.training._progressive import Progressive as Progressive
from keraslight.training._recipe import (
    DIGITS_PREPROCESSING as DIGITS_PREPROCESSING,
    DIGITS_RECIPE as DIGITS_RECIPE,
    Recipe as Recipe,
)
from keraslight.training._recipes import RECIPES as RECIPES
from keraslight.training._report import ClassCount as ClassCount, DataReport as DataReport
from keraslight.training._sources import (
    image_files as image_files,
    load_digits as load_digits,
    load_directory as load_directory,
    load_images as load_images,
    load_table as load_table,
    load_test as load_test,
)
from keraslight.training._trainer import TrainingResult as TrainingResult, train as train
from keraslight.training.run_folder import load_run as load_run

__all__ = _faces.public(globals())
