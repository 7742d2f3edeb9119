"""A line of output, shown as it is: what tables, files and servers hold is no markup."""

from rich.console import Console

from pipelines.printable import printable


def say(console: Console, line: str) -> None:
    """Print a line that neither the terminal nor Rich obeys."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
