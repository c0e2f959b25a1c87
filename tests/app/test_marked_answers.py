"""What an LLM cites wrongly or not at all, as callers of the API see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.llm.fake.behaviour import FakeBehaviour
from app.llm.settings import LlmSettings, ProviderSettings
from tests.app.serving import Serve
from tests.app.test_ask import QUESTION, events_of
from tests.servers import RunningFake, running_fake_llm

pytestmark = pytest.mark.anyio

DUE = "Expense reports are due within 30 days of the last day of travel."


@pytest.fixture(scope="module")
def fake() -> Iterator[RunningFake]:
    """An LLM on this machine."""
    with running_fake_llm() as fake:
        yield fake


@pytest.mark.parametrize(
    ("reply", "shown", "unsupported"),
    [
        (f"{DUE} [1]", f"{DUE} [1]", []),
        (DUE, f"{DUE} [1]", []),
        (f"{DUE}\n\nElephants walk to Kenya [1].", f"{DUE} [1]\n\nElephants walk to Kenya.", ["Elephants walk to Kenya."]),
        (f"{DUE} [77]", f"{DUE} [1]", []),
        (
            "Expense reports are due within 45 days [1].", "Expense reports are due within 45 days.",
            ["Expense reports are due within 45 days."],
        ),
        (
            "Expense reports are not due within 30 days [1].", "Expense reports are not due within 30 days.",
            ["Expense reports are not due within 30 days."],
        ),
    ],
    ids=["right", "missing", "one missing, one wrong", "no such passage", "another figure", "negated"],
)  # fmt: skip
async def test_markers_are_mended_while_the_answer_streams(
    serve: Serve, fake: RunningFake, reply: str, shown: str, unsupported: list[str]
) -> None:
    """The deltas together are the answer, each marker has its exact quote, and what nothing supports is named."""
    fake.behave(FakeBehaviour(reply=reply))
    provider = ProviderSettings(base_url=fake.base_url, model="fake")
    llm = LlmSettings.model_validate({"default": "llm", "providers": {"llm": provider}})
    async with serve(llm=llm) as client:
        response = await client.post("/v1/ask", json={"question": QUESTION, "stream": True})
        events = events_of(response.text)
        done = next(data for name, data in events if name == "done")
        deltas = "".join(data["text"] for name, data in events if name == "delta")
        assert done["answer"] == deltas == shown
        assert done["provider"] == "llm"
        assert len(done["citations"]) == shown.count("[")
        for citation in done["citations"]:
            where = f"/v1/documents/{citation['document_id']}"
            document = (await client.get(where, params={"version": citation["version"]})).json()
            assert document["text"][citation["start"] : citation["end"]] == citation["quote"] == DUE
        assert done["grounding"]["unsupported"] == unsupported
