"""What a class's body said: kept until its annotations can be read, and for errors that name the line."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar

from gameserver._fields import line_of
from gameserver.errors import SchemaError

__all__ = ["Source", "annotations_of"]


class Source:
    """What a class's body said, until its annotations can be read: they may name what is defined later."""

    __slots__ = ("annotations", "defaults", "line", "locals", "module", "scope")

    def __init__(self, namespace: Mapping[str, Any], annotations: dict[str, Any], frame: types.FrameType) -> None:
        self.annotations = annotations
        self.defaults = {name: namespace[name] for name in annotations if name in namespace}
        self.module: str = namespace["__module__"]
        self.scope = namespace["__qualname__"].rpartition(".")[0]
        self.locals = {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
        self.line = frame.f_lineno

    def place(self, qualname: str) -> tuple[str, int]:
        """File and line, as well as the source tells."""
        return line_of(self.module, qualname, None, self.line)

    def mistake(self, qualname: str, field: str | None, text: str) -> SchemaError:
        file, line = line_of(self.module, qualname, field, self.line)
        return SchemaError(f"{file}:{line}: {qualname}{'.' + field if field else ''}: {text}")

    def read(self) -> dict[str, Any]:
        """The annotations, evaluated.

        Raises:
            NameError: they name what is not there yet.
        """
        namespace = {**vars(sys.modules[self.module])} if self.module in sys.modules else {}
        holder = types.SimpleNamespace(__annotations__=self.annotations)
        return typing.get_type_hints(holder, namespace, self.locals, include_extras=True)


def annotations_of(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """A class body's annotations, without those of class variables."""
    return {
        attribute: annotation
        for attribute, annotation in namespace.get("__annotations__", {}).items()
        if not _is_class_variable(annotation)
    }


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.replace(" ", "").startswith(("ClassVar", "typing.ClassVar"))
    return annotation is ClassVar or typing.get_origin(annotation) is ClassVar
