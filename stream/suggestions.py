"""What somebody meant who mistyped a name."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Final

NAMED: Final = 8
"""So many names of those that there are, where they may be very many."""


def did_you_mean(wrong: str, known: Iterable[str], before: str = "") -> str:
    """`did you mean X? ` of the known name that is most like the wrong one, or has it as a part; nothing if none is.

    Parameters
    ----------
    wrong
        As it was typed.
    known
        Names that would be right.
    before
        What stands before the name, such as its section and a dot.
    """
    names = list(known)
    if wrong in names:
        return ""  # something else about it is wrong
    found = get_close_matches(wrong, names, n=1, cutoff=0.72)  # `positions` does not mean `predictions`
    found = found or [name for name in names if wrong.lower() in re.split("[-_.]", name.lower())]
    return f"did you mean {before}{found[0]}? " if found else ""


def some_of(wrong: str, known: Iterable[str]) -> str:
    """The known names with commas between, the nearest first, and how many more there are than NAMED."""
    names = nearest_first(wrong, known)
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def nearest_first(wrong: str, known: Iterable[str]) -> list[str]:
    """The known names, those that are most like the wrong one first, whatever their case; alike ones by the alphabet.

    Parameters
    ----------
    wrong
        As it was typed.
    known
        Names that would be right.
    """
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(wrong.lower())  # what is compared with all is looked at once

    def unlike(name: str) -> tuple[float, str]:
        matcher.set_seq1(name.lower())
        return -matcher.ratio(), name

    return sorted(known, key=unlike)
