"""Which provider may see which label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.llm.clearance import clearance_of, is_cleared
from app.llm.settings import ProviderSettings
from corpus.errors import ConfigError
from corpus.settings import LabelSettings

LABELS = LabelSettings()


@given(st.sampled_from(LABELS.order), st.sampled_from(LABELS.order))
def test_a_provider_sees_what_is_at_most_its_clearance(label: str, clearance: str) -> None:
    """The order in the configuration decides, and nothing else."""
    assert is_cleared(label, clearance, LABELS) == (LABELS.order.index(label) <= LABELS.order.index(clearance))


@pytest.mark.parametrize("label", [None, "", "Public", "no such label"])
def test_a_label_that_is_not_known_counts_as_the_highest(label: str | None) -> None:
    """Only a provider that may see everything gets it."""
    assert [clearance for clearance in LABELS.order if is_cleared(label, clearance, LABELS)] == ["secret"]


def test_a_clearance_that_is_not_known_allows_only_the_lowest_label() -> None:
    """A mistake in a clearance opens nothing."""
    assert [label for label in LABELS.order if is_cleared(label, "Secret", LABELS)] == ["public"]


@pytest.mark.parametrize(
    ("base_url", "stated", "clearance"),
    [
        ("http://127.0.0.1:1/v1", None, "secret"),
        ("http://localhost:1/v1", None, "secret"),
        ("http://[::1]:1/v1", None, "secret"),
        ("http://127.0.0.1:1/v1", "public", "public"),
        ("https://llm.example/v1", "internal", "internal"),
    ],
)
def test_a_provider_on_this_machine_may_see_all_unless_it_is_told_otherwise(
    base_url: str, stated: str | None, clearance: str
) -> None:
    """What is stated holds; what is not is everything, on a loopback address."""
    assert clearance_of("acme", ProviderSettings(base_url=base_url, model="m", clearance=stated), LABELS) == clearance


@pytest.mark.parametrize(
    "host", ["llm.example", "10.0.0.1", "0.0.0.0", "127.1", "2130706433", "localhost.", "[::ffff:10.0.0.1]"]
)
def test_a_provider_elsewhere_must_state_its_clearance(host: str) -> None:
    """Whatever is not plainly this machine counts as elsewhere."""
    with pytest.raises(ConfigError, match=r"llm\.providers\.acme\.clearance is missing"):
        clearance_of("acme", ProviderSettings(base_url=f"http://{host}/v1", model="m"), LABELS)
