//! How a map key or value turns into bytes and back, field by field, without `unsafe`.
//!
//! The kernel side uses the `#[repr(C)]` structs themselves; user space goes through
//! [`Plain`], whose byte order and offsets are those of the struct because every struct declares
//! its padding and asserts its size. Padding is always written as zero: a hash map compares it.

use crate::addr::{Addr, Mac};

/// A struct that has one byte representation, equal to its memory in the kernel.
pub trait Plain: Sized {
    /// The array that holds it, `[u8; size_of::<Self>()]`.
    type Bytes: AsRef<[u8]> + Copy + 'static;
    /// Its bytes, padding zero.
    fn to_bytes(&self) -> Self::Bytes;
    /// The struct that these bytes are.
    fn from_bytes(bytes: &Self::Bytes) -> Self;
}

/// Numbers are values of some maps by themselves.
macro_rules! plain_numbers {
    ($($number:ty),*) => {$(
        impl Plain for $number {
            type Bytes = [u8; size_of::<$number>()];
            fn to_bytes(&self) -> Self::Bytes {
                self.to_ne_bytes()
            }
            fn from_bytes(bytes: &Self::Bytes) -> Self {
                Self::from_ne_bytes(*bytes)
            }
        }
    )*};
}
plain_numbers!(u32, u64, i64);

/// A field of a [`Plain`] struct.
pub(crate) trait Field: Sized {
    /// Bytes it takes.
    const SIZE: usize;
    /// Writes itself to the start of `out`.
    fn put(&self, out: &mut [u8]);
    /// Reads itself from the start of `bytes`.
    fn get(bytes: &[u8]) -> Self;
}

macro_rules! number_fields {
    ($($number:ty),*) => {$(
        impl Field for $number {
            const SIZE: usize = size_of::<$number>();
            fn put(&self, out: &mut [u8]) {
                out[..Self::SIZE].copy_from_slice(&self.to_ne_bytes());
            }
            fn get(bytes: &[u8]) -> Self {
                let mut raw = [0; Self::SIZE];
                raw.copy_from_slice(&bytes[..Self::SIZE]);
                Self::from_ne_bytes(raw)
            }
        }
    )*};
}
number_fields!(u8, u16, u32, u64);

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;
    fn put(&self, out: &mut [u8]) {
        out[..N].copy_from_slice(self);
    }
    fn get(bytes: &[u8]) -> Self {
        let mut raw = [0; N];
        raw.copy_from_slice(&bytes[..N]);
        raw
    }
}

/// Arrays of fields, for the lengths in use.
macro_rules! array_fields {
    ($($field:ty),*) => {$(
        impl<const N: usize> Field for [$field; N] {
            const SIZE: usize = N * <$field as Field>::SIZE;
            fn put(&self, out: &mut [u8]) {
                for (field, place) in self.iter().zip(out.chunks_exact_mut(<$field>::SIZE)) {
                    field.put(place);
                }
            }
            fn get(bytes: &[u8]) -> Self {
                core::array::from_fn(|at| Field::get(&bytes[at * <$field>::SIZE..]))
            }
        }
    )*};
}
array_fields!(u16, u32, u64, crate::maps::CtSlot, crate::rules::Cell);

impl Field for Mac {
    const SIZE: usize = 6;
    fn put(&self, out: &mut [u8]) {
        self.0.put(out);
    }
    fn get(bytes: &[u8]) -> Self {
        Mac(Field::get(bytes))
    }
}

impl Field for Addr {
    const SIZE: usize = 16;
    fn put(&self, out: &mut [u8]) {
        self.octets().put(out);
    }
    fn get(bytes: &[u8]) -> Self {
        Addr::v6(Field::get(bytes))
    }
}

/// Declares `#[repr(C)]` structs with their exact size and implements [`Plain`] for them.
macro_rules! plain {
    ($(
        $(#[$doc:meta])*
        pub struct $name:ident[$size:literal] { $($(#[$field_doc:meta])* $vis:vis $field:ident: $ty:ty,)* }
    )*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { $($(#[$field_doc])* $vis $field: $ty,)* }

        // The fields add up to the size, so the compiler added no padding of its own.
        const _: () = assert!(size_of::<$name>() == $size);
        const _: () = assert!(0 $(+ <$ty as $crate::layout::Field>::SIZE)* == $size);

        impl $crate::layout::Plain for $name {
            type Bytes = [u8; $size];
            fn to_bytes(&self) -> [u8; $size] {
                let mut out = [0; $size];
                let mut at = 0;
                $(
                    $crate::layout::Field::put(&self.$field, &mut out[at..]);
                    at += <$ty as $crate::layout::Field>::SIZE;
                )*
                debug_assert_eq!(at, $size);
                out
            }
            fn from_bytes(bytes: &[u8; $size]) -> $name {
                let mut at = 0;
                $(
                    let $field = <$ty as $crate::layout::Field>::get(&bytes[at..]);
                    at += <$ty as $crate::layout::Field>::SIZE;
                )*
                debug_assert_eq!(at, $size);
                $name { $($field,)* }
            }
        }

        impl $crate::layout::Field for $name {
            const SIZE: usize = $size;
            fn put(&self, out: &mut [u8]) {
                out[..$size].copy_from_slice(&$crate::layout::Plain::to_bytes(self));
            }
            fn get(bytes: &[u8]) -> $name {
                let mut raw = [0; $size];
                raw.copy_from_slice(&bytes[..$size]);
                $crate::layout::Plain::from_bytes(&raw)
            }
        }

        // The agent never needs a zero value as such; the kernel side does, to build on the stack.
        impl Default for $name {
            #[inline(always)]
            fn default() -> $name {
                $name { $($field: $crate::layout::zero::<$ty>(),)* }
            }
        }
    )*};
}
pub(crate) use plain;

/// The zero value of a field; arrays over 32 bytes have no `Default`.
pub(crate) trait Zero {
    /// All bytes zero.
    const ZERO: Self;
}
macro_rules! zero_numbers {
    ($($number:ty),*) => {$( impl Zero for $number { const ZERO: $number = 0; } )*};
}
zero_numbers!(u8, u16, u32, u64);
impl<T: Zero, const N: usize> Zero for [T; N] {
    const ZERO: [T; N] = [T::ZERO; N];
}
impl Zero for Mac {
    const ZERO: Mac = Mac([0; 6]);
}
impl Zero for Addr {
    const ZERO: Addr = Addr::UNSPECIFIED_V6;
}

/// See [`Zero`].
#[inline(always)]
pub(crate) const fn zero<T: Zero>() -> T {
    T::ZERO
}
