"""Decoded images on the disk: the same values as without, written once, and never when stale or half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from keraslight.preprocessing import Preprocessing
from keraslight.training import Augmentation, _data, _decoded, load_directory, load_table

SPEC = Preprocessing(size=(10, 10), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for index in range(6):
            pixels = random.integers(0, 256, (14 + index, 20, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{index}.png")
    (tmp_path / "photos" / "dog" / "3.png").write_bytes(b"broken")
    return tmp_path / "photos"


@pytest.fixture
def decodings(monkeypatch):
    """How many times files were decoded."""
    calls = []
    decode = _decoded._decode
    monkeypatch.setattr(_decoded, "_decode", lambda *a: calls.append(len(a[0])) or decode(*a))
    return calls


def batches(data):
    epochs = data.train(4, Augmentation(shift=0.1), 3, epochs=2)
    return [part.numpy() for batch in [*epochs, *data.validation(4)] for part in batch]


def test_the_same_values_as_without_written_once(photos, tmp_path, decodings):
    plain = load_directory(photos, SPEC)
    first, second = (load_directory(photos, SPEC, cache=tmp_path / "cache") for _ in range(2))
    assert decodings == [12, 12]
    for cached in (first, second):
        assert isinstance(cached.pixels, np.memmap)
        np.testing.assert_array_equal(cached.pixels, plain.pixels)
        for a, b in zip(batches(cached), batches(plain), strict=True):
            np.testing.assert_array_equal(a, b)
        assert cached.files == plain.files
        assert cached.unreadable == plain.unreadable
        np.testing.assert_array_equal(cached.sizes, plain.sizes)
        np.testing.assert_array_equal(cached.validation_arrays()[0], plain.validation_arrays()[0])
        assert cached.fingerprint() == plain.fingerprint()  # so that a run resumes with and without
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_large_cache_is_known_by_its_files(photos, tmp_path, monkeypatch):
    cached = load_directory(photos, SPEC, cache=tmp_path / "cache")
    whole = cached.fingerprint()
    monkeypatch.setattr(_data, "MEMORY_LIMIT_BYTES", 100)
    assert cached.fingerprint() != whole


def change_size(photos):
    PIL.Image.new("RGB", (5, 5)).save(photos / "cat" / "0.png")


def change_time(photos):
    os.utime(photos / "cat" / "0.png", (1, 1))


def rename(photos):
    (photos / "cat" / "0.png").rename(photos / "cat" / "00.png")


def add(photos):
    PIL.Image.new("RGB", (5, 5)).save(photos / "cat" / "9.png")


@pytest.mark.parametrize("change", [change_size, change_time, rename, add])
def test_a_stale_cache_is_not_used(photos, tmp_path, decodings, change):
    load_directory(photos, SPEC, cache=tmp_path / "cache")
    change(photos)
    cached = load_directory(photos, SPEC, cache=tmp_path / "cache")
    assert len(decodings) == 2
    np.testing.assert_array_equal(cached.pixels, load_directory(photos, SPEC).pixels)


def test_other_preprocessing_has_its_own_cache_and_normalization_does_not_matter(photos, tmp_path, decodings):
    for spec in (SPEC, SPEC.replace(mean=(0.1,) * 3), SPEC.replace(crop_mode="squash"), SPEC.with_channels(1)):
        cached = load_directory(photos, spec, cache=tmp_path / "cache")
        assert cached.pixels.shape[-1] == spec.channels
    assert len(decodings) == 3


@pytest.mark.parametrize("name", ["pixels.bin", "index.npz"])
@pytest.mark.parametrize("cut", [1, 10_000])
def test_a_damaged_cache_is_written_again(photos, tmp_path, decodings, caplog, name, cut):
    load_directory(photos, SPEC, cache=tmp_path / "cache")
    (place,) = (tmp_path / "cache").iterdir()
    content = (place / name).read_bytes()
    (place / name).write_bytes(content[:-cut])
    cached = load_directory(photos, SPEC, cache=tmp_path / "cache")
    assert len(decodings) == 2
    assert "Decoding the images again" in caplog.text
    np.testing.assert_array_equal(cached.pixels, load_directory(photos, SPEC).pixels)


def test_a_failed_write_leaves_nothing_behind(photos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_decoded.np, "savez", lambda *a, **b: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            load_directory(photos, SPEC, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_neither_used_nor_kept(photos, tmp_path, decodings):
    cache = tmp_path / "cache"
    load_directory(photos, SPEC, cache=cache)
    (place,) = cache.iterdir()
    for age, number in ((0, 1), (7200, 2)):
        left = cache / f".{number}.{place.name}"
        left.mkdir()
        (left / "pixels.bin").write_bytes(b"\0" * 1000)
        os.utime(left / "pixels.bin", (left.stat().st_mtime - age,) * 2)
    (place / "index.npz").unlink()
    load_directory(photos, SPEC, cache=cache)
    assert len(decodings) == 2
    # The younger one may belong to a process that is still writing.
    assert sorted(entry.name for entry in cache.iterdir()) == sorted([f".1.{place.name}", place.name])


EPOCHS = """
import sys
from pathlib import Path

