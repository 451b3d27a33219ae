//! One type per kind, so that what reads and writes a value is compiled for its kind.
//!
//! A [`Scalar`] is made right before a sink takes it and taken apart right after a source gave it: carried around, it would
//! go through memory, and wait there.

use crate::plan::{Scalar, ScalarType};
use crate::shape::Kind;
use crate::wire::{FIXED32, FIXED64, LEN, Malformed, Reader, VARINT};
use crate::wire::{unzigzag32, unzigzag64, zigzag32, zigzag64};

/// How values of one kind are read and written.
pub(crate) trait Codec {
    type Value<'v>: Copy;
    const WIRE_TYPE: u32;
    /// What an absent value of implicit presence is.
    const DEFAULT: Self::Value<'static>;

    fn read<'b>(reader: &mut Reader<'b>) -> Result<Self::Value<'b>, Malformed>;

    fn raw(value: Self::Value<'_>) -> Raw<'_>;

    fn is_default(value: Self::Value<'_>) -> bool;

    /// Only floats may say no.
    fn is_finite(_: Self::Value<'_>) -> bool {
        true
    }

    /// `kind` says which enum.
    fn scalar_type(kind: Kind) -> ScalarType;

    fn scalar(value: Self::Value<'_>) -> Scalar<'_>;

    /// `None`: it is of another type.
    fn of_scalar(scalar: Scalar<'_>) -> Option<Self::Value<'_>>;
}

/// A value as the wire has it.
pub(crate) enum Raw<'v> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'v [u8]),
}

macro_rules! scalar_type {
    (Enum, $kind:expr) => {
        if let Kind::Enum(id) = $kind { ScalarType::Enum(id) } else { ScalarType::I32 }
    };
    ($scalar:ident, $kind:expr) => {{
        let _ = $kind;
        ScalarType::$scalar
    }};
}

macro_rules! varint_codecs {
    ($($name:ident: $type:ty, $scalar:ident, $zero:literal, $read:expr, $write:expr;)*) => {$(
        pub(crate) struct $name;

        impl Codec for $name {
            type Value<'v> = $type;
            const WIRE_TYPE: u32 = VARINT;
            const DEFAULT: $type = $zero;

            #[inline(always)]
            fn read<'b>(reader: &mut Reader<'b>) -> Result<$type, Malformed> {
                reader.varint().map($read)
            }

            #[inline(always)]
            fn raw<'v>(value: $type) -> Raw<'v> {
                Raw::Varint($write(value))
            }

            #[inline(always)]
            fn is_default(value: $type) -> bool {
                value == Self::DEFAULT
            }

            #[inline(always)]
            fn scalar_type(kind: Kind) -> ScalarType {
                scalar_type!($scalar, kind)
            }

            #[inline(always)]
            fn scalar<'v>(value: $type) -> Scalar<'v> {
                Scalar::$scalar(value)
            }

            #[inline(always)]
            fn of_scalar(scalar: Scalar<'_>) -> Option<$type> {
                if let Scalar::$scalar(value) = scalar { Some(value) } else { None }
            }
        }
    )*};
}

varint_codecs! {
    I64: i64, I64, 0, |raw| raw as i64, |value| value as u64;
    U64: u64, U64, 0, |raw| raw, |value| value;
    I32: i32, I32, 0, |raw| raw as i32, |value| value as u64;
    U32: u32, U32, 0, |raw| raw as u32, u64::from;
    S64: i64, I64, 0, unzigzag64, zigzag64;
    S32: i32, I32, 0, |raw| unzigzag32(raw as u32), |value| u64::from(zigzag32(value));
    Bool: bool, Bool, false, |raw| raw != 0, u64::from;
    Enum: i32, Enum, 0, |raw| raw as i32, |value| value as u64;
}

macro_rules! fixed_codecs {
    ($($name:ident: $type:ty, $scalar:ident, $raw:ident, $wire_type:ident, $zero:literal,
        $is_default:expr, $is_finite:expr;)*) => {$(
        pub(crate) struct $name;

        impl Codec for $name {
            type Value<'v> = $type;
            const WIRE_TYPE: u32 = $wire_type;
            const DEFAULT: $type = $zero;

            #[inline(always)]
            fn read<'b>(reader: &mut Reader<'b>) -> Result<$type, Malformed> {
                reader.fixed().map(<$type>::from_le_bytes)
            }

            #[inline(always)]
            fn raw<'v>(value: $type) -> Raw<'v> {
                Raw::$raw(value.to_le_bytes())
            }

            #[inline(always)]
            fn is_default(value: $type) -> bool {
                $is_default(value)
            }

            #[inline(always)]
            fn is_finite(value: $type) -> bool {
                $is_finite(value)
            }

            #[inline(always)]
            fn scalar_type(kind: Kind) -> ScalarType {
                scalar_type!($scalar, kind)
            }

            #[inline(always)]
            fn scalar<'v>(value: $type) -> Scalar<'v> {
                Scalar::$scalar(value)
            }

            #[inline(always)]
            fn of_scalar(scalar: Scalar<'_>) -> Option<$type> {
                if let Scalar::$scalar(value) = scalar { Some(value) } else { None }
            }
        }
    )*};
}

