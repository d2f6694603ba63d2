"""Looks for phrases that native technical English doesn't use, in pages, docstrings, comments, help and error texts.

A phrase that is right where it stands goes into `ALLOWED`, with the reason.
"""

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PAGES = (
    "*.md",
    "docs/*.md",
    "savedmodels/*.md",
    "serving/deploy/*.md",
    "tests/golden/*.md",
    "Makefile",
    "pyproject.toml",
)
CODE = ("keraslight", "serving", "docs", "benchmarks", "examples")

_UNIT = (
    "second|minute|request|call|class|step|epoch|batch|image|label|line|layer|model|family|folder|file|pair|process|CPU|"
    "worker|server|channel|pixel|version|name|digit|row|field|weight|image|task|signature"
)
_PREPOSITION = r"(?:as|at|by|for|from|in|is|of|on|or|and|to|with|that|has)\b"
_COUNTED = "answers|requests|images|calls|steps|examples|bytes|times|runs|tokens"

# (what it looks for, what to write instead)
PHRASES = [
    (rf"\b(?:an?|one|\d+) (?!{_PREPOSITION})\w+ an? (?:{_UNIT})\b(?! (?:of|that|which)\b)", "one X per Y"),
    (rf"\bone an? (?:{_UNIT})\b", "one per Y, one for each Y"),
    (rf"\b(?:{_COUNTED}) an? (?:second|minute|hour|step|class)\b", "X per Y"),
    (r"(?<!there )\b(?:is|are|was|were) no "
     r"(?:file|folder|directory|image|model|number|integer|block|layer|path|list|picture)\b", "is not a X"),
    (r"\bwhich (?:is|are) no (?!longer|more|less|faster|slower|larger|smaller|fewer)\w+", "which is not a X"),
    (r"\b(?:go|goes|going|went) on\b", "continues, resumes"),
    (r"\bturn by turn\b", "in turn, round-robins over"),
    (r"\bin turns\b", "alternately"),
    (r"\bbeside\b", "next to, besides, along with"),
    (r"\bmend(?:s|ed|ing)?\b", "fixes"),
    (r"\banew\b", "again, over"),
    (r"\b(?:take|takes|taking|took|taken) (?:\w+ ){0,3}?away\b", "removes"),
    (r"\bin spite of\b", "even if, despite"),
    (r"\ball the same\b", "anyway"),
    (r"\bon purpose,? (?:it|this|that)\b", "intentionally"),
    (r"\b(?:is|are|it is) otherwise here\b", "differs here"),
    (r"\b(?:with )?nothing but\b", "only"),
    (r"\bbut for\b", "except for"),
    (r"\bother people'?s\b|\bpeople's\b", "third-party"),
    (r"\bin each other's way\b", "block each other"),
    (r"\bas far as (?:its|their|the) \w+ tells?\b", "from its X"),
    (r"\basks? (?:an? |the |its |each |every |another |one |several )?(?:second |other |next )?"
     r"(?:servers?|interpreter|repository|engine|backend|client)\b", "sends a request to, queries"),
    (r"\bof which only\b.*\b(?:is|are) asked\b", "that only receives"),
    (r"\basking it\b|\bto ask it\b|^ask it\b", "sending requests"),
    (r"\banswers? (?:in )?[\d.]+ (?:s|ms|seconds|milliseconds)\b", "is ready in, responds within"),
    (r"\blearns? (?:an?|the) [\w ]+'s answers\b", "distills"),
    (r"\bleav\w+ (?:\w+ )?ones alone\b", "skips"),
    (r"\bwhat (?:users|callers|clients) wait for\b", "latency as users see it"),
    (r"\bcosts, sees and takes\b", "cost, receptive field and latency"),
    (r"\bwhose \w+ never comes?\b", "that never sends its X"),
    (r"\bof its own accord\b|\bsets? up [^.]*by itself\b", "automatically"),
    (r"\bhas to say\b|\bhave to say\b", "reports"),
    (r"\bwhat (?:that|it|they|XNNPACK) (?:does|do) not know\b", "operators that X doesn't support"),
    (r"\bstands? (?:there|in `|in the (?:table|file|help))", "is"),
    (r"\bstands? still\b", "stops"),
    (r"\bwants an?\b", "needs"),
    (r"\b(?:wherein|whereof|thereof|whereby|hereby|thereby)\b", "in which, of which, so that"),
    (r"\bmake (?:models? )?smaller\b(?=[,:])", "compress"),
    (r"\bdo(?:es)? not come (?:in|out|back)\b", "isn't sent, isn't returned"),
    (r"\b(?:a|the) least (?:that|server)\b", "the minimum"),
    (r"\bhas moved on\b|\bthe while\b", "meanwhile"),
    (r"\bif need be\b", "if necessary"),
    (r"\bwho (?:asks|has|holds|links|makes|reads|takes|uses|wants)\b", "which X; the caller that"),
    (r"\b(?:is|are|was|were|be) asked\b(?! for| to)", "is sent a request, is queried"),
]  # fmt: skip
COMPILED = [(re.compile(pattern, re.IGNORECASE), instead) for pattern, instead in PHRASES]

