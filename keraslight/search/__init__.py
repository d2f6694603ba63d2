"""Architecture search: networks that are accurate and fast on this machine, from the block rows of MobileNetV3 and V4.

space = MobileNetV3Space.for_images(48)
result = search(space, data, recipe, run_dir="runs/search", trials=60)
print(result)
print(result.pick().code)
print(retrain(result, [12, 31], data, DIGITS_RECIPE, against=["mobilenet_v3_small_050"]))

    spaces.py      what is searched: block rows as a fixed number of choices
    _search.py     `search`: one trial after another, cost first
    _study.py      trials in a journal that several processes share
    _measure.py    cost before training, loss after it
    _results.py    what was found      _retrain.py  picks, again with all images and several seeds
"""

import warnings

from keraslight import _doors, _faces

with warnings.catch_warnings():
    # In notebooks without ipywidgets, Optuna's progress bar warns when it is imported. It isn't shown here.
    warnings.filterwarnings("ignore", message="IProgress not found")
    _doors.require("keraslight.search", "search", "numpy", "keras", "tensorflow", "optuna", "filelock")

from keraslight.search._results import Candidate as Candidate, SearchResult as SearchResult
from keraslight.search._retrain import Retrained as Retrained, RetrainedNet as RetrainedNet, retrain as retrain
from keraslight.search._search import search as search
from keraslight.search._study import START_OVER as START_OVER
from keraslight.search.spaces import (
    SPACES as SPACES,
    MobileNetV3Space as MobileNetV3Space,
    MobileNetV4Space as MobileNetV4Space,
)

__all__ = _faces.public(globals())
