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
    folders: list[str]  # of the parts, as errors and messages call them; empty without parts
    ignored: list[str]  # next to the classes


def find_classes(root: pathlib.Path, held_out: pathlib.Path | None = None, *, test: bool = False) -> Classes:
    """Finds the classes of a folder, with or without train/ and val/; the images to hold out may be in another one.

    With `test`, the second part are the images of test/, next to train/ and val/; without all three there are no parts.

    Raises:
        DataError: There are fewer than two classes, the parts have other classes, or a name can't be a label.
        InvalidArgumentError: There is both `held_out` and a folder for validation in `root`.
    """
    folders, ignored = _entries(root)
    train, validation, unused = _part_folders(root, folders)
    if test:
        if train is None or unused is None:
            return Classes([], [], [], [])
        validation, unused = unused, validation
    if train is None or validation is None:
        labels = _labels(root, folders)
        found = Classes(labels, [_members(root, labels, root)], [], ignored)
        if held_out is not None:
            _add_part(found, f"{root}/", held_out, f"{held_out}/", held_out.parent)
        return found
    if held_out is not None:
        raise InvalidArgumentError(
            f"`validation` is for a folder without images to hold out. Received: {held_out} for {root}, which has "
            f"{train}/ and {validation}/."
        )
    ignored += [f"{folder}/" for folder in folders if folder not in (train, validation, unused)]
    classes, beside = _entries(root / train)
    labels = _labels(root / train, classes)
    ignored += [f"{train}/{entry}" for entry in beside]
    found = Classes(labels, [_members(root / train, labels, root)], [], ignored)
    _add_part(found, f"{train}/", root / validation, f"{validation}/", root)
    return found


def _part_folders(root: pathlib.Path, folders: list[str]) -> tuple[str | None, str | None, str | None]:
    """The folders of training, of held-out and of further test images, if `root` is divided into parts."""
    by_name = {folder.lower(): folder for folder in folders}
    train, validation, test = (
        next((by_name[name] for name in names if name in by_name), None) for names in (TRAIN, VALIDATION, TEST)
    )
    if train is None or not _entries(root / train)[0]:
        return None, None, None
    # Without a folder for validation, the test images are those held out.
    return train, validation or test, test if validation else None


def _add_part(found: Classes, train: str, folder: pathlib.Path, name: str, root: pathlib.Path) -> None:
    """Adds the images of `folder` as those to hold out; what else is in it is named by its path from `root`."""
    classes, beside = _entries(folder)
    if classes != found.labels:
        first, second = set(found.labels), set(classes)
        raise DataError(
            f"{train} and {name} must have the same class folders. Received: {root}, where only {train} has "
            f"{sorted(first - second)} and only {name} has {sorted(second - first)}."
        )
    found.ignored += [str((folder / entry).relative_to(root)) + "/" * entry.endswith("/") for entry in beside]
    found.parts.append(_members(folder, found.labels, root))
    found.folders = [train, name]


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
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        return f"{error.strerror}."
    known = image_format(head)
    if known in DECODED:
        return None
    if known is not None:
        return f"{known} files are not supported; convert it to PNG or JPEG."
    if file.suffix.lower() not in SUFFIXES:
        return ""
    return None if head else "The file is empty."


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
