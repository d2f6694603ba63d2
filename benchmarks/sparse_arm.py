"""What a phone's processor saves of networks with 80% zeros in their 1x1 kernels.

Instructions, and CPU time of emulation, of the sparse file as a share of the dense one's, on LiteRT's ARM64 kernels
under QEMU (`make arm64`), once with blocks of four output channels zero, as `prune(policy="xnnpack")` leaves them, and
once with single weights zero. The random networks compute nonsense, but as fast as trained ones.

`python benchmarks/sparse_arm.py [SIDE] [MODEL ...]`
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import keraslight
from keraslight import compress
from keraslight.export import arm64_problem, litert_report, run_on_arm64, to_litert

MODELS = (
    "mobilenet_v1_100",
    "mobilenet_v2_100",
    "mobilenet_v3_small_100",
    "mobilenet_v3_large_100",
    "mobilenext_100",
    "efficientnet_b0",
    "ghostnet_100",
)
SPARSITY = 0.8


def measure(name: str, side: int, blocks: tuple[int, int]) -> str:
    """A cell of the table: shares of instructions and of emulated CPU time."""
    keras.utils.set_random_seed(0)
    model = keraslight.create_model(name, weights=None, classes=10, input_shape=(side, side, 3))
    model = compress.prune_at_once(model, SPARSITY, policy="xnnpack", block_size=blocks)
    images = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        files = [to_litert(model, Path(folder) / f"{sparse}.tflite", sparse=sparse) for sparse in (True, False)]
        if not (found := litert_report(files[0]).sparse).accepted:
            sys.exit(f"{name}: {found}")
        sparse, dense = (run_on_arm64(file, images) for file in files)
    difference = np.abs(sparse.outputs - dense.outputs).max()
    if difference > 1e-5:
        sys.exit(f"{name}: the sparse file's probabilities differ by {difference}")
    keras.backend.clear_session()
    time = sparse.milliseconds / dense.milliseconds
    return f"{sparse.instructions / dense.instructions:.2f} ({time:.2f})"


def main(side: int = 96, *names: str) -> None:
    if problem := arm64_problem():
        sys.exit(f"Not measured: {problem}.")
    print(
        f"{side}x{side} pixels, {SPARSITY:.0%} zeros: instructions (emulated CPU time) as a share of the dense file's"
    )
    print(f"{'model':<26} {'blocks of four':>16} {'single weights':>16}")
    for name in names or MODELS:
        print(f"{name:<26} {measure(name, side, (1, 4)):>16} {measure(name, side, (1, 1)):>16}", flush=True)


if __name__ == "__main__":
    main(*(int(each) if each.isdigit() else each for each in sys.argv[1:]))
