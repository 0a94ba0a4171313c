"""What another provider has said, as Anthropic takes it."""

from __future__ import annotations

from typing import Any

from proxy.upstream.history import presentable, spoken

TEXT = {"type": "text", "text": "a"}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def test_what_anthropic_has_said_stays_the_same_object() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    use = {"type": "tool_use", "id": "toolu_1-a", "name": "n", "input": {}}
    messages = [{"role": "user", "content": "a"}, assistant(thought, TEXT, use), 7]
    assert presentable(messages) is messages
    assert presentable("nonsense") == "nonsense"


def test_a_thought_that_nobody_has_signed_is_left_out() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    told = presentable([assistant(thought, TEXT), assistant(thought), assistant(TEXT)])
    assert told == [assistant(TEXT), assistant(TEXT)]


def test_a_call_and_its_result_keep_one_id() -> None:
    use = {"type": "tool_use", "id": "f.look:0", "name": "n", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "f.look:0", "content": "x"}
    messages = [assistant(use), {"role": "user", "content": [result]}]
    told: Any = presentable(messages)
    assert told[0]["content"][0]["id"] == told[1]["content"][0]["tool_use_id"] == "f_look_0"
    assert messages[0]["content"][0]["id"] == "f.look:0"  # the next target's is as it was


def test_a_refusal_is_something_that_was_said() -> None:
    hello = {"role": "user", "content": "a"}
    whole = {"role": "assistant", "content": None, "refusal": "no"}
    part = assistant(TEXT, {"type": "refusal", "refusal": "no"})
    both = {"role": "assistant", "content": "well", "refusal": "no"}
    no, well = {"type": "text", "text": "no"}, {"type": "text", "text": "well"}
    assert spoken([hello, whole, part, both]) == [
        hello, assistant(no), assistant(TEXT, no), assistant(well, no),
    ]  # fmt: skip
    assert whole["refusal"] == "no"  # the next target's is as it was


def test_where_nothing_is_refused_the_messages_stay_the_same_object() -> None:
    messages = [{"role": "assistant", "content": "a", "refusal": None}, assistant(TEXT, 7), 7]
    assert spoken(messages) is messages
    assert spoken("nonsense") == "nonsense"


def test_a_part_that_is_none_stays_beside_a_refusal() -> None:
    text = {"type": "text", "text": "no"}
    asked = [{"role": "assistant", "content": ["bare", 5], "refusal": "no"}]
    assert spoken(asked) == [{"role": "assistant", "content": ["bare", 5, text]}]
