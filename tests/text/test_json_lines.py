import json

import pytest

import pgjax
from pgjax.text.json_lines import objects, prompt_of

CHAT = [{"role": "system", "content": "Be {brief}."}, {"role": "user", "content": "Hi\n"}]


def read(path):
    return list(objects(path, "things", "a and b"))


def test_objects_are_read_line_by_line_and_say_where_they_stand(tmp_path):
    path = tmp_path / "lines"
    text = '{"a": "\u2028\\n"}\r\n{"a": 1}\n\n  \n'
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(path) == [(f"{path}, line 1", {"a": "\u2028\n"}), (f"{path}, line 2", {"a": 1})]
    first = next(objects(path, "things", "a and b"))
    path.write_text(json.dumps({"a": 2}) + "\nno JSON")
    assert next(objects(path, "things", "a and b")) != first  # what stands behind a line is not yet looked at


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file of things, got .*lines: No such file"),
        (b"", "expected one or more things in .*lines, got an empty file"),
        (b"\n \n", "expected one or more things in .*lines, got an empty file"),
        (b"{}\n\n{}", "lines, line 2: expected JSON, got '': Expecting value"),
        (b"{}\n{a}", "lines, line 2: expected JSON, got '{a}': Expecting property name"),
        (b"[]", "lines, line 1: expected an object with a and b, got list"),
        (b"\xff", "expected things in UTF-8 in .*lines, got a byte that is none after line 0"),
    ],
)
def test_a_file_of_anything_else_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "lines").write_bytes(content)
    with pytest.raises(pgjax.InputError, match=message):
        read(tmp_path / "lines")


def test_a_chat_is_a_text_as_its_template_says():
    assert prompt_of("Hi") == "Hi"
    assert prompt_of(CHAT, "<{role}>{content}</{role}>") == "<system>Be {brief}.</system><user>Hi\n</user><assistant>"
    assert prompt_of(CHAT, lambda messages: " ".join(message["role"] for message in messages)) == "system user"


@pytest.mark.parametrize("template", ["", "{role}", "{content} {time}", "{content", "{0}{content}", "{content.x}"])
def test_what_is_no_template_is_refused(template):
    with pytest.raises(
        pgjax.InputError, match="expected a template with {role} and {content}, got ".replace("{", r"\{")
    ):
        prompt_of(CHAT, template)
