//! The payload of a response with the error bit: `code`, `msg`, `metadata`, as protobuf or as JSON.
//!
//! ```protobuf
//! message Error { string code = 1; string msg = 2; map<string, string> metadata = 3; }
//! ```

use std::str;

use serde_json::{Map, Value};

use crate::handshake::Serializer;
use crate::json_text;

/// What went wrong, for programs and for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorBody {
    /// Short and stable: `GS-404`.
    pub code: String,
    /// A sentence.
    pub msg: String,
    /// More, in the order in which it was written.
    pub metadata: Vec<(String, String)>,
}

/// Why a payload is no error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("error body is no {}", match .0 { Serializer::Json => "JSON object of strings", Serializer::Protobuf => "protobuf Error" })]
pub struct ErrorBodyError(Serializer);

/// Appends the error as `serializer` writes it; JSON is ASCII.
pub fn encode(
    serializer: Serializer,
    code: &str,
    msg: &str,
    metadata: &[(String, String)],
    out: &mut Vec<u8>,
) {
    match serializer {
        Serializer::Json => encode_json(code, msg, metadata, out),
        Serializer::Protobuf => encode_protobuf(code, msg, metadata, out),
    }
}

/// Reads an error body; unknown fields are skipped.
pub fn decode(serializer: Serializer, body: &[u8]) -> Result<ErrorBody, ErrorBodyError> {
    match serializer {
        Serializer::Json => decode_json(body),
        Serializer::Protobuf => decode_protobuf(body),
    }
    .ok_or(ErrorBodyError(serializer))
}

fn encode_json(code: &str, msg: &str, metadata: &[(String, String)], out: &mut Vec<u8>) {
    let mut json = String::from("{\"code\":");
    json.push_str(&Value::from(code).to_string());
    json.push_str(",\"msg\":");
    json.push_str(&Value::from(msg).to_string());
    if !metadata.is_empty() {
        let entries: Vec<String> = metadata
            .iter()
            .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), Value::from(value.as_str())))
            .collect();
        json.push_str(&format!(",\"metadata\":{{{}}}", entries.join(",")));
    }
    json.push('}');
    out.extend_from_slice(&json_text::escape_ascii(json.as_bytes()));
}

fn decode_json(body: &[u8]) -> Option<ErrorBody> {
    let body = json_text::repair_surrogates(body);
    let fields: Map<String, Value> = serde_json::from_slice(&body).ok()?;
    let text = |name| match fields.get(name) {
        None | Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => None,
    };
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(entries)) => entries
            .iter()
            .map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect::<Option<_>>()?,
        Some(_) => return None,
    };
    Some(ErrorBody { code: text("code")?, msg: text("msg")?, metadata })
}

fn encode_protobuf(code: &str, msg: &str, metadata: &[(String, String)], out: &mut Vec<u8>) {
    put_text(FIELD_CODE, code.as_bytes(), out);
    put_text(FIELD_MSG, msg.as_bytes(), out);
    for (key, value) in metadata {
        let mut entry = Vec::new();
        put_text(FIELD_KEY, key.as_bytes(), &mut entry);
        put_text(FIELD_VALUE, value.as_bytes(), &mut entry);
        out.push(FIELD_METADATA << 3 | LENGTH_DELIMITED);
        put_varint(entry.len() as u64, out);
        out.extend_from_slice(&entry);
    }
}

fn decode_protobuf(mut body: &[u8]) -> Option<ErrorBody> {
    let mut error = ErrorBody::default();
    while !body.is_empty() {
        match take_field(&mut body)? {
            (FIELD_CODE, Some(text)) => error.code = str::from_utf8(text).ok()?.to_owned(),
            (FIELD_MSG, Some(text)) => error.msg = str::from_utf8(text).ok()?.to_owned(),
            (FIELD_METADATA, Some(entry)) => put_entry(decode_entry(entry)?, &mut error.metadata),
            _ => {}
        }
    }
    Some(error)
}

fn decode_entry(mut body: &[u8]) -> Option<(String, String)> {
    let mut entry = (String::new(), String::new());
    while !body.is_empty() {
        match take_field(&mut body)? {
            (FIELD_KEY, Some(text)) => entry.0 = str::from_utf8(text).ok()?.to_owned(),
            (FIELD_VALUE, Some(text)) => entry.1 = str::from_utf8(text).ok()?.to_owned(),
            _ => {}
        }
    }
    Some(entry)
}

/// It is a map: of two entries with one key, the later wins.
fn put_entry(entry: (String, String), metadata: &mut Vec<(String, String)>) {
    match metadata.iter_mut().find(|(key, _)| *key == entry.0) {
        Some(old) => old.1 = entry.1,
        None => metadata.push(entry),
    }
}

