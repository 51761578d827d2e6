"""Prompts that are conversations: what identifies and what displays them."""

from toxtrail.records.rows import Prompt, Turn, prompt_content

PLAIN = Prompt("s-1", "s", "Bye", "file:x", 0)
TALK = PLAIN._replace(earlier=(Turn("system", "Be kind."), Turn("user", "Hi, \u00e4"),
                               Turn("assistant", "Hello")))  # fmt: skip


def test_a_single_message_is_identified_and_displayed_by_its_text():
    assert (PLAIN.content, PLAIN.transcript) == ("Bye", "Bye")
    assert PLAIN.turns == (Turn("user", "Bye"),)


def test_a_conversation_is_identified_by_all_messages_and_displayed_with_their_roles():
    assert TALK.content == (
        '[["system","Be kind."],["user","Hi, \u00e4"],["assistant","Hello"],["user","Bye"]]'
    )
    assert TALK.content == prompt_content(TALK.turns)
    assert (
        TALK.transcript
        == "[system] Be kind.\n\n[user] Hi, \u00e4\n\n[assistant] Hello\n\n[user] Bye"
    )
