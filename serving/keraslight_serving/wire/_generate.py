"""Regenerates `serving_pb2.py` from `serving.proto`.

    python -m pip install grpcio-tools==1.75.1    # in a throw-away environment
    python -m keraslight_serving.wire._generate

Generated code refuses to run on a protobuf that is older than the one that it was generated with. So it is made with
the oldest protobuf that the package supports, and newer generators are turned away.
"""

import importlib.resources
import re
import sys
import tempfile
from pathlib import Path

OLDEST_PROTOBUF = (6, 31, 1)
PACKAGES = Path(__file__).parents[2]
PROTO = "keraslight_serving/wire/serving.proto"  # also the name in the descriptor pool, so it has to be ours alone
TARGET = PACKAGES / PROTO.replace(".proto", "_pb2.py")


def main() -> None:
    """Writes `serving_pb2.py`.

    Raises:
        SystemExit: grpcio-tools is missing or too new, or protoc refused the file.
    """
    try:
        from grpc_tools import protoc
    except ImportError:
        sys.exit("Generating needs grpcio-tools: python -m pip install grpcio-tools==1.75.1")
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        if protoc.main(["protoc", f"-I{PACKAGES}", f"-I{well_known}", f"--python_out={folder}", PROTO]):
            sys.exit(f"protoc refused {PROTO}; its message is above.")
        code = (Path(folder) / PROTO.replace(".proto", "_pb2.py")).read_text()
    version = tuple(map(int, re.search(r"Protobuf Python Version: (\d+)\.(\d+)\.(\d+)", code).groups()))
    if version > OLDEST_PROTOBUF:
        sys.exit(
            f"Generated code must run on protobuf {'.'.join(map(str, OLDEST_PROTOBUF))}: use grpcio-tools==1.75.1. "
            f"Received: a generator of protobuf {'.'.join(map(str, version))}"
        )
    TARGET.write_text(code)


if __name__ == "__main__":
    main()
