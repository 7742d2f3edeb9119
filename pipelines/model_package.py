"""The code of a predictor as a package of its own, under a name that is its content's.

A saved model is loaded by processes that have other `models` and `pipelines`, or other versions of
these, so its code may not be called so. Equal code has an equal name; any other has another.
"""

from __future__ import annotations

import ast
import hashlib
import re
from pathlib import Path

ENTRY = "pipelines.served_model"
"""The module that a saved model begins with; the package holds it and what it imports."""

_FLOORS = ("models", "pipelines")
_ROOT = Path(__file__).parents[1]
_IMPORT = re.compile(rf"^(\s*(?:from|import) )({'|'.join(_FLOORS)})(?=[. ])", re.MULTILINE)
_INIT = '"""The code of one saved model of lstm-search; its name is a digest of its content."""\n'


def write_package(folder: Path) -> str:
    """Write the package into a folder; return its name, such as `lstm_search_model_1f2e3d4c5b6a`.

    Raises:
        FileExistsError: It is there already.
    """
    sources = {module: _path(module).read_text(encoding="utf-8") for module in _needed(ENTRY)}
    digest = hashlib.sha256()
    for module, source in sorted(sources.items()):
        digest.update(f"{module}\0{source}\0".encode())
    name = f"lstm_search_model_{digest.hexdigest()[:12]}"
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_INIT, encoding="utf-8")
    for module, source in sources.items():
        path = package / _path(module).relative_to(_ROOT)
        path.parent.mkdir(exist_ok=True)
        path.write_text(_IMPORT.sub(rf"\g<1>{name}.\g<2>", source), encoding="utf-8")
    return name


def _needed(entry: str) -> set[str]:
    """Return a module of ours and all that it imports of ours, directly or not."""
    needed, open_ones = set(_FLOORS), [entry]
    while open_ones:
        module = open_ones.pop()
        if module not in needed:
            needed.add(module)
            open_ones += _imported(ast.parse(_path(module).read_text(encoding="utf-8")))
    return needed


def _imported(tree: ast.Module) -> list[str]:
    """Return the modules of ours that are imported when a module is loaded."""
    # At the top only: what is under TYPE_CHECKING is for whoever reads the source.
    found = [
        name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    ]
    return [name for name in found if name.partition(".")[0] in _FLOORS and _path(name).is_file()]


def _path(module: str) -> Path:
    path = _ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
