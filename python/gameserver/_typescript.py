"""The schema document (docs/wire.md) as TypeScript declarations for the browser client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

__all__ = ["typescript"]

SCALARS = {
    "bool": "boolean",
    "str": "string",
    "bytes": "Uint8Array",
    **dict.fromkeys(["f64", "f32", "i32", "u32", "s32", "fixed32", "sfixed32"], "number"),
    **dict.fromkeys(["i64", "u64", "s64", "fixed64", "sfixed64"], "bigint"),
}
# What the file itself uses, and what TypeScript has made up its mind about.
TAKEN = frozenset(
    [
        "Any",
        "BigInt64Array",
        "BigUint64Array",
        "Error",
        "Float32Array",
        "Float64Array",
        "GameClient",
        "Given",
        "Int16Array",
        "Int32Array",
        "Int8Array",
        "Map",
        "NumberArray",
        "Promise",
        "ReadonlyMap",
        "Tables",
        "World",
        "PushOf",
        "Pushes",
        "Record",
        "Refused",
        "RequestOf",
        "ResponseOf",
        "RouteOf",
        "Routes",
        "Uint16Array",
        "Uint32Array",
        "Uint8Array",
        "any",
        "as",
        "bigint",
        "boolean",
        "break",
        "case",
        "catch",
        "class",
        "const",
        "continue",
        "debugger",
        "default",
        "delete",
        "do",
        "else",
        "enum",
        "export",
        "extends",
        "false",
        "finally",
        "for",
        "function",
        "if",
        "implements",
        "import",
        "in",
        "instanceof",
        "interface",
        "let",
        "never",
        "new",
        "null",
        "number",
        "object",
        "package",
        "private",
        "protected",
        "public",
        "return",
        "static",
        "string",
        "super",
        "switch",
        "symbol",
        "this",
        "throw",
        "true",
        "try",
        "type",
        "typeof",
        "undefined",
        "unknown",
        "var",
        "void",
        "while",
        "with",
        "yield",
    ]
)

HEADER = """\
// Messages and routes of {name}, for TypeScript and for JSDoc. Written by `gameserver schema ts`: do not edit.
//
//     import {{ connect }} from '/gameserver.js';
//     const client: GameClient = await connect();
"""

CLIENT = """\
/** What may be given for a message: anything may be left out, a safe integer stands for a bigint, a `Map` for a map. */
export type Given<T> = T extends bigint
  ? bigint | number
  : T extends number | string | boolean | Uint8Array
    ? T
    : T extends (infer Item)[]
      ? readonly Given<Item>[] | NumberArray<Item>
      : string extends keyof T
        ? { readonly [key: string]: Given<T[keyof T]> } | Map<string | number | bigint | boolean, Given<T[keyof T]>>
        : { readonly [Name in keyof T]?: Given<T[Name]> | null };
type NumberArray<Item> = number extends Item
  ? Int8Array | Uint8Array | Int16Array | Uint16Array | Int32Array | Uint32Array | Float32Array | Float64Array
  : bigint extends Item
    ? BigInt64Array | BigUint64Array
    : never;

/** A route of a room, as `Move@17`, carries what `Move` does. */
type RouteOf<Route extends string> = Route extends `${infer Name}@${bigint}` ? Name : Route;
type RequestOf<Route extends string> = RouteOf<Route> extends keyof Routes ? Given<Routes[RouteOf<Route>]['request']> : unknown;
type ResponseOf<Route extends string> = RouteOf<Route> extends keyof Routes ? Routes[RouteOf<Route>]['response'] : any;
type PushOf<Route extends string> = RouteOf<Route> extends keyof Pushes ? Pushes[RouteOf<Route>] : any;

/** What an error answer says. */
export interface Refused extends Error {
  code: string;
  metadata: Record<string, string>;
}

