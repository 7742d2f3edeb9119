"""The rules of the house that a program can check: one test a rule."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]

# A floor may import itself and those before it.
FLOORS = ("models", "pipelines", "search")

# The files in which an outside system may be imported.
DOORS = {
    "optuna": {
        "search/study.py",
        "search/stored_studies.py",
        "search/frozen_trials.py",
        "search/importance.py",
        "search/samplers.py",
        "search/bounded_tpe.py",
        "search/held_storage.py",
        "search/bulk_store.py",
        "search/patience.py",
    },
    "ray": {
        "search/executor.py",
        "search/tune_patches.py",
        "search/trial_actor.py",
        "search/side_workers.py",
        "search/gpu_probe.py",
        "search/cluster.py",
        "search/submit.py",
    },
    "mlflow": {
        "search/mlflow_store.py",
        "search/tracking.py",
        "search/stored_runs.py",
        "search/view_check.py",
        "search/registry.py",
        "pipelines/serving.py",
        "pipelines/served_model.py",
    },
}

TOP_LEVEL = {
    *(".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md"),
    *("constraints.txt", "pyproject.toml", "benchmarks", "deploy", "docs", "examples"),
    *("mlruns", "models", "pipelines", "search", "tests"),
}

# What a recorded or downloaded file could use to run code of its own.
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}

NAMES_WITHOUT_A_CONCEPT = {"utils", "util", "common", "helpers", "helper", "misc"}


def test_imports_point_from_search_to_pipelines_to_models_and_never_back() -> None:
    against_the_way = [
        f"{place} imports {module}"
        for place, module in imports_of_the_source()
        if top_level(module) in FLOORS
        and FLOORS.index(top_level(module)) > FLOORS.index(place.split("/")[0])
    ]
    assert against_the_way == []


@pytest.mark.parametrize("library", DOORS)
def test_each_outside_system_is_imported_only_by_its_doors(library: str) -> None:
    beside_the_door = [
        f"{place} imports {module}"
        for place, module in imports_of_the_source()
        if top_level(module) == library and place.split(":")[0] not in DOORS[library]
    ]
    assert beside_the_door == []


def test_mlflow_is_told_to_phone_nobody_before_it_is_imported() -> None:
    says = {"search/mlflow_store.py", "pipelines/serving.py"}
    # MLflow itself imports it.
    doors = DOORS["mlflow"] - says - {"pipelines/served_model.py"}
    for door in doors:
        order = [module for place, module in imports_of_the_source() if place.split(":")[0] == door]
        told = next(i for i, module in enumerate(order) if module.startswith("search.mlflow_store"))
        assert not [module for module in order[:told] if top_level(module) == "mlflow"], door


def test_a_test_imports_ray_after_what_ray_reads_when_it_is_imported() -> None:
    # A process of the tests runs many files, and Ray reads its token's place once.
    says = ("search.cluster", "search.executor", "search.submit")
    too_early = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        order = [module for _, module in sorted(imports(parse(path)))]
        rays = [place for place, module in enumerate(order) if top_level(module) == "ray"]
        told = [place for place, module in enumerate(order) if module.startswith(says)]
        if rays and not (told and told[0] < rays[0]):
            too_early.append(name(path))
    assert too_early == []


def test_variables_that_another_thread_has_set_are_not_taken_back() -> None:
    taken_back = [
        f"{name(path)}:{node.lineno}"
        for path in source_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("patch.dict(os.environ")
    ]
    assert taken_back == []


def test_models_need_nothing_but_torch_and_pydantic() -> None:
    allowed = {"models", "torch", "pydantic"} | sys.stdlib_module_names
    strangers = [
        f"{place} imports {module}"
        for place, module in imports_of_the_source()
        if place.startswith("models/") and top_level(module) not in allowed
    ]
    assert strangers == []


def test_nothing_in_the_source_can_unpickle_or_evaluate_a_file() -> None:
    imported = [
        f"{place} imports {module}"
        for place, module in imports_of_the_source()
        if top_level(module) in UNPICKLERS or module == "torch.load"
    ]
    called = [
        f"{name(path)}:{node.lineno} {ast.unparse(node)}"
        for path in source_files()
        for node in ast.walk(parse(path))
        if isinstance(node, ast.expr) and runs_what_it_reads(node)
    ]
    assert imported + called == []


def test_every_module_is_named_after_a_concept() -> None:
    nameless = [
        path
        for path in files_of_the_project()
        if path.suffix == ".py" and NAMES_WITHOUT_A_CONCEPT & {path.stem, *path.parent.parts}
    ]
    assert nameless == []


def test_every_relative_link_in_a_markdown_file_leads_to_a_file() -> None:
    dead = [
        f"{page} -> {link}"
        for page in files_of_the_project()
        if page.suffix == ".md"
        for link in relative_links((ROOT / page).read_text(encoding="utf-8"))
        if not (ROOT / page.parent / link).exists()
    ]
    assert dead == []


def test_the_top_level_holds_what_belongs_to_the_project_and_no_leftovers() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the checkout: what is tracked is asked of git")
    answer = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {line.partition("/")[0] for line in answer.stdout.splitlines()} == TOP_LEVEL


def test_the_tree_in_the_readme_names_only_what_exists() -> None:
    named = paths_in_tree((ROOT / "README.md").read_text(encoding="utf-8"))
    assert named
    assert [str(path) for path in named if not (ROOT / path).exists()] == []


def test_the_tree_in_the_readme_has_a_line_for_every_source_file() -> None:
    named = {str(path) for path in paths_in_tree((ROOT / "README.md").read_text(encoding="utf-8"))}
    source = {name(path) for path in source_files() if not path.name.startswith("__")}
    assert source - named == set()


@pytest.mark.parametrize(
    "source",
    [
        "import ray.tune",
        "from ray import tune",
        "def start():\n    import ray",
        "if TYPE_CHECKING:\n    from ray.tune import Tuner",
        "import importlib\nimportlib.import_module('ray.tune')",
        "__import__('ray')",
    ],
)
def test_an_import_is_seen_wherever_it_hides(source: str) -> None:
    assert "ray" in {top_level(module) for _, module in imports(ast.parse(source))}


@pytest.mark.parametrize(
    "source", ["eval(text)", "exec(text)", "torch.load(path)", "pandas.read_pickle(path)"]
)
def test_a_call_that_runs_what_it_reads_is_seen(source: str) -> None:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.expr)]
    assert any(runs_what_it_reads(node) for node in calls)


def test_putting_a_model_into_evaluation_mode_is_allowed() -> None:
    calls = [node for node in ast.walk(ast.parse("model.eval()")) if isinstance(node, ast.expr)]
    assert not any(runs_what_it_reads(node) for node in calls)


def test_links_are_read_as_a_browser_would() -> None:
    page = (
        "[one](docs/a.md#part) ![two](img/b.png) [three](https://example.org) [four](#here)\n"
        "`[five](no.md)`\n```\n[six](no.md)\n```\n<img src='img/c.png'>\n"
    )
    assert list(relative_links(page)) == ["docs/a.md", "img/b.png", "img/c.png"]


@pytest.mark.parametrize(
    "tree",
    [
        "models/      torch only\n  lstm.py    a width a layer\nMakefile     the commands\n",
        "├── models/      torch only\n│   └── lstm.py  a width a layer\n└── Makefile     all\n",
    ],
    ids=["spaces", "lines"],
)
def test_the_tree_is_read_by_its_indentation(tree: str) -> None:
    page = f"# Title\n\n```\nmake search\n```\n\n```text\n{tree}```\n"
    assert [str(path) for path in paths_in_tree(page)] == ["models", "models/lstm.py", "Makefile"]


def source_files() -> list[Path]:
    return sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def files_of_the_project() -> list[PurePosixPath]:
    """Files that git tracks, or would with `git add .`, relative to the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout, to tell the project's files from others")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [PurePosixPath(path) for path in listing.split("\0") if (ROOT / path).is_file()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=os.fspath(path))


