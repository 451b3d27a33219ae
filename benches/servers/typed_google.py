"""The same by google's protobuf (upb) in a handler of bytes: how one did it before."""

from __future__ import annotations

from typing import Any

from benches.servers.announce import announce
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from gameserver import App, Session

Field = descriptor_pb2.FieldDescriptorProto
FIELDS = (("seq", Field.TYPE_UINT32), ("x", Field.TYPE_FLOAT), ("y", Field.TYPE_FLOAT), ("note", Field.TYPE_STRING))

file = descriptor_pb2.FileDescriptorProto(name="bench.proto", syntax="proto3")
for name, fields in (("Move", FIELDS), ("Moved", FIELDS[:3])):
    message = file.message_type.add(name=name)
    for number, (field, kind) in enumerate(fields, 1):
        message.field.add(name=field, number=number, type=kind, label=Field.LABEL_OPTIONAL)
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
Move: Any
Moved: Any
Move, Moved = (message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in ("Move", "Moved"))

app = App("bench-typed-google")
announce(app)


@app.on("echo")
def move(session: Session, body: bytes) -> bytes:
    msg = Move.FromString(body)
    return Moved(seq=msg.seq, x=msg.x, y=msg.y).SerializeToString()  # type: ignore[no-any-return]


if __name__ == "__main__":
    app.run(port=0, log_level="warning", serializer="protobuf")
