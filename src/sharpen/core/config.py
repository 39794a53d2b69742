"""Frozen dataclasses to and from YAML: overrides, nearest-key hints, file and line in errors.

YAML is read by the rules of version 1.2: ``3e-4`` is a number, ``on`` and ``yes`` are strings, and
a repeated key is an error. Only plain data is built, never an object.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast

import yaml

from sharpen.core.errors import ConfigError, FileFormatError, MissingFileError, did_you_mean

__all__ = [
    "Document",
    "Marks",
    "apply_overrides",
    "digest",
    "dump_yaml",
    "from_dict",
    "json_copy",
    "load_yaml",
    "parse_yaml",
    "read_json",
    "to_dict",
]

T = TypeVar("T")
KeyPath = tuple[str | int, ...]

_MAX_NODES = 200_000  # an alias bomb grows exponentially; real recipes have a few hundred nodes
_MAX_DEPTH = 64
_MAX_BYTES = 16 << 20

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$")
_FLOAT = re.compile(
    r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)


@dataclass
class Marks:
    """Where each value of a document was written, for error messages."""

    file: str = ""
    lines: dict[KeyPath, int] = field(default_factory=dict)
    given: dict[KeyPath, str] = field(default_factory=dict)
    """Values that came from elsewhere than the file, such as the command line."""

    def at(self, path: KeyPath) -> str:
        """``"file:line"`` of the value at ``path``, or of its nearest parent; may be empty."""
        while True:
            if path in self.given:
                return self.given[path]
            if path in self.lines:
                return f"{self.file}:{self.lines[path]}"
            if not path:
                return self.file
            path = path[:-1]


@dataclass
class Document:
    """Plain data read from YAML, with the places it came from."""

    data: Any
    marks: Marks


def load_yaml(path: str | Path) -> Document:
    """Read a YAML file.

    Raises:
        MissingFileError: no such file.
        ConfigError: not UTF-8, not YAML, a repeated key, or unreasonably large.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; give a YAML file.")
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ConfigError(f"{path} has {size} bytes; a YAML file may have {_MAX_BYTES}.")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MissingFileError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8."
        ) from None
    except OSError as error:
        raise MissingFileError(f"cannot read {path}: {error.strerror}") from None
    return parse_yaml(text, file=str(path))


def parse_yaml(text: str, *, file: str = "<string>") -> Document:
    """Read YAML from a string; see :func:`load_yaml`."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid YAML: {type(error).__name__}: {error}") from None
    marks = Marks(file=file)
    if node is None:
        return Document(None, marks)
    return Document(_Builder(marks).build(node, ()), marks)


class _Builder:
    """Turns YAML nodes into plain data, remembering lines and bounding the work."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.count = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        where = f"{self.marks.file}:{node.start_mark.line + 1}"
        if self.count > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise ConfigError(
                f"{where}: the document is too large or too deep (aliases count too)."
            )
        self.marks.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            if node.tag.startswith("!"):
                raise ConfigError(f"{where}: the tag {node.tag} is not allowed; write plain data.")
            return node.value if node.style in ("'", '"', "|", ">") else _scalar(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self.marks.file}:{line}: a key must be a plain word.")
            key = key_node.value
            if key in result:
                raise ConfigError(
                    f"{self.marks.file}:{line}: the key '{key}' is given twice; the first is on "
                    f"line {self.marks.lines[(*path, key)]}. Remove one."
                )
            self.marks.lines[(*path, key)] = line
            result[key] = self.build(value_node, (*path, key))
        return result


