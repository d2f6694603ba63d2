"""The names nearest to a misspelled one."""

import re
from collections.abc import Iterable, Mapping


def nearest(name: str, families: Mapping[str, Iterable[str]], aliases: Iterable[str], *, most: int = 3) -> list[str]:
    """Returns the names that a user may have meant, the likeliest first.

    Upper case and separators don't count, and neither does the end of a name: "MobileNetV4" is the start of all
    names of that family. The fewest edits win: a letter added, left out or changed, two neighbors exchanged, or a run
    of letters left out, as in "effnet_b0". A name that starts like a family's may be any of that family.

    Args:
        name: What the user has written.
        families: Name of each family -> the full names of its models, the default first.
        aliases: Further names, `source/name.recipe`. Of two equally near names, aliases come last.
        most: Largest number of names.
    """
    spellings = {_plain(name), _plain(re.sub(r"\.[a-z]\w*$", "", name, flags=re.IGNORECASE))} - {""}
    found = []
    for written in spellings:
        limit = max(1.0, len(written) / 3) if len(written) > 2 else 0.0
        for family, names in families.items():
            prefix = _plain(family)
            start = min(row[-1] for row in _edits(written, prefix)[1:])
            like_family = start + 0.5 if start <= len(prefix) / 4 else limit + 1
            for place, model in enumerate(names):
                edits = _to_start(written, _plain(model))
                found.append((min(edits, like_family), 0, edits, place, model))
        for alias in aliases:
            edits = _to_start(written, _plain(alias))
            found.append((edits, 1, edits, 0, alias))
        found = [entry for entry in found if entry[0] <= limit]
    found = sorted(entry for entry in found if entry[0] <= min(found)[0] + 1)
    return list(dict.fromkeys(model for *_, model in found))[:most]


def _plain(name: str) -> str:
    """The letters and digits of a name, without its source."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition("/")[2].lower().replace("+", "plus"))


def _to_start(written: str, name: str) -> float:
    """The number of edits from `written` to a start of `name`. A run of letters that is left out counts as 0.9."""
    edits = min(_edits(written, name)[-1])
    cuts = range(2, len(written) - 1)
    if edits > 0.9 and any(name.startswith(written[:cut]) and written[cut:] in name[cut:] for cut in cuts):
        return 0.9
    return edits


# Not rapidfuzz: this runs in an installation without any extra, which has no dependencies. Not difflib: its ratios know
# no exchanged neighbors, and put a long name that contains a short word before the family that the word misspells.
def _edits(a: str, b: str) -> list[list[int]]:
    """The numbers of edits from each start of `a` (rows) to each start of `b`: optimal string alignment."""
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a, start=1):
        row = [i]
        for j, other in enumerate(b, start=1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows
