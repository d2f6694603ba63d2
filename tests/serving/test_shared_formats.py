"""keraslight.export and the server read the same folders and files, each with its own code: neither imports the other.

The tables state what both read alike. The tests named "only ..." record where they differ: the server copes with what
operators put into a folder and checks what it serves; the exporter reads a repository that may not be complete yet.
"""

import pytest
from keraslight_serving.server import StartError
from keraslight_serving.server.models.config import read_config_file
from keraslight_serving.server.models.folders import find_versions

from keraslight.errors import ExportError
from keraslight.export import list_versions, version_labels

# ---------------------------------------------------------------- version folders


def by_the_server(base):
    return sorted(find_versions(base))


@pytest.fixture
def base(tmp_path):
    """`base("1", "latest")` makes folders of these names and returns their parent."""

    def make(*names):
        for name in names:
            (tmp_path / name).mkdir()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("names", "versions"),
    [
        ([], []),
        (["1"], [1]),
        (["2", "10", "1"], [1, 2, 10]),
        (["0"], [0]),
        (["00000123"], [123]),
        ([str(2**63 - 1)], [2**63 - 1]),
        (["1", "latest", ".hidden", ".writing-2-abc", ".replaced-3"], [1]),
        (["-3", "1e3", "2.bak", " 4", "+5", "6_0", "0x7"], []),
        (["²", "Ⅷ", "½"], []),
    ],
    ids=repr,
)
def test_both_find_the_same_versions(base, names, versions):
    folder = base(*names)
    assert list_versions(folder) == by_the_server(folder) == versions


def test_both_ignore_files(base):
    folder = base("1")
    (folder / "2").write_bytes(b"a file")
    assert list_versions(folder) == by_the_server(folder) == [1]


def test_both_follow_links_to_folders(base, tmp_path_factory):
    folder = base("1")
    (folder / "2").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    (folder / "3").symlink_to(folder / "nowhere")
    assert list_versions(folder) == by_the_server(folder) == [1, 2]


def test_only_the_exporter_takes_a_missing_folder_for_one_without_versions(tmp_path):
    assert list_versions(tmp_path / "nowhere") == []
    with pytest.raises(FileNotFoundError):
        find_versions(tmp_path / "nowhere")


def test_only_the_exporter_lists_numbers_that_no_server_can_read(base):
    folder = base(str(2**63), "1")
    assert list_versions(folder) == [1, 2**63]
    assert by_the_server(folder) == [1]


def test_only_the_exporter_reads_decimal_digits_of_other_scripts(base):
    folder = base("٣", "1")
    assert list_versions(folder) == [1, 3]
    assert by_the_server(folder) == [1]


def test_only_the_exporter_lists_a_number_once_per_folder(base):
    folder = base("1", "01")
    assert list_versions(folder) == [1, 1]
    assert find_versions(folder) == {1: folder / "1"}


# ---------------------------------------------------------------- models.config


@pytest.fixture
def write(tmp_path):
    """`write(text)` writes models.config next to the folder of model `m`; returns both."""
    (tmp_path / "m").mkdir()

    def config(text):
        (tmp_path / "models.config").write_text(text, encoding="utf-8")
        return tmp_path / "models.config", tmp_path / "m"

    return config


def entry(more="", name="m", base_path="/models/m"):
    return f'config {{ name: "{name}" base_path: "{base_path}" model_platform: "tensorflow" {more} }}'


def label(name, version):
    return f'version_labels {{ key: "{name}" value: {version} }}'


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", {}),
        ("# nothing but a comment", {}),
        ("model_config_list {}", {}),
        (f"model_config_list {{ {entry()} }}", {}),
        (f"model_config_list {{ {entry(label('stable', 1))} }}", {"stable": 1}),
        (f"model_config_list {{ {entry(label('stable', 1) + label('canary', 2))} }}", {"stable": 1, "canary": 2}),
        (f"model_config_list {{ {entry(label('stable', 1) + label('stable', 2))} }}", {"stable": 2}),
        (f"model_config_list: {{ {entry(label('größe', 3))} }}  # one colon more", {"größe": 3}),
        (f"model_config_list {{ {entry(label('other', 4), 'n')} {entry(label('mine', 5))} }}", {"mine": 5}),
    ],
    ids=repr,
)
def test_both_read_the_same_labels(write, text, labels):
    file, folder = write(text)
    by_name = {config.name: dict(config.labels) for config in read_config_file(file)}
    assert version_labels(folder) == by_name.get("m", {}) == labels


@pytest.mark.parametrize(
    "text", ["model_config_list { config { nonsense: 1 } }", "model_config_list {", "[]", 'name: "m"'], ids=repr
)
def test_both_reject_what_is_not_a_config(write, text):
    file, folder = write(text)
    with pytest.raises(ExportError):
        version_labels(folder)
    with pytest.raises(StartError):
        read_config_file(file)


def test_only_the_exporter_does_without_a_config_file(tmp_path):
    assert version_labels(tmp_path / "m") == {}
    with pytest.raises(StartError):
        read_config_file(tmp_path / "models.config")


@pytest.mark.parametrize(
    "text",
    [
        f"model_config_list {{ {entry(label('stable', 1))} {entry()} }}",
        f"model_config_list {{ {entry(label('stable', 1), base_path='m')} }}",
        f"model_config_list {{ {entry(label('stable', 1), base_path='gs://bucket/m')} }}",
        f"model_config_list {{ {entry(label('stable', 1)).replace('tensorflow', 'onnx')} }}",
    ],
    ids=["a model twice", "a relative path", "a bucket", "another platform"],
)
def test_only_the_server_rejects_models_that_it_can_not_serve(write, text):
    file, folder = write(text)
    assert version_labels(folder) == {"stable": 1}
    with pytest.raises(StartError, match="Error: INVALID_ARGUMENT: "):
        read_config_file(file)
