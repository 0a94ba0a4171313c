"""What was said in a message, in a chat's words."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.types import Json
from proxy.upstream.to_chat import Ear, Untranslatable, messages_of

PLAIN = Ear()
CLAUDE = Ear(caches=True, thinks=True, sees_results=True)
MARK = {"type": "ephemeral"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def user(*content: Any, ear: Ear = PLAIN) -> list[Json]:
    return messages_of({"messages": [{"role": "user", "content": list(content)}]}, ear)


def test_texts() -> None:
    body = {
        "system": "be brief",
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "system", "content": "c"},
            {"role": "user", "content": [{"type": "text", "text": "d"}]},
        ],
    }
    told = [(m["role"], m["content"]) for m in messages_of(body, PLAIN)]
    assert told == [
        ("system", "be brief"), ("user", "a"), ("assistant", "b"), ("system", "c"), ("user", "d")
    ]  # fmt: skip


def test_marks_of_the_cache_go_to_whom_they_say_something() -> None:
    block = {"type": "text", "text": "a", "cache_control": MARK}
    body = {"system": [block], "messages": [{"role": "assistant", "content": [block]}]}
    assert [m["content"] for m in messages_of(body, CLAUDE)] == [[block], [block]]
    assert [m["content"] for m in messages_of(body, PLAIN)] == ["a", "a"]


def test_results_of_tools_stand_before_what_the_user_says() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "seen"}
    told = user({"type": "text", "text": "and?"}, result, {**result, "tool_use_id": "d"})
    assert [m["role"] for m in told] == ["tool", "tool", "user"]


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        (None, False, ""),
        ("", True, "Error:"),
        ("x", True, "Error:\nx"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], False, "a\nb"),
    ],
)
def test_what_a_tool_answered(content: Any, error: bool, told: str) -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": content, "is_error": error}
    assert user(result) == [{"role": "tool", "tool_call_id": "c", "content": told}]


def test_an_image_in_a_result_is_shown_where_it_can_be_seen() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": [IMAGE]}
    assert user(result, ear=CLAUDE) == [{"role": "tool", "tool_call_id": "c", "content": [SHOWN]}]
    assert user(result) == [
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "Shown by c:"}, SHOWN]},
    ]


def test_documents_and_search_results() -> None:
    inner = {"type": "content", "content": [{"type": "text", "text": "x"}, IMAGE]}
    search = {"type": "search_result", "title": "t", "source": "s",
              "content": [{"type": "text", "text": "y"}]}  # fmt: skip
    [told] = user({"type": "document", "source": inner, "title": "n"}, search)
    assert told["content"] == [
        {"type": "text", "text": "n"},
        {"type": "text", "text": "x"},
        SHOWN,
        {"type": "text", "text": "t\ns\n\ny"},
    ]


def test_thoughts_go_to_whom_litellm_brings_them() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    body = {"messages": [{"role": "assistant", "content": [thought]}]}
    assert messages_of(body, PLAIN) == []
    [told] = messages_of(body, CLAUDE)
    assert (told["thinking_blocks"], told["reasoning_content"]) == ([thought], "hm")


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]},
        {"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]},
        {"role": "user", "content": [{"type": "document", "source": {"type": "url"}}]},
        {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}]},
        {"role": "user", "content": [7]},
        {"role": "user", "content": 7},
        {"role": "robot", "content": "a"},
    ],
)
def test_what_a_chat_has_no_word_for_is_not_left_out(message: Json) -> None:
    with pytest.raises(Untranslatable):
        messages_of({"messages": [message]}, PLAIN)
