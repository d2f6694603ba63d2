"""Folders of images as people have them: nested, unpacked from archives, or divided into train/ and val/.

Which files are images is decided by their first bytes, or else by their suffix; see `keraslight._image_files`.
"""

import dataclasses
import os
import pathlib

from keraslight._image_files import DECODED, HEAD_BYTES, SUFFIXES, image_format
from keraslight.errors import DataError, InvalidArgumentError
from keraslight.labels import check_labels

TRAIN, VALIDATION, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")

# Of archives, network drives, caches and trash; hidden folders aren't read either.
_NOT_DATA = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"})


@dataclasses.dataclass
class Found:
    """Image files, and all else that was found, as paths relative to a folder."""

    files: list[str] = dataclasses.field(default_factory=list)  # absolute or as the folder was given
    unsupported: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # image files, with the reason
    ignored: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Classes:
    """The classes of a data set: their names, and what was found for each part, `train` and possibly `validation`."""

    labels: list[str]
    parts: list[list[Found]]  # for each part, by class
    names: list[str]  # of the parts' folders; empty without parts
    ignored: list[str]  # next to the classes


def find_classes(root: pathlib.Path) -> Classes:
    """Finds the classes of a folder, with or without train/ and val/.

    Raises:
        DataError: There are fewer than two classes, the parts have other classes, or a name can't be a label.
    """
    folders, ignored = _entries(root)
    by_name = {folder.lower(): folder for folder in folders}
    train, validation, test = (
        next((by_name[name] for name in names if name in by_name), None) for names in (TRAIN, VALIDATION, TEST)
    )
    held_out = validation or test  # without a folder for validation, the test images are those held out
    if train is None or held_out is None or not _entries(root / train)[0]:
        labels = _labels(root, folders)
        return Classes(labels, [_members(root, labels, root)], [], ignored)
    names, parts = [train, held_out], []
    ignored += [f"{folder}/" for folder in folders if folder not in names]
    found = [_entries(root / name) for name in names]
    labels = _labels(root / train, found[0][0])
    if found[0][0] != found[1][0]:
        first, second = set(found[0][0]), set(found[1][0])
        raise DataError(
            f"{train}/ and {held_out}/ must have the same class folders. Received: {root}, where only {train}/ has "
            f"{sorted(first - second)} and only {held_out}/ has {sorted(second - first)}."
        )
    for name, (_, beside) in zip(names, found, strict=True):
        ignored += [f"{name}/{entry}" for entry in beside]
        parts.append(_members(root / name, labels, root))
    return Classes(labels, parts, names, ignored)


def find_images(folder: pathlib.Path, root: pathlib.Path) -> Found:
    """Finds the image files in a folder and in those within it, sorted, with paths relative to `root` for the rest."""
    found, seen = Found(), {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = pathlib.Path(parent)
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(here / name)
            if _is_data(name) and real not in seen:  # a link to a folder above would never end
                kept.append(name)
                seen.add(real)
            else:
                found.ignored.append(f"{(here / name).relative_to(root)}/")
        folders[:] = kept
        for name in files:
            file = here / name
            reason = None if name.startswith(".") or not file.is_file() else unsupported(file)
            if name.startswith(".") or reason == "":
                found.ignored.append(str(file.relative_to(root)))
            elif reason is None and file.is_file():
                found.files.append(str(file))
            else:
                found.unsupported.append((str(file), reason or "It is not a file."))
    found.files.sort()
    return found


def unsupported(file: pathlib.Path) -> str | None:
    """Why a file can't be decoded: None if it may be, and an empty text if it isn't an image."""
    try:
        with file.open("rb") as stream:
            known = image_format(stream.read(HEAD_BYTES))
    except OSError as error:
        return f"{error.strerror}."
    if known in DECODED:
        return None
    if known is not None:
        return f"{known} files are not supported; convert it to PNG or JPEG."
    return None if file.suffix.lower() in SUFFIXES else ""


def _entries(root: pathlib.Path) -> tuple[list[str], list[str]]:
    """Names of the folders that may be classes, sorted, and of all else, where folders end in a slash."""
    folders, others = [], []
    for entry in sorted(root.iterdir()):
        if entry.is_dir() and _is_data(entry.name):
            folders.append(entry.name)
        else:
            others.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    return folders, others


def _is_data(folder: str) -> bool:
    return not folder.startswith(".") and folder.lower() not in _NOT_DATA


def _labels(root: pathlib.Path, folders: list[str]) -> list[str]:
    if len(folders) < 2:
        inner = [name for folder in folders for name in _entries(root / folder)[0]]
        hint = f" If its folders are the classes, pass {root / folders[0]}." if len(inner) > 1 else ""
        raise DataError(
            f"The data must be a folder with at least two class folders. Received: {root} with {len(folders)}, "
            f"{folders}.{hint}"
        )
    try:
        return check_labels(folders)
    except InvalidArgumentError as error:
        raise DataError(f"The names of class folders are the labels. In {root}, {error}") from error


def _members(parent: pathlib.Path, labels: list[str], root: pathlib.Path) -> list[Found]:
    return [find_images(parent / label, root) for label in labels]