/** The client of gameserver.js, with the types of this game. Routes without a message carry JSON, which is not checked. */
export interface GameClient {
  request(route: string, body: Uint8Array, options?: { timeout?: number }): Promise<Uint8Array>;
  request<Route extends string>(
    route: Route,
    body: RequestOf<Route>,
    options: { timeout?: number; raw: true },
  ): Promise<Uint8Array>;
  request<Route extends string>(route: Route, body?: RequestOf<Route>, options?: { timeout?: number }): Promise<ResponseOf<Route>>;
  notify(route: string, body: Uint8Array): boolean;
  notify<Route extends string>(route: Route, body?: RequestOf<Route>): boolean;
  on(route: '$error', listener: (error: Refused, route: string) => void): () => void;
  on(route: string, listener: (body: Uint8Array, route: string) => void, options: { raw: true }): () => void;
  on<Route extends string>(route: Route, listener: (body: PushOf<Route>, route: string) => void): () => void;
  off(route: string, listener?: (body: any, route: string) => void): void;
  onKick(listener: (reason: string) => void): () => void;
  onDisconnect(listener: (event: { error: Refused; retryIn: number | null }) => void): () => void;
  onReconnect(listener: () => void): () => void;
  onDrop(listener: (event: { error: Refused; retryIn: number | null }) => void): () => void;
  onResume(listener: () => void): () => void;
  input<Route extends string>(route: Route, body?: RequestOf<Route>): void;
  retryNow(): void;
  close(): void;
  readonly state: 'connecting' | 'open' | 'waiting' | 'closed';
  readonly session: string | null;
  readonly isResumed: boolean;
  /** Null unless it was asked for: `connect(url, { world: true })`. */
  readonly world: World | null;
}

/** What is seen of the replicated world. */
export interface World {
  readonly entities: { readonly [Table in keyof Tables]: ReadonlyMap<bigint, Tables[Table]> };
  readonly tick: number;
  readonly tickRate: number;
  mine<Table extends keyof Tables>(table: Table): Tables[Table] | null;
  onAdd<Table extends keyof Tables>(table: Table, listener: (entity: Tables[Table]) => void): () => void;
  onChange<Table extends keyof Tables>(table: Table, listener: (entity: Tables[Table]) => void): () => void;
  onRemove<Table extends keyof Tables>(table: Table, listener: (entity: Tables[Table]) => void): () => void;
  sample(now?: number): { readonly [Table in keyof Tables]: readonly Tables[Table][] };
  serverTick(now?: number): number;
}
"""

ENTITY_COLUMNS = {
    **dict.fromkeys(["i8", "u8", "i16", "u16", "i32", "u32", "f32", "f64"], "number"),
    **dict.fromkeys(["i64", "u64"], "bigint"),
    "bool": "boolean",
    "str": "string",
    "bytes": "Uint8Array",
    "entity": "bigint | null",
}
"""TypeScript's types of columns; others are made of these."""


def typescript(document: Mapping[str, Any], name: str) -> str:
    """Declarations of a game's messages, enums and routes, as one module that needs no other.

    Args:
        document: as docs/wire.md describes it.
        name: of the game.

    >>> document = {"messages": {"Move": [[1, "dx", "f32"], [2, "to", ".Move"]]}, "pushes": {"Move": "Move"}}
    >>> print(typescript(document, "arena"))
    // Messages and routes of arena, ...
    export interface Move {
      dx: number;
      to?: Move;
    }
    ...
    """
    messages, enums = document.get("messages", {}), document.get("enums", {})
    names = _names([*messages, *enums])
    parts = [HEADER.format(name=" ".join(name.split()))]
    parts += [f"export type {names[enum]} = {_union(numbers)};\n" for enum, numbers in enums.items()]
    parts += [_message(names[message], fields, names, enums) for message, fields in messages.items()]
    parts += [_routes(document.get("routes", {}), names), _pushes(document.get("pushes", {}), names)]
    parts += [_tables(document.get("world", {}).get("tables", [])), CLIENT]
    return "\n".join(parts)


