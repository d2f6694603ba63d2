"""The files of serving/deploy: they parse, name what exists, and ask for metrics that there are."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from keraslight_serving.server import ModelServer
from keraslight_serving.server._flags import IGNORED
from keraslight_serving.server.rpc.server import parse_channel_arguments
from keraslight_serving.server.settings import OURS, TENSORFLOW_SERVING, flags
from keraslight_serving.server.telemetry.metrics import DEFAULT_PATH, METRICS

DEPLOY = Path(__file__).parents[2] / "serving" / "deploy"
DASHBOARD = DEPLOY / "grafana" / "model-serving.json"
YAML = sorted(path.relative_to(DEPLOY) for path in DEPLOY.rglob("*.yaml"))
THEIRS = "tensorflow/serving:2.20.0"
IMAGE = "keraslight-server"

FLAGS = {flag.name for flag in flags(TENSORFLOW_SERVING)} | set(IGNORED)
OUR_FLAGS = {flag.name for group in (TENSORFLOW_SERVING, OURS) for flag in flags(group)}  # none that is ignored


def read(name):
    return [part for part in yaml.safe_load_all((DEPLOY / name).read_text()) if part is not None]


def containers():
    """(file, container) of every server container."""
    for name in ("compose.tensorflow-serving.yaml", "compose.keraslight.yaml"):
        server = read(name)[0]["services"]["server"]
        yield name, {"image": server["image"], "args": server["command"]}
    for path in YAML:
        for part in read(path):
            spec = part.get("spec", {})
            spec = spec.get("template", {}).get("spec", spec)
            for container in spec.get("containers", ()):
                yield str(path), container


def test_everything_is_here():
    assert [str(path) for path in YAML] == [
        "compose.keraslight.yaml",
        "compose.tensorflow-serving.yaml",
        "grafana/provisioning/dashboards/files.yaml",
        "grafana/provisioning/datasources/prometheus.yaml",
        "kserve/keraslight.yaml",
        "kserve/tensorflow-serving.yaml",
        "kubernetes/keraslight.yaml",
        "kubernetes/tensorflow-serving.yaml",
        "prometheus.yaml",
    ]
    assert [(name, found["image"]) for name, found in containers()] == [
        ("compose.tensorflow-serving.yaml", THEIRS),
        ("compose.keraslight.yaml", IMAGE),
        ("kserve/keraslight.yaml", IMAGE),
        ("kserve/tensorflow-serving.yaml", THEIRS),
        ("kubernetes/keraslight.yaml", IMAGE),
        ("kubernetes/tensorflow-serving.yaml", THEIRS),
    ]


@pytest.mark.parametrize(
    ("name", "container"), list(containers()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_flags(name, container):
    known = OUR_FLAGS if container["image"] == IMAGE else FLAGS
    for argument in container["args"]:
        flag = re.fullmatch(r"--([a-z_]+)(=\S+)?", argument)[1]
        assert flag in known, argument
    if container["image"] == IMAGE:
        assert "--host=0.0.0.0" in container["args"]  # else nobody outside the container reaches it


@pytest.mark.parametrize("name", ["kubernetes/keraslight.yaml", "kubernetes/tensorflow-serving.yaml"])
def test_kubernetes(name):
    deployment, service = read(name)
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "http": 8501}
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == 8500
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == DEFAULT_PATH
    assert annotations["prometheus.io/port"] == "8501"
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = [int(argument.split("=")[1]) for argument in container["args"] if "--grace_seconds" in argument]
    assert pod["spec"]["terminationGracePeriodSeconds"] > sleep + sum(grace)
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


@pytest.mark.parametrize("name", ["kserve/keraslight.yaml", "kserve/tensorflow-serving.yaml"])
def test_kserve(name):
    runtime, service = read(name)
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    formats = [(entry["name"], entry["version"]) for entry in runtime["spec"]["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    arguments = runtime["spec"]["containers"][0]["args"]
    assert f"--port={model['ports'][0]['containerPort']}" in arguments
    assert "--rest_api_port=8080" in arguments  # where KServe sends REST to


@pytest.mark.parametrize("name", ["compose.keraslight.yaml", "compose.tensorflow-serving.yaml"])
def test_compose_mounts_what_exists(name):
    for service in read(name)[0]["services"].values():
        for volume in service["volumes"]:
            assert (DEPLOY / volume.split(":")[0]).exists(), volume
        if "build" in service:
            root = DEPLOY / service["build"]["context"]
            assert (root / service["build"]["dockerfile"]).is_file()


def test_the_image_copies_what_exists():
    text = (DEPLOY / "Dockerfile").read_text()
    assert "cp serving/deploy/probe.py" in text
    assert 'ENTRYPOINT ["python", "-m", "keraslight_serving.server"]' in text
    assert (DEPLOY / "probe.py").is_file()
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for name in (line[1:] for line in sent if line.startswith("!")):
        assert (DEPLOY.parents[1] / name).exists(), name


def test_prometheus_asks_where_the_metrics_are():
    (job,) = read("prometheus.yaml")[0]["scrape_configs"]
    assert job["metrics_path"] == DEFAULT_PATH
    assert job["static_configs"] == [{"targets": ["server:8501"]}]


def expressions(panel):
    return [target["expr"] for target in panel["targets"]]


def test_the_dashboard_asks_for_metrics_that_there_are():
    dashboard = json.loads(DASHBOARD.read_text())
    shown = set()
    queries = [query for panel in dashboard["panels"] for query in expressions(panel)]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]
    for query in queries:
        for name in re.findall(r":[a-z_]+:serving:[a-z_:]+", query):
            base = name
            for suffix in ("_bucket", "_sum", "_count"):
                if name.removesuffix(suffix) in METRICS and METRICS[name.removesuffix(suffix)].bounds:
                    base = name.removesuffix(suffix)
            assert base in METRICS, name
            # a histogram has no series of its own name, a counter no others
            assert (base != name) == bool(METRICS[base].bounds), name
            shown.add(base)
    assert shown == set(METRICS)  # and all of them


def test_the_dashboard_asks_for_labels_that_there_are():
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for query, target in zip(expressions(panel), panel["targets"], strict=True):
            names = re.findall(r"(:[a-z_]+:serving:[a-z_:]+?)(?:_bucket|_sum|_count)?[\[{)]", query)
            known = {"le"}
            for name in names:
                metric = METRICS.get(name) or METRICS[name + "_count"]
                known.update(metric.labels)
            for labels in re.findall(r"by \(([^)]*)\)", query):
                assert set(labels.split(", ")) <= known, query
            for labels in re.findall(r"{([^}]+)}", query):
                assert {label.split("=")[0].rstrip("!") for label in labels.split(",")} <= known, query
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= known, target


def test_the_dashboard_can_be_loaded():
    dashboard = json.loads(DASHBOARD.read_text())
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")[0]["datasources"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == source["uid"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    (provider,) = read("grafana/provisioning/dashboards/files.yaml")[0]["providers"]
    for name in ("compose.keraslight.yaml", "compose.tensorflow-serving.yaml"):
        volumes = read(name)[0]["services"]["grafana"]["volumes"]
        assert f"./grafana:{provider['options']['path']}:ro" in volumes


def test_the_probe(publish):
    def probe(*arguments):
        command = [sys.executable, DEPLOY / "probe.py", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.strip()

    with ModelServer("tiny", publish(1)) as server:
        address = server.address
        assert probe(address) == (0, "SERVING")
        assert probe(address, "tiny") == (0, "SERVING")
        code, text = probe(address, "other")
        assert code == 1
        assert text.startswith("NOT_FOUND")
    code, text = probe(address)
    assert code == 1
    assert text.startswith("UNAVAILABLE")


def test_the_readme_names_every_file():
    text = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.rglob("*"):
        if (
            path.is_file()
            and path.suffix in (".yaml", ".json", ".py", "", ".dockerignore")
            and "provisioning" not in path.parts
        ):
            name = str(path.relative_to(DEPLOY))
            assert name in text or f"{path.parent.name}/*.yaml" in text, name


@pytest.mark.parametrize("name", ["kubernetes/keraslight.yaml", "kubernetes/tensorflow-serving.yaml"])
def test_clients_of_headless_services_notice_new_pods(name):
    """gRPC looks a name up again only when a connection ends."""
    (service,) = (part for part in read(name) if part["kind"] == "Service")
    assert service["spec"]["clusterIP"] == "None"
    (args,) = (container["args"] for file, container in containers() if file == name)
    arguments = next(arg for arg in args if arg.startswith("--grpc_channel_arguments=")).partition("=")[2]
    parsed = parse_channel_arguments(arguments)
    assert 0 < parsed["grpc.max_connection_age_ms"] <= 600_000
    assert parsed["grpc.max_connection_age_grace_ms"] >= 10_000
