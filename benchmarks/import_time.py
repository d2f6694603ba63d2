"""Measures the cost of `import keraslight` on top of `import numpy`: interleaved fresh processes, medians."""

import statistics
import subprocess
import sys
import time

STATEMENTS = {"numpy": "import numpy", "keraslight": "import numpy, keraslight"}
REPEATS = 15


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(REPEATS):
        for name, statement in STATEMENTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            times[name].append(time.perf_counter() - began)
    median = {name: statistics.median(values) for name, values in times.items()}
    extra = median["keraslight"] - median["numpy"]
    print(f"import numpy {median['numpy']:.3f} s, numpy and keraslight {median['keraslight']:.3f} s")
    print(f"ratio {median['keraslight'] / median['numpy']:.2f}, {extra:+.3f} s (budget: +0.100 s)")


if __name__ == "__main__":
    main()
