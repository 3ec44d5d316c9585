"""Command templates: what is taken, what is refused, and how a task is filled in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgmem.errors import ConfigurationError
from cgmem.tasks.agent_command import PLACEHOLDERS, AgentCommand, Said, agent_command

TASK = {name: f"<{name}>" for name in PLACEHOLDERS}


def checked(**said: object) -> AgentCommand:
    """Check values as if a file had them."""
    found = {key: Said(value, f"f.yaml: {key}", "/home/me") for key, value in said.items()}
    return agent_command(found, agent_type="qa")


@pytest.mark.parametrize(
    "command", ["npx 'my agent' -p {prompt}", ["npx", "my agent", "-p", "{prompt}"]]
)
def test_a_line_is_split_like_a_shells_and_a_list_is_taken_as_it_is(command: object) -> None:
    """Both ways to write a command give the same words."""
    assert checked(command=command).command == ("npx", "my agent", "-p", "{prompt}")


def test_everything_is_filled_in() -> None:
    """Placeholders are replaced in words, standard input and variables; cwd is a path."""
    template = checked(
        command=["a", "x{prompt}y", '{"json": 1}'],
        stdin="{task}\n{agent_type}",
        cwd="work",
        env={"ID": "{subprocess_id}", "IN": "{working_directory}"},
    )

    assert template.filled(TASK) == (
        ("a", "x<prompt>y", '{"json": 1}'),
        "<task>\n<agent_type>",
        "/home/me/work",
        {"ID": "<subprocess_id>", "IN": "<working_directory>"},
    )


@given(st.text())
def test_a_prompt_is_one_word_and_is_not_read_again(prompt: str) -> None:
    """Whatever a prompt holds (quotes, `$(…)`, placeholders), it arrives as one word, unchanged."""
    filled = checked(command=["a", "{prompt}"], stdin="{prompt}").filled({**TASK, "prompt": prompt})

    assert filled.command == ("a", prompt)
    assert filled.stdin == prompt


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "no command is configured for agent type 'qa'"),
        ({"stdin": "{prompt}"}, "no command is configured for agent type 'qa'"),
        ({"command": ""}, "f.yaml: command: the command is empty"),
        ({"command": [""]}, "f.yaml: command: the command is empty"),
        ({"command": "a 'b"}, "f.yaml: command: .*No closing quotation"),
        ({"command": ["a", 1]}, "f.yaml: command: .* is no command"),
        ({"command": 7}, "f.yaml: command: 7 is no command"),
        ({"command": "a {promt}"}, "f.yaml: command: '{promt}' stands for nothing"),
        ({"command": "a", "stdin": 1}, "f.yaml: stdin: 1 is not text"),
        ({"command": "a", "env": "A=1"}, "f.yaml: env: 'A=1' is no mapping"),
        ({"command": "a", "env": {"A=": "1"}}, "f.yaml: env: 'A=': '1' is no variable"),
        ({"command": "a", "env": {"A": 1}}, "f.yaml: env: 'A': 1 is no variable"),
        ({"command": ["a\0"]}, "NUL"),
        ({"command": "a", "cwd": ""}, "f.yaml: cwd: '' is not a path"),
    ],
)
def test_a_wrong_template_is_refused(said: dict[str, object], message: str) -> None:
    """The error names the value and where it was found."""
    with pytest.raises(ConfigurationError, match=message):
        checked(**said)


def test_the_hint_says_where_to_write_one() -> None:
    """Without a command the hint is what to write."""
    with pytest.raises(ConfigurationError) as caught:
        checked()

    assert "agent_types.qa" in str(caught.value.hint)
    assert "{prompt}" in str(caught.value.hint)


def test_a_typing_error_in_a_placeholder_is_guessed() -> None:
    """The hint names the placeholder that was meant."""
    with pytest.raises(ConfigurationError) as caught:
        checked(command="a {promt}")

    assert caught.value.hint == "did you mean prompt?"