import numpy as np

from keraslight.preprocessing import Preprocessing
from keraslight.training import ImageData

shape = (8192, 48, 48, 3)  # 57 MB
np.memmap(sys.argv[1], np.uint8, "w+", shape=shape).flush()
spec = Preprocessing(size=(48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)
data = ImageData.from_arrays(np.memmap(sys.argv[1], np.uint8, "r", shape=shape), np.arange(8192) % 2, "ab", spec)
assert isinstance(data.pixels, np.memmap)


def used():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
    return int(line.split()[1]) / 1024


for _ in data.train(64).take(8):  # TensorFlow's own
    pass
print(used())
for epoch in range(6):
    for _ in data.train(64, first_epoch=epoch):
        pass
    print(used())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_large_cache_is_read_from_the_disk_and_memory_stays_flat_over_epochs(tmp_path):
    command = [sys.executable, "-c", EPOCHS, str(tmp_path / "pixels")]  # of its own: others' threads take memory, too
    environment = os.environ | {"MALLOC_ARENA_MAX": "2"}  # what threads keep for themselves changes by 40 MB otherwise
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    start, *after = map(float, done.stdout.split())
    assert len(after) == 6
    assert min(after[:3]) - start < 40
    assert min(after[3:]) - min(after[:3]) < 20  # the least, because batches that wait for their turn come and go


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_no_cache_that_is_used(photos, tmp_path):
    code = (
        "import sys; from keraslight import Preprocessing; from keraslight.training import load_directory\n"
        "spec = Preprocessing(size=(10, 10), mean=(0.5,) * 3, std=(0.5,) * 3)\n"
        "print('ready', flush=True); load_directory(sys.argv[1], spec, cache=sys.argv[2])"
    )
    wanted = load_directory(photos, SPEC)
    for delay in (0.05, 0.15, 0.3, 0.6):
        process = subprocess.Popen(
            [sys.executable, "-c", code, photos, tmp_path / "cache"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout.readline() == b"ready\n"
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        cached = load_directory(photos, SPEC, cache=tmp_path / "cache")
        np.testing.assert_array_equal(cached.pixels, wanted.pixels)
        (place,) = (entry for entry in (tmp_path / "cache").iterdir() if not entry.name.startswith("."))
        (place / "index.npz").unlink()


def test_a_cache_must_not_become_a_class(photos):
    with pytest.raises(
        ValueError, match="`cache` must be outside of the folder of images, or hidden.*Received: .*/cache"
    ):
        load_directory(photos, SPEC, cache=photos / "cache")
    assert load_directory(photos, SPEC, cache=photos / ".cache").labels == ("cat", "dog")
    assert load_directory(photos, SPEC, cache=photos / ".cache").labels == ("cat", "dog")


def test_tables_are_cached_too(photos, tmp_path, decodings):
    rows = [f"photos/{label}/{index}.png,{label}" for label in ("cat", "dog") for index in range(6)]
    (tmp_path / "list.csv").write_text("\n".join(["file,label", *rows]))
    first, second = (load_table(tmp_path / "list.csv", SPEC, cache=tmp_path / "cache") for _ in range(2))
    assert len(decodings) == 1
    np.testing.assert_array_equal(first.pixels, second.pixels)
