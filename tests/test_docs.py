"""The generated pages in docs/ are up to date and complete."""

import importlib.util
from pathlib import Path

import pytest

from keraslight import blocks, layers

DOCS = Path(__file__).parent.parent / "docs"
spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("file", generate.PAGES)
def test_generated_pages_are_up_to_date(file):
    assert (DOCS / file).read_text(encoding="utf-8") == generate.PAGES[file](), "run `make docs`"


def test_the_picture_of_the_demo_is_small():
    assert (DOCS / "images" / "demo.png").stat().st_size < 200_000


def test_every_public_layer_and_block_is_on_the_page():
    documented = [name for entries in generate.VOCABULARY.values() for name in entries]
    public = [*layers.__all__, *blocks.__all__]
    assert sorted([*documented, *generate.HELPERS, *generate.STYLES]) == sorted(public)
    page = generate.blocks_page()
    assert "### cbam\n\nConvolutional block attention module" in page
    assert '`cbam(x, squeezed=2, name="it")`: 14x14x32 -> 14x14x32, 228 parameters, 19,464 multiply-adds.' in page
    assert "Args:" not in page