def imports_of_the_source() -> Iterator[tuple[str, str]]:
    """Each import as its place, `search/run.py:12`, and what it names, `ray.tune.Tuner`."""
    for path in source_files():
        for line, module in imports(parse(path)):
            yield f"{name(path)}:{line}", module


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of all that `tree` imports, at any depth, but for relative imports."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name("import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module


def top_level(module: str) -> str:
    return module.partition(".")[0]


def runs_what_it_reads(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Name("eval" | "exec")):
            return True
        case ast.Attribute(value=ast.Name("torch"), attr="load"):
            return True
        case ast.Attribute(attr="read_pickle"):
            return True
    return False


def relative_links(page: str) -> Iterator[str]:
    """Targets of links and images, without their anchors; code is no link."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", page, flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=[\"']([^\"']+)", prose):
        target = (match[1] or match[2]).partition("#")[0]
        if target and not re.match(r"[a-z]+:", target):
            yield target


def paths_in_tree(page: str) -> list[PurePosixPath]:
    """Paths in the page's drawing of the tree: the code block that has a line for `models/`.

    Each line is a name, deeper than its folder's, and after it what the name stands for.
    """
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    tree = next((block for block in blocks if re.search(r"^[│├└─ ]*models/", block, re.M)), "")
    paths: list[PurePosixPath] = []
    folders: list[tuple[int, PurePosixPath]] = []
    for line in filter(str.strip, tree.splitlines()):
        entry = re.sub(r"[│├└─]", " ", line)
        depth = len(entry) - len(entry.lstrip())
        folders = [(at, folder) for at, folder in folders if at < depth]
        path = PurePosixPath(*(folder.name for _, folder in folders), entry.split()[0])
        folders.append((depth, path))
        paths.append(path)
    return paths
