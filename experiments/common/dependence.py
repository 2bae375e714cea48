"""What a script depends on: the functions, classes and constants of this repository that it reaches by name.

Digests of them leave out what changes no number: comments, docstrings, types, and the words of errors. Not seen are
other packages, and what is reached by a name that is computed.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ALL, REST = "*", ""  # of a file: everything, and what it does at its top beside defining


class Meaning(ast.NodeTransformer):
    """A syntax tree without what changes no number."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """A statement, unless it is a text."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        """An error, without its words."""
        return ast.Raise()

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """An argument, without its type."""
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """A function, without the type of what it returns."""
        node.returns = None
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        """A formatted text, without the empty parts that Python 3.12.1 sees in it."""
        node.values = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        return self.generic_visit(node)


class Source(NamedTuple):
    """A file of the repository."""

    imports: Mapping[str, str]  # by the name in this file, such as {"launch": "common.launch"}
    parts: Mapping[str, ast.stmt]  # what is defined at its top, by name
    rest: tuple[ast.stmt, ...]  # what else is done there


@functools.cache
def source_of(path: Path) -> Source:
    """What is in a file."""
    tree = ast.parse(path.read_text())
    imports: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name.split(".")[0]
                imports |= {alias.asname: alias.name} if alias.asname else {name: name}
        elif isinstance(node, ast.ImportFrom):
            imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    parts: dict[str, ast.stmt] = {}
    rest = []
    for node in Meaning().visit(tree).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            inner = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
            parts |= dict.fromkeys(inner, node)
        elif not isinstance(node, ast.Import | ast.ImportFrom):
            rest.append(node)
    return Source(imports, parts, tuple(rest))


def used(node: ast.AST) -> Iterator[str]:
    """The names in code, each with the attributes that follow it, such as pgjax.rlhf.feedback."""
    words: list[str] = []
    inner = node
    while isinstance(inner, ast.Attribute):
        words.append(inner.attr)
        inner = inner.value
    if isinstance(inner, ast.Name):
        yield ".".join([inner.id, *reversed(words)])
        return
    for child in ast.iter_child_nodes(inner):
        yield from used(child)


Place = tuple[Path, str]  # a file, and a name in it


@functools.cache
def place_of(root: Path, dotted: str) -> Place | None:
    """The place in the repository that a dotted name leads to; None if it leads elsewhere."""
    words = dotted.split(".")
    for n in range(len(words), 0, -1):
        for path in (root.joinpath(*words[:n]), root.joinpath("experiments", *words[:n])):
            if path.with_suffix(".py").is_file():
                return path.with_suffix(".py"), words[n] if n < len(words) else ALL
            listed = path / "__init__.py"
            if listed.is_file():
                there = source_of(listed).imports
                if n < len(words) and words[n] in there:
                    return place_of(root, ".".join([there[words[n]], *words[n + 1 :]]))
                return listed, ALL
    return None


@functools.cache
def reached_from(root: Path, place: Place) -> frozenset[Place]:
    """Where the code at a place leads, in one step."""
    return frozenset(there for there in steps_from(root, place) if there is not None)


def steps_from(root: Path, place: Place) -> Iterator[Place | None]:
    """The same, one by one, None for what leads out of the repository."""
    path, name = place
    source = source_of(path)
    if name not in source.parts and name != REST:
        if name in source.imports:  # that it has from elsewhere
            yield place_of(root, source.imports[name])
            return
        yield from ((path, part) for part in source.parts)
        if path.name == "__init__.py":
            yield from (place_of(root, dotted) for dotted in source.imports.values())
    if name != REST:
        yield path, REST
    for node in code_at(place):
        for dotted in used(node):
            first, _, more = dotted.partition(".")
            if first in source.parts:
                yield path, first
            elif first in source.imports:
                yield place_of(root, f"{source.imports[first]}.{more}".rstrip("."))


def code_at(place: Place) -> tuple[ast.stmt, ...]:
    """The statements at a place; none where it stands for others."""
    source = source_of(place[0])
    return source.rest if place[1] == REST else tuple(source.parts[name] for name in [place[1]] if name in source.parts)


def spelled(node: Any) -> str:
    """A syntax tree in words, which are the same in all versions of Python: those of `ast.dump` are not."""
    if isinstance(node, ast.AST):
        fields = ", ".join(
            f"{name}={spelled(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])
        )
        return f"{type(node).__name__}({fields})"
    return f"[{', '.join(map(spelled, node))}]" if isinstance(node, list) else repr(node)


@functools.cache
def digest(node: ast.stmt) -> str:
    """A digest of what a statement means."""
    return hashlib.sha256(spelled(node).encode()).hexdigest()


def code_of(root: Path, script: Path) -> dict[str, str]:
    """Eight hexadecimal digits of what a script depends on in each file of a repository, by the file's path."""
    seen: set[Place] = set()
    waiting: list[Place] = [(script, ALL)]
    while waiting:
        place = waiting.pop()
        if place not in seen:
            seen.add(place)
            waiting += reached_from(root, place)
    found: dict[str, list[str]] = {}
    for place in sorted(seen):
        found.setdefault(place[0].relative_to(root).as_posix(), []).extend(map(digest, code_at(place)))
    return {path: hashlib.sha256(" ".join(all_).encode()).hexdigest()[:8] for path, all_ in found.items() if all_}