# In the list of arguments of a docstring: "temperature: Of the teacher's answers."
ARGUMENT = re.compile(r"^\s+`?\w[\w, `]*: (Of|For|From|With|Between) ", re.MULTILINE)

# (file, a part of the sentence) -> why it stays.
ALLOWED: dict[tuple[str, str], str] = {}


class Prose(NamedTuple):
    """A piece of text and the line on which it starts."""

    line: int
    text: str


def python_prose(source: str) -> Iterator[Prose]:
    """Docstrings, all other string constants with a space in them, and blocks of comments."""
    tree = ast.parse(source)
    templates = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for template in templates for part in template.values}
    for template in templates:
        texts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in template.values]
        yield Prose(template.lineno, "".join(texts))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and " " in node.value
            and id(node) not in parts
        ):
            yield Prose(node.lineno, node.value)
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and (token.start[0] != block[-1].start[0] + 1 or token.start[1] != block[-1].start[1]):
                yield _comment(block)
                block = []
            block.append(token)
    if block:
        yield _comment(block)


def _comment(block: list[tokenize.TokenInfo]) -> Prose:
    return Prose(block[0].start[0], "\n".join(token.string.lstrip("# ") for token in block))


def page_prose(text: str) -> Iterator[Prose]:
    """Paragraphs; the `#` of a comment in TOML or in a Makefile doesn't part a phrase."""
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", text):
        yield Prose(line, re.sub(r"^# ", "", paragraph, flags=re.MULTILINE))
        line += paragraph.count("\n")


def findings(file: Path) -> list[str]:
    name = file.relative_to(ROOT).as_posix()
    source = file.read_text(encoding="utf-8")
    found = []
    for line, text in python_prose(source) if file.suffix == ".py" else page_prose(source):
        one_line = re.sub(r"\s+", " ", text)
        for pattern, instead in COMPILED:
            for match in pattern.finditer(one_line):
                around = one_line[max(match.start() - 40, 0) : match.end() + 40].strip()
                if not any(name == where and part in around for where, part in ALLOWED):
                    found.append(f"{name}:{line}: ...{around}...\n    instead of {match[0]!r}: {instead}")
        if "Args:" in text:
            for match in ARGUMENT.finditer(text.partition("Args:")[2].partition("\n\n")[0]):
                found.append(f"{name}:{line}: {match[0].strip()} ...\n    an argument's description is a noun phrase")
    return found


def files(area: str) -> list[Path]:
    if area == "pages":
        return sorted(file for pattern in PAGES for file in ROOT.glob(pattern))
    return sorted(file for file in (ROOT / area).rglob("*.py") if not file.name.endswith("_pb2.py"))


def areas() -> list[str]:
    """The pages, and each folder of code on its own, so that a failure names one."""
    folders = {file.parent for root in CODE for file in (ROOT / root).rglob("*.py")}
    return ["pages", *sorted(folder.relative_to(ROOT).as_posix() for folder in folders)]


@pytest.mark.parametrize("area", areas())
def test_prose_is_idiomatic(area):
    wanted = [file for file in files(area) if area == "pages" or file.parent == ROOT / area]
    found = [text for file in wanted for text in findings(file)]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


MACHINE = re.compile(r"(?<![\w.}])/(?:work|root|farm|home/(?!user\b)\w+|tmp/\w*jobs)\b|\bsite-packages/\w+")


def test_no_text_names_a_path_of_one_machine():
    texts = [file for area in ("pages", *CODE, "tests") for file in files(area)]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for file in texts
        if file != Path(__file__)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE.search(line)
    ]
    assert not found, "\n" + "\n".join(found)


# The tests of the search itself.


@pytest.mark.parametrize(
    "text",
    [
        "Prints a line a request.",
        "one folder a class",
        "500 images a call",
        "1,200 answers a second",
        "Received: x, which is no file.",
        "It goes on where it stopped.",
        "LABEL= takes the name away.",
        "asks servers turn by turn",
        "with the table beside it",
        "ten mends",
        "Start anew.",
        "Exit with 0 in spite of findings.",
        "asks a server",
        "passes but for its profiler",
        "a server answers 0.9 seconds after its start",
    ],
)
def test_phrase_is_found(text):
    assert any(pattern.search(text) for pattern, _ in COMPILED)


@pytest.mark.parametrize(
    "text",
    [
        "Each request names a model.",
        "This is no longer supported.",
        "There is no such model.",
        "One request per second.",
        "Takes a second argument.",
        "It is ready in 0.9 s.",
        "Removes the label.",
        "0.50 on a CPU",
    ],
)
def test_idiomatic_text_is_not(text):
    assert not [pattern.pattern for pattern, _ in COMPILED if pattern.search(text)]


def test_phrases_are_found_across_lines_and_in_every_kind_of_text():
    source = '''
    def f(x):
        """Does a thing.

        Args:
            x: Of the teacher's answers.
        """
        # this goes
        # on
        raise ValueError(f"{x}, which is no "
            "file")
    '''
    assert [prose.line for prose in python_prose(textwrap.dedent(source))] == [10, 3, 8]
