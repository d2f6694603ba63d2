"""Measures what test-time views and normalization per image are worth on digits: the tables of docs/views.md.

Trains two nets for each seed by `DIGITS_RECIPE`, one on fixed numbers and one with `per_image`, and evaluates the first
with and without views. What a net answers to images unlike those of its training changes with its seed, and even with
the processor, by tens of points; so the tables have the mean and the range over seeds, and last, the differences that
the page speaks of. `python benchmarks/views.py SEEDS` (5).
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import keraslight
from keraslight.analysis import ROBUSTNESS, evaluate
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, load_digits, train

SCALES, TURNS = {"scales": (0.75, 1.0, 1.3)}, {"rotations": (-20.0, 0.0, 20.0)}
VIEWS = {
    "scales, mean": {**SCALES, "merge": "mean"},
    "scales, certain": SCALES,
    "turns, mean": {**TURNS, "merge": "mean"},
    "turns, certain": TURNS,
    "both, certain": {**SCALES, **TURNS},
}
COLUMNS = ("no views", *VIEWS, "per image")
ROWS = ("as they are", *ROBUSTNESS)
DIFFERENCES = (
    ("scaled by 0.6", "scales, certain", "no views"),
    ("scaled by 0.6", "scales, certain", "scales, mean"),
    ("turned by -35 degrees", "turns, certain", "no views"),
    ("turned by -35 degrees", "turns, certain", "turns, mean"),
    ("0.3 times as bright", "per image", "no views"),
    ("low contrast", "per image", "no views"),
)


def measured(seed: int) -> np.ndarray:
    """Percent right for each of COLUMNS and ROWS."""

    def trained(per_image: bool) -> keras.Model:
        data = load_digits(DIGITS_PREPROCESSING.replace(per_image=per_image))
        keras.utils.set_random_seed(seed)
        model = keraslight.create_model(
            "mobilenet_v4_conv_small", classes=10, input_shape=data.image_shape, preprocessing=data.preprocessing
        )
        with tempfile.TemporaryDirectory() as folder:
            train(model, data, DIGITS_RECIPE.replace(seed=seed), run_dir=folder, progress=False)
        return model

    plain, per_image = trained(False), trained(True)
    models = (plain, *(keraslight.views(plain, **views) for views in VIEWS.values()), per_image)
    images, targets = load_digits(DIGITS_PREPROCESSING).validation_arrays()
    found = (evaluate(model, images, targets, changes=ROBUSTNESS) for model in models)
    return 100 * np.array([[report.score, *report.robustness.values()] for report in found])


def main() -> None:
    seeds = int(sys.argv[1]) if sys.argv[1:] else 5
    all_seeds = []
    for seed in range(seeds):
        all_seeds.append(measured(seed))
        keras.backend.clear_session()
        print(f"seed {seed}: {np.round(all_seeds[-1], 1).tolist()}", file=sys.stderr, flush=True)
    cells = np.stack(all_seeds)

    def spread(values: np.ndarray) -> str:
        return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})"

    print(f"| images | {' | '.join(COLUMNS)} |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for row, change in enumerate(ROWS):
        print(f"| {change} | {' | '.join(spread(cells[:, column, row]) for column in range(len(COLUMNS)))} |")
    for change, better, worse in DIFFERENCES:
        both = cells[:, [COLUMNS.index(better), COLUMNS.index(worse)], ROWS.index(change)]
        print(f"{change}: {better} minus {worse} {spread(both[:, 0] - both[:, 1])}")


if __name__ == "__main__":
    main()
