//! How the fields of objects go into protobuf and come back: one small trait for each type.
//!
//! The bytes are made by prost's own primitives, those that its derive uses. They are written in
//! the order of their numbers, and a field that has the value it would have if it were left out is
//! left out. So one object has one encoding, which may be hashed, and a field that is added later
//! changes nothing where nobody sets it.

use std::net::IpAddr;

use prost::encoding::{self, DecodeContext, WireType};
use uuid::Uuid;

use crate::codec::ParseError;

/// A value that stands once in a message.
pub(crate) trait Single: Sized {
    /// The newest version that a part of it is of.
    const VERSION: u32 = 1;

    /// Writes it under this number.
    fn write(&self, tag: u32, out: &mut Vec<u8>);

    /// Reads it; `name` is the field's.
    fn read(name: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError>;

    /// What it is when a message does not have it; `None`: every message must.
    fn implied() -> Option<Self>;

    /// The version that the other end must know to understand this value.
    fn version_needed(&self) -> u32 {
        1
    }
}

/// A field of a message: a value, an optional one or a list.
pub(crate) trait Field: Sized {
    /// The newest version that a part of it is of.
    const VERSION: u32;

    /// Writes it, unless it is as if it were left out.
    fn put(&self, tag: u32, out: &mut Vec<u8>);

    /// Reads one occurrence.
    fn merge(
        slot: &mut Option<Self>,
        name: &'static str,
        wire: WireType,
        bytes: &mut &[u8],
    ) -> Result<(), ParseError>;

    /// What it is when a message does not have it; `None`: every message must.
    fn absent() -> Option<Self>;

    /// The version that the other end must know: `since` when it is there, 1 when it is left out.
    fn needs(&self, since: u32) -> u32;
}

impl<T: Single + PartialEq> Field for T {
    const VERSION: u32 = <T as Single>::VERSION;

    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        if T::implied().as_ref() != Some(self) {
            self.write(tag, out);
        }
    }

    fn merge(
        slot: &mut Option<Self>,
        name: &'static str,
        wire: WireType,
        bytes: &mut &[u8],
    ) -> Result<(), ParseError> {
        *slot = Some(T::read(name, wire, bytes)?);
        Ok(())
    }

    fn absent() -> Option<Self> {
        T::implied()
    }

    fn needs(&self, since: u32) -> u32 {
        if T::implied().as_ref() == Some(self) { 1 } else { since.max(self.version_needed()) }
    }
}

impl<T: Single> Field for Option<T> {
    const VERSION: u32 = <T as Single>::VERSION;

    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.write(tag, out));
    }

    fn merge(
        slot: &mut Option<Self>,
        name: &'static str,
        wire: WireType,
        bytes: &mut &[u8],
    ) -> Result<(), ParseError> {
        *slot = Some(Some(T::read(name, wire, bytes)?));
        Ok(())
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn needs(&self, since: u32) -> u32 {
        self.as_ref().map_or(1, |value| since.max(value.version_needed()))
    }
}

impl<T: Single> Field for Vec<T> {
    const VERSION: u32 = <T as Single>::VERSION;

    fn put(&self, tag: u32, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.write(tag, out));
    }

    fn merge(
        slot: &mut Option<Self>,
        name: &'static str,
        wire: WireType,
        bytes: &mut &[u8],
    ) -> Result<(), ParseError> {
        slot.get_or_insert_default().push(T::read(name, wire, bytes)?);
        Ok(())
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn needs(&self, since: u32) -> u32 {
        self.iter().map(|value| since.max(value.version_needed())).max().unwrap_or(1)
    }
}

impl Single for u32 {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        encoding::uint32::encode(tag, self, out);
    }

    fn read(_: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        let mut value = 0;
        encoding::uint32::merge(wire, &mut value, bytes, DecodeContext::default())?;
        Ok(value)
    }

    fn implied() -> Option<Self> {
        Some(0)
    }
}

