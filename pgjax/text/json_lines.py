"""Files of JSON lines, read line by line: objects, and the texts in them, which may be those of a chat."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgjax.errors import InputError
from pgjax.paths import full_path

# How a message of a chat is written. An answer begins where its content does.
CHAT = "{role}: {content}\n"
ANSWERS = "assistant"  # whose content the answer is

Template = str | Callable[[Sequence[Mapping[str, str]]], str]


def objects(path: str | Path, what: str, fields: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with the words that say where it stands; no more than a line is held.

    A byte order mark is passed over, and so are blank lines at the end.

    Args:
        path: Of the file.
        what: What it holds, as errors say it.
        fields: And what an object has.

    Raises:
        InputError: If it cannot be read, nothing is in it, or a line is no object of JSON: it names the line.
    """
    path, number, blank = full_path(path), 0, ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                where = f"{path}, line {number}"
                if line.strip():
                    yield where, parsed(blank or where, "" if blank else line.rstrip("\n"), fields)
                else:
                    blank = blank or where
    except UnicodeDecodeError as error:
        raise InputError(f"expected {what} in UTF-8 in {path}, got a byte that is none after line {number}") from error
    except OSError as error:
        raise InputError(f"expected a file of {what}, got {path}: {error.strerror}") from error
    if not number or blank.endswith(", line 1"):
        raise InputError(f"expected one or more {what} in {path}, got an empty file")


def parsed(where: str, written: str, fields: str) -> dict[str, Any]:
    """The object that a line is.

    Raises:
        InputError: If it is none of JSON, in a sentence that begins with `where` and says what `fields` it has.
    """
    try:
        found = json.loads(written)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets as deep
        why = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(f"{where}: expected JSON, got {written[:40]!r}: {why}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where}: expected an object with {fields}, got {type(found).__name__}")
    return found


def prompt_of(value: Any, template: Template = CHAT) -> str:
    r"""A prompt as a text: itself, or the messages of a chat by a template, as far as where the answer begins.

    Args:
        value: A text, or messages `{"role": …, "content": …}`.
        template: Of a message, with {role} and {content}; or a function of all messages.

    Raises:
        InputError: If it is neither, or the template is none.

    Example:
        >>> prompt_of([{"role": "user", "content": "Who is there?"}])
        'user: Who is there?\nassistant: '
    """
    if isinstance(value, str):
        return value
    messages = messages_of(value, "a prompt")
    if callable(template):
        return template(messages)
    try:
        if "{content}" not in template:
            raise KeyError("content")
        said = "".join(template.format(role=message["role"], content=message["content"]) for message in messages)
        return said + template.partition("{content}")[0].format(role=ANSWERS)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise InputError(f"expected a template with {{role}} and {{content}}, got {template!r}") from error


def answer_of(value: Any, what: str) -> str:
    """An answer as a text: itself, or the content of the one message of a chat that it is.

    Raises:
        InputError: If it is neither, in a sentence that says what it is.
    """
    if isinstance(value, str):
        return value
    messages = messages_of(value, what)
    if len(messages) != 1:
        raise InputError(f"expected {what} of one message, got {len(messages)}")
    return messages[0]["content"]


def messages_of(value: Any, what: str) -> list[dict[str, str]]:
    """The messages of a chat.

    Raises:
        InputError: If it is no text and no messages.
    """
    if not isinstance(value, list) or not value:
        raise InputError(f"expected {what} that is a text, got {type(value).__name__}")
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise InputError(f"expected messages with a role and a content that are texts, got {str(message)[:60]}")
    return value
