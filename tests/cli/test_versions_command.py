"""`keraslight versions` as a user types it."""

import json

import pytest

from keraslight.errors import InvalidArgumentError
from keraslight.export._repository import update_config
from keraslight.export._versions import INFO, atomic_version


@pytest.fixture
def repository(tmp_path):
    """Three versions of `digits`, of which the last was not written by keraslight."""
    path = tmp_path / "savedmodels" / "digits"
    for number, accuracy in ((1, 0.9), (2, 0.925), (5, None)):
        with atomic_version(path, number, overwrite=False) as folder:
            (folder / "saved_model.pb").write_bytes(bytes(1_500_000))
            if accuracy is not None:
                (folder / INFO).parent.mkdir()
                info = {"model": "lenet", "dtype": "float32", "weights_sha256": "abcdef0123456789"}
                (folder / INFO).write_text(json.dumps({**info, "metrics": {"accuracy": accuracy}}))
    update_config(path)
    return path.parent


def rows(text):
    return {line.split("│")[1].strip(): line for line in text.splitlines() if line.startswith("│")}


def test_a_servable_is_a_name_or_a_folder(run, repository):
    assert run("versions", "digits", "--repository", repository) == run("versions", repository / "digits")


def test_lists_and_compares(run, repository):
    found = rows(run("versions", repository / "digits"))
    assert set(found) == {"1", "2", "5"}
    for text in ("lenet float32", "abcdef012345 ", "1.50", " 0.9 "):
        assert text in found["1"]
    assert "0.925 (+0.025)" in found["2"]


def test_labels_and_prunes(run, repository):
    digits = repository / "digits"
    found = rows(run("versions", digits, "--label", "stable=1", "--label", "canary=5"))
    assert "stable" in found["1"]
    assert "canary" in found["5"]
    text = run("versions", digits, "--prune", 1)
    assert "Removed: 2." in text
    assert set(rows(text)) == {"1", "5"}
    assert "Removed: 1." in run("versions", digits, "--label", "stable=", "--prune", 1)
    assert "stable" not in (repository / "models.config").read_text()
    assert "Removed: none." in run("versions", digits, "--prune", 1)


def test_a_folder_without_versions(run, repository):
    with pytest.raises(InvalidArgumentError, match=r"must hold versions. Received: .*letters, which has none"):
        run("versions", "letters", "--repository", repository)


@pytest.mark.parametrize("text", ["stable", "stable=new"])
def test_labels_need_a_version(run, repository, text):
    with pytest.raises(InvalidArgumentError, match=f"must be LABEL=VERSION or LABEL=. Received: '{text}'"):
        run("versions", repository / "digits", "--label", text)


def test_json_has_the_versions_and_their_labels(run, repository):
    found = json.loads(run("versions", repository / "digits", "--label", "stable=2", "--json"))
    assert [(each["version"], each["labels"]) for each in found] == [(1, []), (2, ["stable"]), (5, [])]
    assert found[1]["info"]["metrics"] == {"accuracy": 0.925}
    assert found[2]["info"] == {}
