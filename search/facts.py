"""What a study is begun with: what must not change, and what its page in MLflow says."""

import json
import platform
import re
import shutil
import subprocess
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.splits import SearchData
from search.config import SearchConfig
from search.config_file import to_yaml
from search.projection import StudyFacts


def identity_of(config: SearchConfig, data: SearchData) -> dict[str, Any]:
    """What a study must not change while it goes on: its trials would no longer compare."""
    search = config.search.model_dump(
        include={"metric", "seed", "pruner", "reduction_factor", "first_rung_steps"}
    )
    # Trials of a plan and trials of a search do not mix: see Study.plan.
    planned = {"sampler": "grid"} if config.search.sampler == "grid" else {}
    return {
        "data": data.fingerprint,
        "space": json.loads(config.space.model_dump_json()),
        "training": config.training.model_dump(),
        **search,
        **planned,
    }


def facts_of(config: SearchConfig, data: SearchData) -> StudyFacts:
    """What the view shows of a study that begins now."""
    config = without_passwords(config)
    assert config.study is not None
    return StudyFacts(
        name=config.study,
        uid=uuid.uuid4().hex,
        metric=config.search.metric,
        started_at=time.time(),
        data_name=data.name,
        data_fingerprint=data.fingerprint,
        data_source=config.data.path or "embedded in lstm-search",
        num_rows=data.num_rows,
        config_yaml=to_yaml(config),
        params=_flatten(json.loads(config.model_dump_json())),
        tags={"git_commit": git_commit(), **versions()},
    )


def without_passwords(config: SearchConfig) -> SearchConfig:
    """The configuration as others may see it."""
    storage, uri = (url and _shown(url) for url in (config.storage, config.tracking.uri))
    tracking = config.tracking.model_copy(update={"uri": uri})
    return config.model_copy(update={"storage": storage, "tracking": tracking})


def _shown(url: str) -> str:
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"//.*@", "//***@", url))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and not {"choices", "low"} & value.keys():
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def versions() -> dict[str, str]:
    """The versions that a result depends on, by the names of their tags."""
    packages = ("lstm-search", "torch", "ray", "optuna", "mlflow", "numpy", "pandas")
    python = {"version_python": platform.python_version()}
    return python | {f"version_{name.replace('-', '_')}": version(name) for name in packages}


def git_commit() -> str:
    """The commit of this source, where it is a checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    here = Path(__file__).parent
    command = [git, "rev-parse", "--verify", "--quiet", "HEAD"]
    answer = subprocess.run(command, cwd=here, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"