def _scalar(text: str) -> Any:
    """A plain scalar by the core schema of YAML 1.2."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text[0] in "tT"
    if _INT.match(text):
        if text.startswith("0o"):
            return int(text[2:], 8)
        return int(text, 16) if text.startswith("0x") else int(text)
    if _FLOAT.match(text):
        return float(re.sub(r"\.(?=[in])", "", text.lower()))  # .inf and .nan lose their dot
    return text


class _Dumper(yaml.SafeDumper):
    """Writes YAML that version 1.2 rules read back unchanged."""


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(_scalar(text), str) else "'"
    if not text.isprintable():  # line separators fold in every style but this one
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = ".nan" if math.isnan(value) else repr(value).replace("inf", ".inf")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.yaml_implicit_resolvers = {}
_Dumper.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, None)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, None)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, None)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, None)
_Dumper.add_representer(str, _represent_str)
_Dumper.add_representer(float, _represent_float)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML text, keys in the given order; :func:`parse_yaml` reads it back equal."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def apply_overrides(document: Document, overrides: Iterable[str] | Mapping[str, Any]) -> Document:
    """Set values by dotted path: ``["train.lr=3e-4"]`` or ``{"train.lr": 3e-4}``.

    Text values are read as YAML. A list is entered by index (``compress.variants.0.bits=8``).
    Missing parents are created; whether a key exists is checked when the config is built.

    Raises:
        ConfigError: not of the form KEY=VALUE, or a path through a value that is no mapping.
    """
    data = json_copy(document.data if document.data is not None else {})
    marks = Marks(document.marks.file, dict(document.marks.lines), dict(document.marks.given))
    pairs: list[tuple[str, Any]] = []
    if isinstance(overrides, Mapping):
        pairs = list(overrides.items())
    else:
        for text in overrides:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                raise ConfigError(
                    f"override {text!r} is not of the form KEY=VALUE, for example train.lr=3e-4."
                )
            pairs.append((key.strip(), parse_yaml(value, file=f"override {text!r}").data))
    for key, value in pairs:
        _set(data, key, value, marks)
    return Document(data, marks)


def json_copy(value: Any) -> Any:
    """A deep copy of plain data."""
    if isinstance(value, Mapping):
        return {k: json_copy(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_copy(v) for v in value]
    return value


def _set(data: Any, key: str, value: Any, marks: Marks) -> None:
    parts = key.split(".")
    if not all(parts):
        raise ConfigError(f"override {key!r}: a part of the path is empty.")
    node = data
    path: list[str | int] = []
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(
                    f"override {key!r}: {'.'.join(map(str, path))} is a list of {len(node)}; "
                    f"{part!r} is not one of its indices 0..{len(node) - 1}."
                )
            index = int(part)
            path.append(index)
            if last:
                node[index] = value
            else:
                node = node[index]
        elif isinstance(node, dict):
            path.append(part)
            if last:
                node[part] = value
            elif node.get(part) is None:
                node[part] = {}
                node = node[part]
            else:
                node = node[part]
        else:
            raise ConfigError(
                f"override {key!r}: {'.'.join(map(str, path))} is {node!r}, not a mapping."
            )
    marks.given[tuple(path)] = f"override {key}"


def digest(value: Any) -> str:
    """blake2b-128 of canonical JSON (sorted keys, shortest floats), as 32 hex digits.

    Raises:
        ValueError: NaN or infinity inside.
    """
    text = json.dumps(
        to_dict(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def to_dict(value: Any) -> Any:
    """A dataclass (nested ones too) as plain data; paths become strings, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return value


def from_dict(
    cls: type[T], data: Any, *, path: str | KeyPath = (), marks: Marks | None = None
) -> T:
    """Build the dataclass ``cls`` from plain data, checking every key and type.

    Args:
        cls: a dataclass; field types may be plain types, ``Literal``, unions, lists, tuples,
            mappings, ``Path`` and other dataclasses.
        data: a mapping, or None for all defaults.
        path: where ``data`` stands in its document, such as ``("train",)`` or ``"train"``.
        marks: the document's marks, for ``file:line`` in messages.

    Raises:
        ConfigError: an unknown key (with the nearest one), a wrong type, a missing or bad value.
    """
    keys: KeyPath = tuple(path.split(".")) if isinstance(path, str) and path else tuple(path)
    return cast(T, _build(cls, data, keys, marks or Marks()))


def _name(path: KeyPath) -> str:
    return ".".join(map(str, path)) or "the document"


def _fail(path: KeyPath, marks: Marks, message: str) -> ConfigError:
    where = marks.at(path)
    return ConfigError(f"{where + ': ' if where else ''}{message}")