/// Empty text is not written, as in every proto3 encoder.
fn put_text(field: u8, text: &[u8], out: &mut Vec<u8>) {
    if !text.is_empty() {
        out.push(field << 3 | LENGTH_DELIMITED);
        put_varint(text.len() as u64, out);
        out.extend_from_slice(text);
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The next field's number (0: one that is not ours), and its bytes if it has any.
fn take_field<'a>(body: &mut &'a [u8]) -> Option<(u8, Option<&'a [u8]>)> {
    let tag = take_varint(body)?;
    let number = u8::try_from(tag >> 3).unwrap_or(0);
    let bytes = match (tag & 7) as u8 {
        VARINT => {
            take_varint(body)?;
            None
        }
        FIXED64 => take_bytes(body, 8).map(|_| None)?,
        LENGTH_DELIMITED => {
            let len = usize::try_from(take_varint(body)?).ok()?;
            Some(take_bytes(body, len)?)
        }
        FIXED32 => take_bytes(body, 4).map(|_| None)?,
        _ => return None,
    };
    Some((number, bytes))
}

fn take_bytes<'a>(body: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(taken)
}

fn take_varint(body: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in body.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(7 * index as u32)?;
        if byte < 0x80 {
            *body = &body[index + 1..];
            return Some(value);
        }
    }
    None
}

const FIELD_CODE: u8 = 1;
const FIELD_MSG: u8 = 2;
const FIELD_METADATA: u8 = 3;
const FIELD_KEY: u8 = 1;
const FIELD_VALUE: u8 = 2;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const GOLDEN: &str = "0a 07 50 49 54 2d 34 30 34  12 09 6e 6f 74 20 66 6f 75 6e 64";

    #[test]
    fn the_golden_error() {
        let mut out = Vec::new();
        encode(Serializer::Protobuf, "PIT-404", "not found", &[], &mut out);
        assert_eq!(out, hex(GOLDEN));
        let error = decode(Serializer::Protobuf, &out).unwrap();
        assert_eq!((error.code.as_str(), error.msg.as_str()), ("PIT-404", "not found"));
    }

    #[test]
    fn metadata_both_ways() {
        let metadata = vec![("é".to_owned(), "😀\"".to_owned()), ("b".to_owned(), String::new())];
        for serializer in [Serializer::Json, Serializer::Protobuf] {
            let mut out = Vec::new();
            encode(serializer, "GS-400", "zäh", &metadata, &mut out);
            let mut error = decode(serializer, &out).unwrap();
            error.metadata.sort_by(|a, b| b.cmp(a));
            assert_eq!(
                error,
                ErrorBody { code: "GS-400".into(), msg: "zäh".into(), metadata: metadata.clone() }
            );
        }
    }

    #[test]
    fn json_is_ascii() {
        let mut out = Vec::new();
        encode(Serializer::Json, "GS-404", "kein Weg: é", &[("a".into(), "b".into())], &mut out);
        assert_eq!(out, br#"{"code":"GS-404","msg":"kein Weg: \u00e9","metadata":{"a":"b"}}"#);
    }

    #[test]
    fn a_protobuf_map_entry() {
        let mut out = Vec::new();
        encode(Serializer::Protobuf, "", "", &[("k".into(), "v".into())], &mut out);
        assert_eq!(out, hex("1a 06 0a 01 6b 12 01 76"));
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let mut bytes = hex("20 05  29 01 02 03 04 05 06 07 08  35 01 02 03 04  fa 01 01 00");
        bytes.extend(hex(GOLDEN));
        assert_eq!(decode(Serializer::Protobuf, &bytes).unwrap().code, "PIT-404");
        assert_eq!(decode(Serializer::Json, br#"{"code":"a","more":[1]}"#).unwrap().code, "a");
    }

    #[test]
    fn what_is_no_error_body() {
        for bytes in ["0a", "0a 05 61", "0a 01 ff", "0b", "80 80 80 80 80 80 80 80 80 80 80", "1a 02 0a 05"] {
            assert_eq!(
                decode(Serializer::Protobuf, &hex(bytes)),
                Err(ErrorBodyError(Serializer::Protobuf)),
                "{bytes}"
            );
        }
        for text in ["", "[]", "{", r#"{"code":1}"#, r#"{"metadata":[]}"#, r#"{"metadata":{"a":1}}"#] {
            assert_eq!(
                decode(Serializer::Json, text.as_bytes()),
                Err(ErrorBodyError(Serializer::Json)),
                "{text}"
            );
        }
    }
}
