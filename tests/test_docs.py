import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("file", generate.PAGES)
def test_generated_pages_are_up_to_date(file):
    assert (DOCS / file).read_text(encoding="utf-8") == generate.PAGES[file](), "run `make docs`"
