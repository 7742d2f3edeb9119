r"""Text from tables, files and servers as a terminal may be shown it.

A column may be called `\x1b[2J`, which clears the screen, or hold a newline, after which a second
line looks like one of ours.
"""

import unicodedata

# Control characters, invisible formats (some turn the direction of writing), halves of characters,
# and the separators of lines and paragraphs.
_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    r"""Return `text` on one line, what a terminal would obey written out as `\x1b`."""
    return "".join(_written_out(c) if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
