"""What a command answers where its search ends in another way than by its end."""

import signal
from collections.abc import Iterator

import pytest

from search import commands, search
from search.config import SearchConfig


@pytest.fixture(autouse=True)
def _signals_kept() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("code", [1, 15])
def test_a_signal_that_ray_answers_while_it_starts_ends_the_search_as_any_sigterm(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end_as_rays_handler_does(*_: object, **__: object) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(search, "run_search", end_as_rays_handler_does)
    config = SearchConfig(study="one")
    assert commands.search(config, is_verbose=False, is_quiet=True) == 143
    assert "the record is safe: python -m search.run --resume one" in capsys.readouterr().err
