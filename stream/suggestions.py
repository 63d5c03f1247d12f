"""What somebody meant who mistyped a name."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(wrong: str, known: Iterable[str], before: str = "") -> str:
    """`did you mean X? ` of the known name that is most like the wrong one; nothing if none is.

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
    return f"did you mean {before}{found[0]}? " if found else ""
