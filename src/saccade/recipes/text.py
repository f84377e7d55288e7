"""YAML text to a tree of values with origins. Reading executes nothing and can't be made to use much time or memory.

Scalars follow the YAML 1.2 core schema, so `1e-3` is a number and `no` is a word. The only tag is `!delete`; anchors and aliases work within a limit.
"""
from __future__ import annotations

import re
from typing import Any

import yaml

from saccade.errors import InputError
from saccade.recipes.tree import DELETE, Node

MAX_BYTES, MAX_NODES, MAX_DEPTH = 262_144, 20_000, 40
_TIGHT_DELETE = re.compile(r"!delete(?=[,}\]])")
_INT = re.compile(r"[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False, ".inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
_PLAIN_TAGS = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"}
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def parse_yaml(text: str, name: str, line_origins: bool = True) -> Node:
    """The tree of `text`; origins are `name:line`, or `name` alone for text that has no lines of its own (the command line)."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{name} has {len(text)} characters; a recipe has at most {MAX_BYTES}. Is it really a recipe?")
    text = _TIGHT_DELETE.sub("!delete ", text)  # YAML wants a blank between a tag and a bracket; nobody expects that
    try:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise InputError(f"{name}:{line}: nested more than {MAX_DEPTH} levels deep, which no recipe needs")
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise InputError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if root is None:
        return Node({}, name)
    return _Reader(name, line_origins).read(root)


class _Reader:
    def __init__(self, name: str, line_origins: bool) -> None:
        self.name, self.line_origins, self.count = name, line_origins, 0

    def origin(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}" if self.line_origins else self.name

    def read(self, node: yaml.Node) -> Node:
        self.count += 1
        origin = self.origin(node)
        if self.count > MAX_NODES:
            raise InputError(f"{origin}: more than {MAX_NODES} values once its aliases are written out; a recipe is smaller")
        if node.tag == "!delete":
            return Node(DELETE, origin)
        if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
            raise InputError(f"{origin}: the tag {node.tag!r} is not allowed; recipes are plain data, the only tag is !delete")
        if isinstance(node, yaml.MappingNode):
            return Node(self.read_mapping(node), origin)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.read(child) for child in node.value], origin)
        assert isinstance(node, yaml.ScalarNode)
        return Node(_scalar(node), origin)

    def read_mapping(self, node: yaml.MappingNode) -> dict[str, Node]:
        result: dict[str, Node] = {}
        first: dict[str, str] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError(f"{self.origin(key_node)}: a key must be a word")
            key = str(key_node.value)
            if key in result:
                raise InputError(f"{self.origin(key_node)}: the key {key!r} stands here a second time (first: {first[key]}); remove one of them")
            first[key] = self.origin(key_node)
            result[key] = self.read(value_node)
            if self.line_origins:
                result[key].origin = self.origin(key_node)
        return result


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.style:  # quoted or block text is text
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return text


def to_text(value: Any) -> str:
    """A plain value as one line of YAML, as it would be written in a recipe."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True).removesuffix("\n").removesuffix("\n...")