def _names(full: Sequence[str]) -> dict[str, str]:
    """Full names -> TypeScript's: without the package that all share, as long as no two become one."""
    scopes = [name.split(".")[:-1] for name in full]
    shared = 0
    while scopes and all(len(scope) > shared and scope[shared] == scopes[0][shared] for scope in scopes):
        shared += 1
    names: dict[str, str] = {}
    for name in full:
        short = "_".join(name.split(".")[shared:])
        while short in TAKEN or short in names.values():
            short += "_"
        names[name] = short
    return names


def _message(name: str, fields: Iterable[Sequence[Any]], names: Mapping[str, str], enums: Mapping[str, Any]) -> str:
    lines = [f"export interface {name} {{"]
    for _, field, kind, *more in fields:
        label = more[0] if more else ""
        is_message = kind.startswith(".") and kind[1:] not in enums
        type_ = _type(kind, names, enums)
        if label in ("repeated", "unpacked"):
            type_ = f"({type_})[]" if " " in type_ else f"{type_}[]"
        elif label == "map":
            type_ = f"Record<string, {type_}>"
        if label == "oneof":
            lines.append(f"  /** At most one of {more[1]} is there. */")
        optional = label in ("optional", "oneof") or (is_message and not label)
        lines.append(f"  {field}{'?' if optional else ''}: {type_};")
    return "\n".join([*lines, "}", ""])


def _type(kind: str, names: Mapping[str, str], enums: Mapping[str, Any]) -> str:
    if not kind.startswith("."):
        return SCALARS[kind]
    return f"{names[kind[1:]]} | number" if kind[1:] in enums else names[kind[1:]]


def _union(numbers: Mapping[str, int]) -> str:
    """A number's first name is what is read, and every name can be written."""
    return " | ".join(_text(name) for name in numbers) or "never"


def _routes(routes: Mapping[str, Mapping[str, str]], names: Mapping[str, str]) -> str:
    lines = ["/** What requests and notifies carry, and what answers them. */", "export interface Routes {"]
    for route, given in routes.items():
        request = names[given["request"]] if "request" in given else "unknown"
        response = names[given["response"]] if "response" in given else "any"
        lines.append(f"  {_property(route)}: {{ request: {request}; response: {response} }};")
    return "\n".join([*lines, "}", ""])


def _pushes(pushes: Mapping[str, str], names: Mapping[str, str]) -> str:
    lines = ["/** What the server pushes. */", "export interface Pushes {"]
    lines += [f"  {_property(route)}: {names[message]};" for route, message in pushes.items()]
    return "\n".join([*lines, "}", ""])


def _tables(tables: Iterable[Mapping[str, Any]]) -> str:
    """Entities by their table: a column that its client may not be told is null."""
    lines = ["/** Entities of the replicated world, by class. */", "export interface Tables {"]
    for table in tables:
        lines += [f"  {_property(table['name'])}: {{", "    readonly id: bigint;"]
        for column in table["columns"]:
            may_miss = " | null" if "to" in column and column["type"] != "entity" else ""
            lines.append(f"    readonly {_property(column['name'])}: {_column(column)}{may_miss};")
        lines.append("  };")
    return "\n".join([*lines, "}", ""])


def _column(column: Mapping[str, Any]) -> str:
    match column["type"]:
        case "enum":
            return " | ".join(_text(name) for name in column["names"])
        case "vector":
            return f"readonly [{', '.join(['number'] * column['length'])}]"
        case "list":
            return f"readonly {ENTITY_COLUMNS[column['of']]}[]"
    return ENTITY_COLUMNS[column["type"]]


def _property(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_$][A-Za-z0-9_$]*", name) else _text(name)


def _text(text: str) -> str:
    return "'" + "".join(_escaped(text)) + "'"


def _escaped(text: str) -> Iterator[str]:
    for char in text:
        if char in "'\\":
            yield "\\" + char
        elif char.isprintable():
            yield char
        else:  # a route is opaque: a line's end in it must not end ours
            yield "".join(f"\\u{int.from_bytes(unit, 'big'):04x}" for unit in _units(char))


def _units(char: str) -> list[bytes]:
    encoded = char.encode("utf-16-be", "surrogatepass")
    return [encoded[at : at + 2] for at in range(0, len(encoded), 2)]
