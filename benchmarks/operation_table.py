"""Compares the sum of a table of single operators with the time of whole files, on one thread.

For MobileNetV4-Conv-Small, MobileNetV3-Small and EfficientNet-B0 at 48 and 96 pixels, in float32 and int8: the ratio of
the table's sum to the measured time (target: 0.8 to 1.2), and the rank correlation of both over networks with random
widths, which the table has not seen before (target: at least 0.95). Rounds over all files are interleaved, and
times are the thread's CPU time: the machine may be busy, but what shares its caches still counts.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keraslight
from keraslight import compress
from keraslight.analysis import OperationTable
from keraslight.export.litert.operators import model_operators

NETS = ("mobilenet_v4_conv_small", "mobilenet_v3_small_100", "efficientnet_b0")
SIZES = (48, 96)


def random_widths(model: keras.Model, rng: np.random.Generator) -> dict[str, int]:
    """Multiples of 8 from a quarter of each group's channels to all of them, in one half of the groups."""
    groups = [group for group in compress.channel_groups(model) if group.removable and group.size >= 16]
    share = rng.uniform(0.25, 1.0)
    low = {group.name: max(8, round(rng.uniform(share, 1) * group.size / 8) * 8) for group in groups}
    return {group.name: min(low[group.name], group.size) for group in groups}


def ranks(values: list[float]) -> Any:
    """The place of each value in ascending order."""
    return np.argsort(np.argsort(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=list(NETS), help="models to compare")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="sides of the images")
    parser.add_argument("--widths", type=int, default=20, help="random widths per model")
    parser.add_argument("--repeats", type=int, default=40, help="timed calls")
    given = parser.parse_args()
    ratios, correlations = [], []
    with tempfile.TemporaryDirectory() as folder:
        table = OperationTable(Path(folder), repeats=given.repeats)
        for name in given.nets:
            for size in given.sizes:
                model = keraslight.create_model(name, input_shape=(size, size, 3), classes=10)
                rng = np.random.default_rng(0)
                chosen = [compress.layer_widths(model, random_widths(model, rng)) for _ in range(given.widths)]
                for int8 in (False, True):
                    operators = model_operators(model, int8=int8)
                    compared = table.compare(operators)
                    ratios.append(compared.ratio)
                    text = f"{name} {size} {'int8' if int8 else 'float32'}: table {compared.table_ms:.3f} ms, "
                    text += f"measured {compared.measured_ms:.3f} ms, ratio {compared.ratio:.2f}"
                    if chosen:
                        graphs = [operators.with_widths(widths) for widths in chosen]
                        predicted = table.latencies(graphs)
                        measured = table.measure(graphs)
                        correlation = float(np.corrcoef(ranks(predicted), ranks(measured))[0, 1])
                        correlations.append(correlation)
                        spread = f"{min(measured):.3f} to {max(measured):.3f} ms"
                        text += f"; {len(chosen)} widths ({spread}), rank correlation {correlation:.3f}"
                    print(text, flush=True)
        print(f"ratios {min(ratios):.2f} to {max(ratios):.2f}; {len(table)} operators in the table")
        if correlations:
            print(f"rank correlations from {min(correlations):.3f}")


if __name__ == "__main__":
    main()
