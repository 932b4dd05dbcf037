"""Refusals for too many requests: waited for as long as the Hub says, if that is not long."""

import pytest

from lorakit_cli.sources import hub_patience
from lorakit_cli.sources.hub_patience import patiently


@pytest.fixture
def waits(hub, monkeypatch):
    """The seconds that were waited for, instead of waiting."""
    kept = []
    monkeypatch.setattr(hub_patience.time, "sleep", kept.append)
    return kept


def ask(hub):
    from huggingface_hub import HfApi

    return patiently(lambda: HfApi().model_info("someone/ink").sha)


@pytest.mark.parametrize(
    ("times", "headers", "expected"), [(2, {}, [1.0, 3.0]), (1, {"Retry_After": "5"}, [5.0]), (0, {}, [])]
)
def test_a_moment_is_waited_for(hub, waits, adapters, times, headers, expected):
    commit = hub.add("someone/ink", adapters)
    hub.refuse("/api/models", 429, times=times, **headers)
    assert ask(hub) == commit
    assert waits == expected


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (429, {}, [1.0, 3.0, 8.0]),
        (429, {"Retry_After": "300"}, []),
        (403, {}, []),
    ],
)
def test_longer_is_not(hub, waits, adapters, status, headers, expected):
    from huggingface_hub.errors import HfHubHTTPError

    hub.add("someone/ink", adapters)
    hub.refuse("/api/models", status, **headers)
    with pytest.raises(HfHubHTTPError):
        ask(hub)
    assert waits == expected
