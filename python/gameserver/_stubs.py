"""What `load_protos` gives, as a stub file for type checkers and editors."""

from __future__ import annotations

import enum
import keyword
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gameserver._fields import PROTO_ENUMS, FieldShape
from gameserver._message import shape_of
from gameserver._protos import load_protos

__all__ = ["stub", "stub_path"]

HEADER = '''\
"""Classes of {name}, as load_protos() makes them. Written by `gameserver schema stubs`: do not edit.

    from typing import TYPE_CHECKING
    from gameserver import load_protos

    if TYPE_CHECKING:
        import {module} as messages
    else:
        messages = load_protos("{name}")
"""

import builtins as _py
import enum as _enum

import gameserver as _gs
'''

SCALARS = {
    "bool": "_py.bool",
    "string": "_py.str",
    "bytes": "_py.bytes",
    "float": "_gs.f32",
    "double": "_gs.f64",
    "int32": "_gs.i32",
    "int64": "_gs.i64",
    "uint32": "_gs.u32",
    "uint64": "_gs.u64",
    "sint32": "_gs.s32",
    "sint64": "_gs.s64",
    "fixed32": "_gs.fixed32",
    "fixed64": "_gs.fixed64",
    "sfixed32": "_gs.sfixed32",
    "sfixed64": "_gs.sfixed64",
}


def stub_path(path: Path) -> Path:
    """Where the stub of a `.proto` file, or of a folder of such, belongs."""
    return path / "__init__.pyi" if path.is_dir() else path.with_suffix(".pyi")


def stub(path: Path) -> str:
    """The stub of what ``load_protos(path)`` gives.

    Raises:
        SchemaError: a file is not protobuf (with file, line and column), or nothing is there.
    """
    module = path.resolve().name if path.is_dir() else path.stem
    return HEADER.format(name=path.as_posix(), module=module) + "".join(_Stub(load_protos(path)).lines())


class _Stub:
    """Lines of a stub. Builtins and ours have a prefix, since a field's name hides what is around its class."""

    def __init__(self, classes: Mapping[str, type[Any]]) -> None:
        self._classes = classes
        self._outer = {full: full.rpartition(".")[0] for full in classes}
        tops = [full for full in classes if self._outer[full] not in classes]
        short = [self._last(full) for full in tops if not full.startswith("google.protobuf.")]
        short += [
            self._last(full) for full in tops if full.startswith("google.protobuf.") and self._last(full) not in short
        ]
        self._tops = {full: self._top_name(full, short.count(self._last(full))) for full in tops}
        fields = {
            field.name for cls in classes.values() if not issubclass(cls, enum.Enum) for field in shape_of(cls).fields
        }
        self._hidden = {name for name in self._tops.values() if name in fields}
        self._names = {id(cls): self._path(full) for full, cls in classes.items()}

    def lines(self) -> Iterator[str]:
        for full in self._tops:
            yield "\n"
            yield from self._class(full, "")
        for name in sorted(self._hidden):
            yield f"\n_{name}_ = {name}\n"

    def _class(self, full: str, indent: str) -> Iterator[str]:
        cls = self._classes[full]
        name = self._tops.get(full, self._last(full))
        is_enum = issubclass(cls, enum.Enum)
        yield f"{indent}class {name}({'_enum.IntEnum' if is_enum else '_gs.Message'}):\n"
        indent += "    "
        body = list(self._enum(cls) if is_enum else self._message(full, cls, indent))
        for line in body or ["..."]:
            yield f"{indent}{line}\n" if not line.startswith(" ") else line

    def _enum(self, cls: type[enum.Enum]) -> Iterator[str]:
        for name, number in PROTO_ENUMS[cls].values:
            yield f"{name} = {number}" if _is_name(name) else f"# {name} = {number}"

    def _message(self, full: str, cls: type[Any], indent: str) -> Iterator[str]:
        for inner in self._classes:
            if self._outer[inner] == full and getattr(cls, self._last(inner), None) is self._classes[inner]:
                yield from self._class(inner, indent)
        for field in shape_of(cls).fields:
            mark = "" if _is_name(field.name) else "# "
            yield f"{mark}{field.name}: {self._annotation(field)} = ..."

    def _annotation(self, field: FieldShape) -> str:
        type_ = self._names[id(field.of)] if field.of is not None else SCALARS[field.kind]
        if field.label == "repeated":
            return f"_py.list[{type_}]"
        if field.label == "map":
            assert field.key is not None
            return f"_py.dict[{SCALARS[field.key]}, {type_}]"
        return f"{type_} | None" if field.nullable else type_

    def _path(self, full: str) -> str:
        if full in self._tops:
            name = self._tops[full]
            return f"_{name}_" if name in self._hidden else name
        return f"{self._path(self._outer[full])}.{self._last(full)}"

    def _top_name(self, full: str, count: int) -> str:
        """As an attribute of what load_protos() gives; where that has none, a private one."""
        name = self._last(full)
        return name if count == 1 and _is_name(name) else f"_{full.replace('.', '_')}"

    @staticmethod
    def _last(full: str) -> str:
        return full.rpartition(".")[2]


def _is_name(name: str) -> bool:
    return not keyword.iskeyword(name)
