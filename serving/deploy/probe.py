"""Checks the health of a server by grpc.health.v1: `python probe.py HOST:PORT [SERVICE]`. Exits with 0 if it serves."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 3


def main(address: str, service: str = "") -> int:
    """Prints the status and returns 0 for SERVING, otherwise 1."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS).status
            answer = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
        except grpc.RpcError as error:
            answer = f"{error.code().name}: {error.details()}"
    sys.stdout.write(f"{answer}\n")
    return 0 if answer == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
