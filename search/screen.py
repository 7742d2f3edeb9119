"""Lines of output, shown as they are: what tables, files and servers hold is no markup."""

from rich.console import Console

from pipelines.printable import printable


def say(console: Console, line: str) -> None:
    """Print a line that neither the terminal nor Rich obeys."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def say_lines(console: Console, text: str) -> None:
    """Print text of several lines likewise, each on a line of its own."""
    for line in text.splitlines():
        say(console, line)
