//! JSON as old clients write and read it.

use std::borrow::Cow;

/// Turns surrogate pairs that were written as bytes (CESU-8, `ed a0 bd ed b8 80`) into UTF-8, and leaves everything
/// else as it is: what was wrong otherwise still is.
pub fn repair_surrogates(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = find_pair(text) else {
        return Cow::Borrowed(text);
    };
    let mut out = Vec::with_capacity(text.len());
    let (mut rest, mut next) = (text, Some(first));
    while let Some(at) = next {
        out.extend_from_slice(&rest[..at]);
        if let Some(character) = pair_at(&rest[at..]) {
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        rest = &rest[at + PAIR_BYTES..];
        next = find_pair(rest);
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

/// Writes every non-ASCII character of a JSON text as `\uXXXX`, those beyond 16 bits as two. Bytes that are no UTF-8
/// become `\ufffd`.
pub fn escape_ascii(json: &[u8]) -> Cow<'_, [u8]> {
    if json.is_ascii() {
        return Cow::Borrowed(json);
    }
    let mut out = Vec::with_capacity(json.len() * 2);
    for chunk in json.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_ascii() {
                out.push(character as u8);
            } else {
                character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escape(*unit, &mut out));
            }
        }
        if !chunk.invalid().is_empty() {
            escape(0xfffd, &mut out);
        }
    }
    Cow::Owned(out)
}

/// How deep arrays and objects are nested, found without descending. Meant for text that is about to be parsed: of
/// what is no JSON it is just a number.
pub(crate) fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

fn find_pair(text: &[u8]) -> Option<usize> {
    text.windows(PAIR_BYTES).position(|window| window[0] == 0xed && pair_at(window).is_some())
}

/// The character of the two surrogates that `text` begins with.
fn pair_at(text: &[u8]) -> Option<char> {
    match *text.first_chunk::<PAIR_BYTES>()? {
        [0xed, a @ 0xa0..=0xaf, b @ 0x80..=0xbf, 0xed, c @ 0xb0..=0xbf, d @ 0x80..=0xbf] => {
            let high = u32::from(a & 0x0f) << 6 | u32::from(b & 0x3f);
            let low = u32::from(c & 0x0f) << 6 | u32::from(d & 0x3f);
            char::from_u32(0x1_0000 + (high << 10 | low))
        }
        _ => None,
    }
}

fn escape(unit: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX[usize::from(unit >> shift & 0x0f)]);
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Two surrogates, three bytes each.
const PAIR_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn surrogate_bytes_become_one_character() {
        assert_eq!(repair_surrogates(&hex("22 ed a0 bd ed b8 80 22")), "\"😀\"".as_bytes());
        assert_eq!(repair_surrogates(&hex("ed a0 bd ed b8 80 ed a0 bd ed b8 80 2e")), "😀😀.".as_bytes());
    }

    #[test]
    fn anything_else_is_left_alone() {
        let lone_high = hex("22 ed a0 bd 22 22 22 22");
        let lone_low = hex("22 ed b8 80 ed b8 80");
        for text in [&b""[..], b"abc", "é日本😀퟿".as_bytes(), &lone_high, &lone_low, &[0xed], &[0xff; 9]]
        {
            assert!(matches!(repair_surrogates(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn every_astral_character_survives_the_detour() {
        for character in ('\u{10000}'..=char::MAX).step_by(97) {
            let cesu: Vec<u8> = character
                .encode_utf16(&mut [0; 2])
                .iter()
                .flat_map(|unit| {
                    [0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8, 0x80 | (unit & 0x3f) as u8]
                })
                .collect();
            assert_eq!(repair_surrogates(&cesu), character.to_string().as_bytes());
        }
    }

    #[test]
    fn non_ascii_is_escaped_and_reads_the_same() {
        let json = r#"{"name":"é日😀","a":1}"#;
        let escaped = escape_ascii(json.as_bytes());
        assert_eq!(&*escaped, br#"{"name":"\u00e9\u65e5\ud83d\ude00","a":1}"#);
        let (before, after): (serde_json::Value, serde_json::Value) =
            (serde_json::from_str(json).unwrap(), serde_json::from_slice(&escaped).unwrap());
        assert_eq!(before, after);
        assert!(matches!(escape_ascii(b"{}"), Cow::Borrowed(b"{}")));
        assert_eq!(&*escape_ascii(b"\xff"), b"\\ufffd");
    }

    #[test]
    fn brackets_in_strings_are_not_deep() {
        assert_eq!(depth(br#"{"a":["[[[[","\"[[["],"b":{}}"#), 2);
        assert_eq!(depth(b"1"), 0);
        assert_eq!(depth(&[b'['; 1_000_000]), 1_000_000);
    }
}
