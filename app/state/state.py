"""service.db as the service holds it: one open object with all that is kept in it."""

from __future__ import annotations

from app.state.conversations import Conversations
from app.state.spending import DailySpending


class State(Conversations, DailySpending):
    """One open service.db. Safe for use by several threads.

    Synchronous; the service calls it off the event loop. Conversations are asked for by owner: what is somebody else's is not
    there.
    """
