"""`keraslight serve`: every model of a folder, over gRPC and REST."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

console = Console()

# Where models.config says that the models are: in TensorFlow Serving's container.
CONTAINER = "/models"

POLL_SECONDS = 1


def serve(
    folder: Annotated[Path, typer.Argument(help="A model repository, one model, or one version of it.",
                                           metavar="[DIR]")] = Path("savedmodels"),
    port: Annotated[int, typer.Option(help="gRPC port; 0 picks a free one.", min=0, max=65535)] = 8500,
    rest_port: Annotated[int | None, typer.Option(help="Port of the REST API. [default: there is none]",
                                                  show_default=False, min=1, max=65535)] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(help="Processes that share the port.", min=1)] = 1,
    engine: Annotated[str | None, typer.Option(help="auto, litert or tensorflow. [default: auto]",
                                               show_default=False)] = None,
    grace: Annotated[float, typer.Option(help="Seconds for requests in flight after Ctrl-C.", min=0)] = 5.0,
) -> None:  # fmt: skip
    """Serve all models of a folder; Ctrl-C lets the requests in flight finish, and ends.

    With models.config in the folder, the models, versions and labels are the ones that it names; without, each folder
    with version folders is a model, and its highest version is served. New versions are taken up while it runs.

      keraslight serve
      keraslight serve savedmodels/digits --port 9000 --workers 4

    `python -m keraslight_serving.server --help` lists everything that can be set.
    """
    from keraslight.errors import InvalidArgumentError, MissingDependencyError

    try:
        from keraslight_serving.server import StartError
        from keraslight_serving.server.__main__ import main
        from keraslight_serving.server.models.config import read_config_file
    except ImportError as error:
        raise MissingDependencyError(f'`serve` needs {error.name}: pip install "keraslight[server]".') from error

    table = Table("model", "versions", "runs in", "folder")
    with _config_file(folder) as config:
        try:
            models = read_config_file(config)
        except StartError as error:
            raise InvalidArgumentError(str(error)) from error
        for model in models:
            versions = _versions(model.base_path)
            newest = _engines(versions[max(versions)], engine) if versions else ""
            table.add_row(model.name, " ".join(map(str, sorted(versions))), newest, str(model.base_path))
        console.print(table)
        flags = {
            "model_config_file": config,
            "model_config_file_poll_wait_seconds": POLL_SECONDS,
            "port": port,
            "host": host,
            "workers": workers,
            "grace_seconds": grace,
            "rest_api_port": rest_port,
            "engine": engine,
        }
        code = main([f"--{name}={value}" for name, value in flags.items() if value is not None])
    raise typer.Exit(code)


def find_models(folder: Path) -> dict[str, Path]:
    """The models of a repository, or the one that `folder` is, or is a version of: name -> the folder of its versions.

    Raises:
        InvalidArgumentError: there is none.
    """
    from keraslight.errors import InvalidArgumentError

    folder = folder.absolute()
    if _is_version(folder):
        return {folder.parent.name: folder.parent}
    if _versions(folder):
        return {folder.name: folder}
    found = {}
    if folder.is_dir():
        found = {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and _versions(path)}
    if not found:
        raise InvalidArgumentError(
            "A model must be a folder with a version folder that holds saved_model.pb or model.tflite, such as "
            f"{folder.name}/digits/1/saved_model.pb. Write one with: keraslight export RUN --to {folder.name}/digits. "
            f"Received: {folder}, which {'holds none' if folder.is_dir() else 'is no folder'}."
        )
    return found


def _is_version(folder: Path) -> bool:
    files = ("saved_model.pb", "model.tflite")
    return re.fullmatch("[0-9]+", folder.name) is not None and any((folder / file).is_file() for file in files)


def _versions(base: Path) -> dict[int, Path]:
    if not base.is_dir():
        return {}
    return {int(path.name): path for path in base.iterdir() if _is_version(path)}


def _engines(version: Path, engine: str | None) -> str:
    has_lite, has_saved = (version / "model.tflite").is_file(), (version / "saved_model.pb").is_file()
    if engine == "tensorflow" or not has_lite:
        return "TensorFlow"
    if engine == "litert" or not has_saved:
        return "LiteRT"
    return "LiteRT (model.tflite), TensorFlow (the other signatures)"


@contextlib.contextmanager
def _config_file(folder: Path) -> Iterator[Path]:
    """A file with the configuration, kept up to date with models.config, or with what is in the folder.

    Raises:
        InvalidArgumentError: there is no model.
    """
    from keraslight.errors import InvalidArgumentError

    text, stopping = _config(folder), threading.Event()
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "models.config"
        file.write_text(text, encoding="utf-8")

        def follow(text: str) -> None:
            while not stopping.wait(POLL_SECONDS):
                with contextlib.suppress(InvalidArgumentError, OSError):  # what is served stays
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
    """The folder's models.config, with the folder in the place of the container's; or one for what is in the folder."""
    folder = folder.absolute()
    own = folder / "models.config"
    if own.is_file():

        def here(found: re.Match) -> str:
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
