"""The base of all tables: one database, in which each module has its own."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase): ...