def _build(cls: type, data: Any, path: KeyPath, marks: Marks) -> Any:
    if data is None:
        data = {}
    if isinstance(data, cls):
        return data
    if not isinstance(data, Mapping):
        raise _fail(path, marks, f"{_name(path)} must be a mapping of keys, got {data!r}.")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            raise _fail(
                (*path, key),
                marks,
                f"unknown key '{key}' in {_name(path)}.{did_you_mean(str(key), fields)} "
                f"Allowed: {', '.join(sorted(fields))}.",
            )
        values[key] = _convert(hints[key], value, (*path, key), marks)
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise _fail(path, marks, f"{_name(path)} needs the key '{missing[0]}'.")
    try:
        return cls(**values)
    except ConfigError as error:
        # A message that names one of the keys is placed at that key's line.
        named = [k for k in values if re.search(rf"\b{re.escape(k)}\b", str(error))]
        at = (*path, named[0]) if named else path
        where = marks.at(at)
        raise ConfigError(f"{where + ': ' if where else ''}{_name(path)}: {error}") from None


def _describe(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(a) for a in typing.get_args(hint))
    if hint is type(None):
        return "null"
    if origin in (list, tuple, Sequence):
        return "a list"
    if origin in (dict, Mapping) or dataclasses.is_dataclass(hint):
        return "a mapping"
    names = {
        int: "an integer",
        float: "a number",
        str: "text",
        bool: "true or false",
        Path: "a path",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint)))


class _Mismatch(Exception):
    """The value is not of the wanted type."""


def _convert(hint: Any, value: Any, path: KeyPath, marks: Marks) -> Any:
    try:
        return _match(hint, value, path, marks)
    except _Mismatch:
        hint_text = ""
        if isinstance(value, str) and typing.get_origin(hint) is Literal:
            hint_text = did_you_mean(value, map(str, typing.get_args(hint)))
        raise _fail(
            path, marks, f"{_name(path)} must be {_describe(hint)}, got {value!r}.{hint_text}"
        ) from None


def _match(hint: Any, value: Any, path: KeyPath, marks: Marks) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return json_copy(value)
    if origin in (Union, types.UnionType):
        return _match_union(args, value, path, marks)
    if origin is Literal:
        for allowed in args:
            if type(allowed) is type(value) and allowed == value:
                return value
        raise _Mismatch
    if dataclasses.is_dataclass(hint):
        return _build(cast(type, hint), value, path, marks)
    if origin in (list, tuple, Sequence):
        return _match_sequence(origin, args, value, path, marks)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _Mismatch
        return {str(k): _convert(args[1], v, (*path, k), marks) for k, v in value.items()}
    return _match_plain(hint, value)


def _match_union(args: tuple[Any, ...], value: Any, path: KeyPath, marks: Marks) -> Any:
    if value is None and type(None) in args:
        return None
    options = [a for a in args if a is not type(None)]
    mappings = [a for a in options if dataclasses.is_dataclass(a)]
    # One dataclass among the options and a mapping given: report errors inside it, not the union.
    if isinstance(value, Mapping) and len(mappings) == 1:
        return _match(mappings[0], value, path, marks)
    exact = [a for a in options if isinstance(a, type) and type(value) is a]
    for option in exact + options:
        try:
            return _match(option, value, path, marks)
        except (_Mismatch, ConfigError):
            continue
    raise _Mismatch


def _match_sequence(
    origin: Any, args: tuple[Any, ...], value: Any, path: KeyPath, marks: Marks
) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _Mismatch
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        if len(value) != len(args):
            raise _Mismatch
        return tuple(
            _convert(a, v, (*path, i), marks)
            for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    items = [_convert(args[0], v, (*path, i), marks) for i, v in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _match_plain(hint: Any, value: Any) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif hint is Path:
        if isinstance(value, (str, Path)):
            return Path(value)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _Mismatch


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file that Sharpen or a peer wrote.

    Args:
        path: the file.
        what: what it is, in words, for the messages.

    Raises:
        MissingFileError: no such file.
        FileFormatError: not UTF-8 or not JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{what}: no such file: {path}") from None
    except (ValueError, RecursionError) as error:  # also an integer of thousands of digits
        raise FileFormatError(f"{what}: {path} is damaged (not valid JSON): {error}") from None
