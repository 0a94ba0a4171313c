"""Fake providers: real HTTP servers with a script and a journal.

with FakeOpenAI() as provider:
    provider.script(Fails(503), Breaks(2, "reset"), model="gpt-4o")
    ...
    assert provider.journal.wait_over(2)[-1].tokens_sent == (0, 1)
"""

from __future__ import annotations

from tests.providers.anthropic import FakeAnthropic
from tests.providers.faults import HTML_PAGE, html_page, redirects
from tests.providers.gate import Gate
from tests.providers.gemini import FakeGemini
from tests.providers.journal import Entry, Journal
from tests.providers.openai import FakeOpenAI
from tests.providers.ports import closed_port, unanswered_port
from tests.providers.server import FakeProvider
from tests.providers.steps import (
    COUNTED,
    MISSING,
    Answer,
    Breaks,
    Endless,
    Fails,
    NoDone,
    Resets,
    Silent,
    SseStyle,
    Step,
    ToolCall,
    Usage,
)

__all__ = [
    "COUNTED",
    "HTML_PAGE",
    "MISSING",
    "Answer",
    "Breaks",
    "Endless",
    "Entry",
    "Fails",
    "FakeAnthropic",
    "FakeGemini",
    "FakeOpenAI",
    "FakeProvider",
    "Gate",
    "Journal",
    "NoDone",
    "Resets",
    "Silent",
    "SseStyle",
    "Step",
    "ToolCall",
    "Usage",
    "closed_port",
    "html_page",
    "redirects",
    "unanswered_port",
]
