"""Parameters and multiply-adds against `reference_table.csv`, which was counted in the reference implementations.

The architectures' own tables are recounted by the sweep, with `profile` too; here they are held against other people's
figures. Models are built only where the row has another size or form than our table.
"""

import csv
import re
from pathlib import Path

import pytest

import keraslight
from keraslight.analysis import count_macs, count_parameters, profile

TABLE = Path(__file__).parent / "reference_table.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))

# Forms that are not in the zoo, each with the reason.
LEFT_OUT = {
    r"\(keras v1": "ResNet is v1.5 here",
}
V3 = {
    "Large a1.0": "large_100",
    "Large a0.75": "large_075",
    "Large a1.0 minimalistic": "large_minimalistic",
    "Small a1.0": "small_100",
    "Small a0.75": "small_075",
    "Small a1.0 minimalistic": "small_minimalistic",
}


def table_macs(row: dict):
    """The row's millions, within 0.1 %, and half of the last printed digit (LeNet has 0.417)."""
    return pytest.approx(float(row["macs_millions"]), rel=1e-3, abs=5e-4)


def percent(width: str) -> str:
    return f"{round(100 * float(width)):03d}"


def ours(row: dict) -> tuple[str, dict]:
    """Our model's name and further arguments for a row of the table."""
    family, variant = row["family"], row["variant"]
    first = variant.split(" ")[0]
    match family:
        case "LeNet-5":
            return f"lenet5_{first}", {}
        case "AlexNet":
            return ("alexnet_2012" if "original" in variant else "alexnet"), {}
        case "GoogLeNet":
            name = "paper" if "paper" in variant else "5x5" if "true 5x5" in variant else None
            return "_".join(filter(None, ("googlenet", name))), ({"auxiliary": True} if "with 2 aux" in variant else {})
        case "SqueezeNet":
            return first.replace("squeezenet", "squeezenet_"), {}
        case "MobileNetV1" | "MobileNetV2":
            prefix = "mobilenet_v1_" if family == "MobileNetV1" else "mobilenet_v2_"
            alpha = re.search(r"alpha=([\d.]+)", variant)
            if alpha:
                return prefix + percent(alpha[1]), {}
            return prefix + (re.search(r"_(\d{3}) ", variant) or [None, "100"])[1], {}
        case "MobileNetV3":
            if variant.startswith("MobileNetV3"):
                return f"mobilenet_v3_{V3[variant.removeprefix('MobileNetV3')]}", {}
            size, width = re.match(r"mobilenet_?v3_(large|small)(?:_(\d{3}))?", variant).groups()
            return f"mobilenet_v3_{size}_{width or '100'}", {}
        case "MobileNetV4":
            name, width = re.fullmatch(r"(\D+?)(?:_(\d{3}))?", variant).groups()
            return f"mobilenet_v4_{name}", ({"width": int(width) / 100} if width else {})
        case "EfficientNet" | "EfficientNetV2" | "ConvNeXt" | "ConvNeXtV2":
            prefix = re.sub(r"V2$", "_v2", family).lower()
            return f"{prefix}_{first}", {}
        case "ShuffleNetV1":
            groups, width = variant.split(" ")
            return f"shufflenet_v1_{groups}_{percent(width[:-1])}", {}
        case "ShuffleNetV2":
            return f"shufflenet_v2_{percent(first[:-1])}" + ("_megvii" if "megvii" in variant else ""), {}
        case "ShuffleNetV2+":
            return f"shufflenet_v2_plus_{first.lower()}", {}
        case "MobileNeXt" | "GhostNet":
            return f"{family.lower()}_{percent(variant.removeprefix('width '))}", {}
        case "RepVGG":
            return f"repvgg_{first.lower()}", ({"deploy": True} if "deploy" in variant else {})
    return first, {}  # VGG, ResNet, DenseNet, Xception


def test_every_row_names_a_model_and_most_need_no_build():
    compared = built = 0
    left_out = []
    for row in ROWS:
        if any(re.search(pattern, row["variant"]) for pattern in LEFT_OUT):
            left_out.append(f"{row['family']} {row['variant']}")
            continue
        name, arguments = ours(row)
        info = keraslight.model_info(name)  # raises for a name that does not exist
        side = int(row["input_size"].split("x")[0])
        if arguments or side != info.input_size:
            built += 1
            continue
        compared += 1
        assert info.parameters == int(row["parameters"]), (name, row)
        if row["macs_millions"]:
            assert info.macs / 1e6 == table_macs(row), (name, row)
    print(f"{compared} rows compared with the tables, {built} by building, {len(left_out)} are no variants: {left_out}")
    assert compared + built + len(left_out) == len(ROWS)
    assert compared >= 90


def rows_to_build():
    built = set()
    for row in ROWS:
        if any(re.search(pattern, row["variant"]) for pattern in LEFT_OUT):
            continue
        name, arguments = ours(row)
        side = int(row["input_size"].split("x")[0])
        info = keraslight.model_info(name)
        if arguments or side != info.input_size:
            quick = info.parameters <= 20_000_000 and info.family not in built  # `make test` builds one of each family
            if quick:
                built.add(info.family)
            yield pytest.param(
                row, name, arguments, side, id=f"{row['family']} {row['variant']}",
                marks=() if quick else pytest.mark.slow,
            )  # fmt: skip


@pytest.mark.parametrize(("row", "name", "arguments", "side"), list(rows_to_build()))
def test_rows_of_other_sizes_and_forms(row, name, arguments, side):
    channels = 1 if keraslight.model_info(name).family == "LeNet5" else 3
    model = keraslight.create_model(name, input_shape=(side, side, channels), **arguments)
    result = profile(model)
    assert count_parameters(model) == result.parameters == int(row["parameters"])
    assert count_macs(model) == result.macs
    if row["macs_millions"]:
        assert result.macs / 1e6 == table_macs(row)
