"""Generates `serving_pb2.py` and its type stub from `serving.proto`: `make proto`, or

    python -m pip install grpcio-tools
    python -m keraslight_serving.wire._generate

Generated code doesn't run on a protobuf older than its generator's, which would force every user of the client to
update. From protobuf 6.31 to 7.35, generators write the same code except for that version, so it is lowered to the
oldest that the package supports. A test compares the file with a fresh one and shows when this changes.
"""

import importlib.resources
import re
import sys
import tempfile
from pathlib import Path

OLDEST_PROTOBUF = (6, 31, 1)
PACKAGES = Path(__file__).parents[2]
PROTO = "keraslight_serving/wire/serving.proto"  # also the name in the descriptor pool, so it must be ours alone
CODE, STUB = (PACKAGES / PROTO.replace(".proto", ending) for ending in ("_pb2.py", "_pb2.pyi"))


def generate() -> tuple[str, str]:
    """The texts of `serving_pb2.py` and `serving_pb2.pyi`."""
    try:
        from grpc_tools import protoc
    except ImportError:
        sys.exit("Generating code needs grpcio-tools: python -m pip install grpcio-tools")
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        outputs = (f"--python_out={folder}", f"--pyi_out={folder}")
        if protoc.main(["protoc", f"-I{PACKAGES}", f"-I{well_known}", *outputs, PROTO]):
            sys.exit(f"protoc rejected {PROTO}; its message is above.")
        code, stub = (next(Path(folder).rglob(target.name)).read_text() for target in (CODE, STUB))
    major, minor, patch = OLDEST_PROTOBUF
    code = re.sub(r"(Protobuf Python Version: )\S+", rf"\g<1>{major}.{minor}.{patch}", code)
    numbers = rf"\1    {major},\n    {minor},\n    {patch},\n"
    return re.sub(r"(Domain\.PUBLIC,\n)    \d+,\n    \d+,\n    \d+,\n", numbers, code), stub


if __name__ == "__main__":
    for target, text in zip((CODE, STUB), generate(), strict=True):
        target.write_text(text)
