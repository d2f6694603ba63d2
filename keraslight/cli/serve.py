"""`keraslight serve`: all models of a folder, over gRPC and REST."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from typer import Argument, Option

from keraslight.cli._common import Json, console, error_console, print_json
from keraslight.errors import InvalidArgumentError, MissingDependencyError

CONTAINER = "/models"  # where models.config expects the models: in TensorFlow Serving's container
POLL_SECONDS = 1


def serve(
    folder: Annotated[
        Path, Argument(help="Model repository, one of its models, or a single version.", metavar="[DIR]")
    ] = Path("savedmodels"),
    port: Annotated[int, Option(help="gRPC port; 0 picks a free one.", min=0, max=65535)] = 8500,
    rest_port: Annotated[int | None, Option(help="REST port.", show_default="no REST API", min=1, max=65535)] = None,
    host: Annotated[str, Option(help="Address to listen on; 0.0.0.0 for all interfaces.")] = "127.0.0.1",
    workers: Annotated[int, Option(help="Number of server processes sharing the port.", min=1)] = 1,
    engine: Annotated[
        str | None, Option(help="Inference engine: auto, litert or tensorflow.", show_default="auto")
    ] = None,
    grace: Annotated[float, Option(help="Grace period for requests in flight on shutdown, in seconds.", min=0)] = 5.0,
    as_json: Json = False,
) -> None:
    """Serve all models of a folder over gRPC and REST.

    If the folder has a models.config, it selects the models, versions and
    labels. Otherwise, the highest version of each model is served. New
    versions are loaded while the server runs. Press Ctrl-C to finish the
    requests in flight and exit.

    Examples:

      keraslight serve
      keraslight serve savedmodels/digits --port 9000 --workers 4

    For all settings, see `python -m keraslight_serving.server --help`.
    """
    try:
        from keraslight_serving.server import StartError
        from keraslight_serving.server.__main__ import main
        from keraslight_serving.server.models.config import read_config_file
    except ImportError as error:
        raise MissingDependencyError(f'`serve` needs {error.name}: pip install "keraslight[server]".') from error

    table, found = Table("model", "versions", "runs in", "folder"), []
    with _config_file(folder) as config:
        try:
            models = read_config_file(config)
        except StartError as error:
            raise InvalidArgumentError(str(error)) from error
        for model in models:
            versions = _versions(model.base_path)
            newest = _engines(versions[max(versions)], engine) if versions else ""
            table.add_row(model.name, " ".join(map(str, sorted(versions))), newest, str(model.base_path))
            entry = {"name": model.name, "versions": sorted(versions), "runs_in": newest, "folder": model.base_path}
            found.append(entry)
        if as_json:
            print_json(found)
        else:
            console.print(table)
        flags = {"model_config_file": config, "model_config_file_poll_wait_seconds": POLL_SECONDS, "workers": workers}
        flags |= {"host": host, "port": port, "rest_api_port": rest_port, "engine": engine, "grace_seconds": grace}
        code = main([f"--{name}={value}" for name, value in flags.items() if value is not None])
    raise typer.Exit(code)


def find_models(folder: Path) -> dict[str, Path]:
    """Finds the models of a repository, a single model, or one of its versions: name -> folder of its versions."""
    folder = folder.absolute()
    if folder in _versions(folder.parent).values():
        return {folder.parent.name: folder.parent}
    if _versions(folder):
        return {folder.name: folder}
    paths = sorted(folder.iterdir()) if folder.is_dir() else ()
    found = {path.name: path for path in paths if _holds_versions(path)}
    if not found:
        raise InvalidArgumentError(
            "A model must be a folder with a version folder that holds saved_model.pb or model.tflite, such as "
            f"{folder.name}/digits/1/saved_model.pb. Write one with: keraslight export RUN --to {folder.name}/digits. "
            f"Received: {folder}, which {'holds none' if folder.is_dir() else 'is not a folder'}."
        )
    return found


def _holds_versions(path: Path) -> bool:
    try:
        return path.is_dir() and bool(_versions(path))
    except OSError as error:  # such as `lost+found`, which belongs to root
        error_console.print(f"Skipping {path}: {error.strerror}")
        return False


def _versions(base: Path) -> dict[int, Path]:
    from keraslight_serving.server.models.folders import find_versions

    found = find_versions(base) if base.is_dir() else {}
    files = ("saved_model.pb", "model.tflite")
    return {number: path for number, path in found.items() if any((path / file).is_file() for file in files)}


def _engines(version: Path, engine: str | None) -> str:
    has_lite, has_saved = (version / "model.tflite").is_file(), (version / "saved_model.pb").is_file()
    if engine == "tensorflow" or not has_lite:
        return "TensorFlow"
    if engine == "litert" or not has_saved:
        return "LiteRT"
    return "LiteRT (model.tflite), TensorFlow (the other signatures)"


@contextlib.contextmanager
def _config_file(folder: Path) -> Iterator[Path]:
    """Writes a configuration file, and keeps it up to date with models.config or with the content of the folder."""
    text, stopping = _config(folder), threading.Event()
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "models.config"
        file.write_text(text, encoding="utf-8")

        def follow(text: str) -> None:
            while not stopping.wait(POLL_SECONDS):
                with contextlib.suppress(InvalidArgumentError, OSError):  # keep the current configuration
                    if (new := _config(folder)) != text:
                        file.with_suffix(".new").write_text(new, encoding="utf-8")
                        file.with_suffix(".new").replace(file)
                        text = new

        follower = threading.Thread(target=follow, args=(text,), daemon=True)
        follower.start()
        try:
            yield file
        finally:
            stopping.set()
            follower.join()


def _config(folder: Path) -> str:
    """The text of the folder's models.config with local paths, or a configuration for the models in the folder."""
    folder = folder.absolute()
    own = folder / "models.config"
    if own.is_file():

        def here(found: re.Match[str]) -> str:
            base = folder / found[2]
            return f'{found[1]}"{_escaped(base)}"' if base.is_dir() else found[0]

        return re.sub(rf'(\bbase_path\s*:\s*)"{CONTAINER}/([^"/]+)"', here, own.read_text(encoding="utf-8"))
    entries = "".join(
        f'  config {{ name: "{_escaped(name)}" base_path: "{_escaped(base)}" model_platform: "tensorflow" }}\n'
        for name, base in find_models(folder).items()
    )
    return f"model_config_list {{\n{entries}}}\n"


def _escaped(text: object) -> str:
    return str(text).replace("\\", "\\\\").replace('"', '\\"')
