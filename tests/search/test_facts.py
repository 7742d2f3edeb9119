"""What a study is begun with, and what of it others may see."""

from collections.abc import Callable

import pytest

from pipelines.splits import SearchData
from search.config import SearchConfig, Tracking
from search.facts import facts_of, identity_of

MakeData = Callable[..., SearchData]


def test_the_view_is_shown_no_passwords(make_data: MakeData) -> None:
    config = SearchConfig(
        study="small",
        storage="postgresql://ann:secret@db.example/studies",
        tracking=Tracking(uri="https://ann:secret@mlflow.example/path"),
    )
    facts = facts_of(config, make_data())
    assert "secret" not in repr(facts)
    assert facts.params["storage"] == "postgresql://***@db.example/studies"
    assert "https://***@mlflow.example/path" in facts.config_yaml


@pytest.mark.parametrize(
    ("change", "is_the_same"),
    [
        ({"tracking": Tracking(uri="https://mlflow.example")}, True),
        ({"home": "elsewhere"}, True),
        ({"search": {"trials": 7, "sampler": "random"}}, True),
        ({"search": {"metric": "mse"}}, False),
        ({"search": {"seed": 7}}, False),
        ({"training": {"max_steps": 7}}, False),
        ({"space": {"num_layers": 1}}, False),
    ],
)
def test_a_studys_identity_is_what_its_trials_compare_by(
    make_data: MakeData, change: dict[str, object], is_the_same: bool
) -> None:
    before = identity_of(SearchConfig(), make_data())
    after = identity_of(SearchConfig.model_validate(change), make_data())
    assert (before == after) is is_the_same
    assert identity_of(SearchConfig(), make_data(fingerprint="other")) != before
