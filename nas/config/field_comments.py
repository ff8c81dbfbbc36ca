"""The comments beside the fields of a class in the source: the one place where configuration keys are explained."""

import ast
import inspect
import io
import textwrap
import tokenize
from functools import cache

from pydantic import BaseModel


@cache
def field_comments(model: type[BaseModel]) -> dict[str, str]:
    """The comment of every field that has one, by the field's name, as one line.

    A comment stands after its field, or else in the lines right above it. Fields of base classes are included.
    """
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            found.update(_own_comments(owner))
    return {name: found[name] for name in model.model_fields if name in found}


def summary(model: type[BaseModel]) -> str:
    """The first line of a class's docstring."""
    return (inspect.getdoc(model) or "").partition("\n")[0]


def _own_comments(owner: type[BaseModel]) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(owner))
    beside, alone = _comments_by_line(source)
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            parts = [beside[line] for line in lines if line in beside] or _above(alone, node.lineno)
            if parts:
                found[node.target.id] = " ".join(parts)
    return found


def _comments_by_line(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """Comments by line number: those after code, and those on lines of their own."""
    beside: dict[int, str] = {}
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_alone = token.line[: token.start[1]].isspace()
            (alone if is_alone else beside)[token.start[0]] = token.string.lstrip("# ")
    return beside, alone


def _above(alone: dict[int, str], line: int) -> list[str]:
    """The comment that ends right above a line."""
    first = line
    while first - 1 in alone:
        first -= 1
    return [alone[number] for number in range(first, line)]