// -0.0 is no default: it is written.
fixed_codecs! {
    F64: f64, F64, Fixed64, FIXED64, 0.0, |value: f64| value.to_bits() == 0, f64::is_finite;
    F32: f32, F32, Fixed32, FIXED32, 0.0, |value: f32| value.to_bits() == 0, f32::is_finite;
    Fixed64: u64, U64, Fixed64, FIXED64, 0, |value| value == 0, |_| true;
    SFixed64: i64, I64, Fixed64, FIXED64, 0, |value| value == 0, |_| true;
    Fixed32: u32, U32, Fixed32, FIXED32, 0, |value| value == 0, |_| true;
    SFixed32: i32, I32, Fixed32, FIXED32, 0, |value| value == 0, |_| true;
}

pub(crate) struct Str;

impl Codec for Str {
    type Value<'v> = &'v str;
    const WIRE_TYPE: u32 = LEN;
    const DEFAULT: &'static str = "";

    #[inline(always)]
    fn read<'b>(reader: &mut Reader<'b>) -> Result<&'b str, Malformed> {
        std::str::from_utf8(reader.delimited()?).map_err(|_| Malformed::Utf8)
    }

    #[inline(always)]
    fn raw(value: Self::Value<'_>) -> Raw<'_> {
        Raw::Bytes(value.as_bytes())
    }

    #[inline(always)]
    fn is_default(value: &str) -> bool {
        value.is_empty()
    }

    #[inline(always)]
    fn scalar_type(_: Kind) -> ScalarType {
        ScalarType::Str
    }

    #[inline(always)]
    fn scalar(value: Self::Value<'_>) -> Scalar<'_> {
        Scalar::Str(value)
    }

    #[inline(always)]
    fn of_scalar(scalar: Scalar<'_>) -> Option<&str> {
        if let Scalar::Str(value) = scalar { Some(value) } else { None }
    }
}

pub(crate) struct Bytes;

impl Codec for Bytes {
    type Value<'v> = &'v [u8];
    const WIRE_TYPE: u32 = LEN;
    const DEFAULT: &'static [u8] = &[];

    #[inline(always)]
    fn read<'b>(reader: &mut Reader<'b>) -> Result<&'b [u8], Malformed> {
        reader.delimited()
    }

    #[inline(always)]
    fn raw(value: Self::Value<'_>) -> Raw<'_> {
        Raw::Bytes(value)
    }

    #[inline(always)]
    fn is_default(value: &[u8]) -> bool {
        value.is_empty()
    }

    #[inline(always)]
    fn scalar_type(_: Kind) -> ScalarType {
        ScalarType::Bytes
    }

    #[inline(always)]
    fn scalar(value: Self::Value<'_>) -> Scalar<'_> {
        Scalar::Bytes(value)
    }

    #[inline(always)]
    fn of_scalar(scalar: Scalar<'_>) -> Option<&[u8]> {
        if let Scalar::Bytes(value) = scalar { Some(value) } else { None }
    }
}

/// Runs `$body` with `$codec` as the type for `$kind`. Messages have an arm of their own.
macro_rules! with_codec {
    ($kind:expr, message $id:ident => $message:expr, $codec:ident => $body:expr) => {
        with_codec!(@arms $kind, $id => $message, $codec => $body,
            F64 F32 I64 U64 I32 U32 S32 S64 Fixed32 Fixed64 SFixed32 SFixed64 Bool Str Bytes)
    };
    (@arms $kind:expr, $id:ident => $message:expr, $codec:ident => $body:expr, $($name:ident)*) => {
        match $kind {
            $($crate::shape::Kind::$name => { type $codec = $crate::codec::$name; $body })*
            $crate::shape::Kind::Enum(_) => { type $codec = $crate::codec::Enum; $body }
            $crate::shape::Kind::Message($id) => $message,
        }
    };
}
pub(crate) use with_codec;

impl Kind {
    /// What a value of this kind is to sinks and sources; `None` for a message.
    #[inline(always)]
    pub fn scalar_type(self) -> Option<ScalarType> {
        with_codec!(self, message _id => None, C => Some(C::scalar_type(self)))
    }
}