impl Single for u64 {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        encoding::uint64::encode(tag, self, out);
    }

    fn read(_: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        let mut value = 0;
        encoding::uint64::merge(wire, &mut value, bytes, DecodeContext::default())?;
        Ok(value)
    }

    fn implied() -> Option<Self> {
        Some(0)
    }
}

/// Small numbers go as `uint32`; one that does not fit is refused.
macro_rules! small_number {
    ($($type:ty),*) => {$(
        impl Single for $type {
            fn write(&self, tag: u32, out: &mut Vec<u8>) {
                encoding::uint32::encode(tag, &u32::from(*self), out);
            }

            fn read(
                field: &'static str,
                wire: WireType,
                bytes: &mut &[u8],
            ) -> Result<Self, ParseError> {
                let value = u32::read(field, wire, bytes)?;
                Self::try_from(value).map_err(|_| ParseError::Range { field, value })
            }

            fn implied() -> Option<Self> {
                Some(0)
            }
        }
    )*};
}

small_number!(u8, u16);

impl Single for bool {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        encoding::bool::encode(tag, self, out);
    }

    fn read(_: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        let mut value = false;
        encoding::bool::merge(wire, &mut value, bytes, DecodeContext::default())?;
        Ok(value)
    }

    fn implied() -> Option<Self> {
        Some(false)
    }
}

impl Single for String {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        encoding::string::encode(tag, self, out);
    }

    fn read(_: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        let mut value = Self::new();
        encoding::string::merge(wire, &mut value, bytes, DecodeContext::default())?;
        Ok(value)
    }

    fn implied() -> Option<Self> {
        Some(Self::new())
    }
}

impl Single for Uuid {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        self.into_bytes().write(tag, out);
    }

    fn read(name: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        <[u8; 16]>::read(name, wire, bytes).map(Self::from_bytes)
    }

    fn implied() -> Option<Self> {
        None
    }
}

impl Single for IpAddr {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => ip.octets().write(tag, out),
            Self::V6(ip) => ip.octets().write(tag, out),
        }
    }

    fn read(field: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        let value = take_bytes(wire, bytes)?;
        match value.len() {
            4 => fixed::<4>(field, &value).map(Self::from),
            _ => fixed::<16>(field, &value).map(Self::from),
        }
    }

    fn implied() -> Option<Self> {
        None
    }
}

impl<const N: usize> Single for [u8; N] {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        encoding::bytes::encode(tag, &self.to_vec(), out);
    }

    fn read(field: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        fixed(field, &take_bytes(wire, bytes)?)
    }

    fn implied() -> Option<Self> {
        None
    }
}

/// Any bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Single for Bytes {
    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        encoding::bytes::encode(tag, &self.0, out);
    }

    fn read(_: &'static str, wire: WireType, bytes: &mut &[u8]) -> Result<Self, ParseError> {
        take_bytes(wire, bytes).map(Self)
    }

    fn implied() -> Option<Self> {
        Some(Self::default())
    }
}

/// A field of bytes.
pub(crate) fn take_bytes(wire: WireType, bytes: &mut &[u8]) -> Result<Vec<u8>, ParseError> {
    let mut value = Vec::new();
    encoding::bytes::merge(wire, &mut value, bytes, DecodeContext::default())?;
    Ok(value)
}

/// The number and form of the next field, if there is one.
pub(crate) fn next_key(bytes: &mut &[u8]) -> Result<Option<(u32, WireType)>, ParseError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(encoding::decode_key(bytes)?))
}

/// Passes over a field that this version does not know.
pub(crate) fn skip(tag: u32, wire: WireType, bytes: &mut &[u8]) -> Result<(), ParseError> {
    Ok(encoding::skip_field(wire, tag, bytes, DecodeContext::default())?)
}

/// Exactly so many bytes.
pub(crate) fn fixed<const N: usize>(
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], ParseError> {
    bytes.try_into().map_err(|_| ParseError::Length { field, bytes: bytes.len() })
}
