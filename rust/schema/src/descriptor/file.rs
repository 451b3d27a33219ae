//! The part of google's `descriptor.proto` that a schema is made of. Editions' features are in it, which `prost-types` drops.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct FileSet {
    #[prost(message, repeated, tag = "1")]
    pub file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
pub struct File {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub package: String,
    #[prost(message, repeated, tag = "4")]
    pub message_type: Vec<Type>,
    #[prost(message, repeated, tag = "5")]
    pub enum_type: Vec<Enum>,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FileOptions>,
    #[prost(string, tag = "12")]
    pub syntax: String,
    #[prost(int32, tag = "14")]
    pub edition: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub field: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    pub nested_type: Vec<Type>,
    #[prost(message, repeated, tag = "4")]
    pub enum_type: Vec<Enum>,
    #[prost(message, optional, tag = "7")]
    pub options: Option<TypeOptions>,
    #[prost(message, repeated, tag = "8")]
    pub oneof_decl: Vec<Oneof>,
    #[prost(message, repeated, tag = "9")]
    pub reserved_range: Vec<Range>,
    #[prost(string, repeated, tag = "10")]
    pub reserved_name: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Field {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub number: u32,
    #[prost(enumeration = "FieldLabel", tag = "4")]
    pub label: i32,
    #[prost(enumeration = "FieldType", tag = "5")]
    pub r#type: i32,
    #[prost(string, tag = "6")]
    pub type_name: String,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FieldOptions>,
    #[prost(uint32, optional, tag = "9")]
    pub oneof_index: Option<u32>,
    #[prost(bool, tag = "17")]
    pub proto3_optional: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Oneof {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Enum {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub value: Vec<EnumValue>,
    #[prost(message, optional, tag = "3")]
    pub options: Option<EnumOptions>,
    #[prost(message, repeated, tag = "4")]
    pub reserved_range: Vec<Range>,
    #[prost(string, repeated, tag = "5")]
    pub reserved_name: Vec<String>,
}

/// Of a message's numbers without its end, of an enum's with it.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Range {
    #[prost(int32, tag = "1")]
    pub start: i32,
    #[prost(int32, tag = "2")]
    pub end: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct EnumValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub number: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct FileOptions {
    #[prost(message, optional, tag = "50")]
    pub features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct TypeOptions {
    #[prost(bool, tag = "7")]
    pub map_entry: bool,
    #[prost(message, optional, tag = "12")]
    pub features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct FieldOptions {
    #[prost(bool, optional, tag = "2")]
    pub packed: Option<bool>,
    #[prost(message, optional, tag = "21")]
    pub features: Option<Features>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct EnumOptions {
    #[prost(message, optional, tag = "7")]
    pub features: Option<Features>,
}

/// What editions decide file by file, message by message, field by field; 0 is "as around it".
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Features {
    #[prost(enumeration = "Presence", tag = "1")]
    pub field_presence: i32,
    #[prost(enumeration = "Openness", tag = "2")]
    pub enum_type: i32,
    #[prost(enumeration = "ListEncoding", tag = "3")]
    pub repeated_field_encoding: i32,
    #[prost(enumeration = "MessageEncoding", tag = "5")]
    pub message_encoding: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Presence {
    Inherited = 0,
    Explicit = 1,
    Implicit = 2,
    Required = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Openness {
    Inherited = 0,
    Open = 1,
    Closed = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ListEncoding {
    Inherited = 0,
    Packed = 1,
    Expanded = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MessageEncoding {
    Inherited = 0,
    LengthPrefixed = 1,
    Delimited = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum FieldLabel {
    Unset = 0,
    Optional = 1,
    Required = 2,
    Repeated = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum FieldType {
    Unset = 0,
    Double = 1,
    Float = 2,
    Int64 = 3,
    Uint64 = 4,
    Int32 = 5,
    Fixed64 = 6,
    Fixed32 = 7,
    Bool = 8,
    String = 9,
    Group = 10,
    Message = 11,
    Bytes = 12,
    Uint32 = 13,
    Enum = 14,
    Sfixed32 = 15,
    Sfixed64 = 16,
    Sint32 = 17,
    Sint64 = 18,
}

impl Features {
    /// These, and where they say nothing, those around.
    pub fn within(own: Option<Features>, around: Features) -> Features {
        let own = own.unwrap_or_default();
        let pick = |own, around| if own == 0 { around } else { own };
        Features {
            field_presence: pick(own.field_presence, around.field_presence),
            enum_type: pick(own.enum_type, around.enum_type),
            repeated_field_encoding: pick(own.repeated_field_encoding, around.repeated_field_encoding),
            message_encoding: pick(own.message_encoding, around.message_encoding),
        }
    }
}

impl File {
    /// What its syntax or edition starts from. `None`: an edition that is not known here.
    pub fn features(&self) -> Option<Features> {
        let (presence, openness, lists) = match (self.syntax.as_str(), self.edition) {
            ("proto3", _) => (Presence::Implicit, Openness::Open, ListEncoding::Packed),
            ("editions", EDITION_2023 | EDITION_2024) => {
                (Presence::Explicit, Openness::Open, ListEncoding::Packed)
            }
            ("" | "proto2", _) => (Presence::Explicit, Openness::Closed, ListEncoding::Expanded),
            _ => return None,
        };
        let around = Features {
            field_presence: presence.into(),
            enum_type: openness.into(),
            repeated_field_encoding: lists.into(),
            message_encoding: MessageEncoding::LengthPrefixed.into(),
        };
        Some(Features::within(self.options.as_ref().and_then(|options| options.features), around))
    }
}

const EDITION_2023: i32 = 1000;
const EDITION_2024: i32 = 1001;
