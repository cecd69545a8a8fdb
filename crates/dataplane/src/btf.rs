//! The types of the running kernel: where fields are, and the numbers of functions.
//!
//! The format is that of the kernel's `Documentation/bpf/btf.rst`. Only what is asked for here is
//! understood: structs, their members, and functions.

use packet::{KFUNCS, SkbLayout};
use std::fs;

/// Where the kernel shows its types.
pub(crate) const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Kinds of types.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
/// How deep structs without a name may lie in each other.
const MAX_DEPTH: u32 = 8;

/// What the programs need to know of this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelFacts {
    /// Where the fields are.
    pub(crate) layout: SkbLayout,
    /// The numbers of functions, in the order of [`KFUNCS`].
    pub(crate) functions: [u32; KFUNCS.len()],
}

impl KernelFacts {
    /// Of the running kernel; else what is missing, in words.
    pub(crate) fn read() -> Result<KernelFacts, String> {
        let bytes = fs::read(PATH).map_err(|cause| format!("{PATH}: {cause}"))?;
        let types = Types::parse(&bytes).ok_or_else(|| format!("{PATH} is in another format"))?;
        types.facts().map_err(|missing| format!("{PATH} has no {missing}"))
    }
}

/// All types. There are a hundred thousand: of each it is kept where it starts, so that an agent
/// does not need for good what is looked at once.
struct Types<'a> {
    types: &'a [u8],
    /// Where each starts in `types`, from number 1 on; number 0 is void.
    starts: Vec<u32>,
    strings: &'a [u8],
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    info: u32,
    /// What follows the fixed part.
    rest: &'a [u8],
}

/// Where a member is in its struct, and how wide, if it is a bit field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    bits: u32,
    width: u32,
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Types<'a>> {
        let magic = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let [header, types_at, types_length, strings_at, strings_length] =
            [4, 8, 12, 16, 20].map(|at| word(bytes, at));
        let part = |at: u32, length: u32| {
            let start = usize::try_from(header?.checked_add(at)?).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        };
        let types = part(types_at?, types_length?)?;
        let strings = part(strings_at?, strings_length?)?;
        let (mut starts, mut at) = (Vec::new(), 0);
        while at < types.len() {
            starts.push(u32::try_from(at).ok()?);
            at += 12 + type_at(types, at)?.rest.len();
        }
        (magic == MAGIC).then_some(Types { types, starts, strings })
    }

    /// The type of this number.
    fn get(&self, number: u32) -> Option<Type<'a>> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        type_at(self.types, usize::try_from(*self.starts.get(index)?).ok()?)
    }

    fn facts(&self) -> Result<KernelFacts, &'static str> {
        let skb = self.find("sk_buff", STRUCT).ok_or("struct sk_buff")?;
        let place = |name: &'static str| self.member(skb, name, 0).ok_or(name);
        let bytes = |name| place(name).map(|place| place.bits / 8);
        let summed = place("ip_summed")?;
        if summed.width != 2 || summed.bits % 8 > 6 || cfg!(target_endian = "big") {
            return Err("ip_summed of two bits in a byte");
        }
        let layout = SkbLayout {
            ip_summed: summed.bits / 8,
            ip_summed_shift: summed.bits % 8,
            csum_start: bytes("csum_start")?,
            csum_offset: bytes("csum_offset")?,
            head: bytes("head")?,
            data: bytes("data")?,
        };
        let mut functions = [0; KFUNCS.len()];
        for (number, (_, name)) in functions.iter_mut().zip(KFUNCS) {
            *number = self.find(name, FUNC).ok_or(name)?;
        }
        Ok(KernelFacts { layout, functions })
    }

    /// The number of a type.
    fn find(&self, name: &str, kind: u32) -> Option<u32> {
        let is = |number: &u32| {
            let found = self.get(*number);
            found.is_some_and(|found| found.kind() == kind && self.is_named(found.name, name))
        };
        (1..=u32::try_from(self.starts.len()).ok()?).find(is)
    }

    fn is_named(&self, at: u32, name: &str) -> bool {
        let text = usize::try_from(at).ok().and_then(|at| self.strings.get(at..));
        text.and_then(|text| text.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    /// A member of a struct, or of one without a name inside of it.
    fn member(&self, number: u32, name: &str, depth: u32) -> Option<Place> {
        let found = self.get(number)?;
        if depth > MAX_DEPTH || ![STRUCT, UNION].contains(&found.kind()) {
            return None;
        }
        let has_bit_fields = found.info >> 31 == 1;
        found.rest.chunks_exact(12).find_map(|member| {
            let (text, inner, offset) = (word(member, 0)?, word(member, 4)?, word(member, 8)?);
            let (bits, width) =
                if has_bit_fields { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
            if self.is_named(text, "") {
                let place = self.member(inner, name, depth + 1)?;
                return Some(Place { bits: place.bits + bits, ..place });
            }
            self.is_named(text, name).then_some(Place { bits, width })
        })
    }
}

/// The type that starts there; `None` if the bytes end before, or its kind came later.
fn type_at(types: &[u8], at: usize) -> Option<Type<'_>> {
    let (name, info) = (word(types, at)?, word(types, at + 4)?);
    let rest = types.get(at + 12..at + 12 + rest_bytes(info)?)?;
    Some(Type { name, info, rest })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Bytes that follow the fixed part of a type; `None` for a kind that came later.
fn rest_bytes(info: u32) -> Option<usize> {
    let members = usize::try_from(info & 0xffff).ok()?;
    Some(match info >> 24 & 0x1f {
        // Pointers, forward declarations, names, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Enumerations, parameters.
        6 | 13 => 8 * members,
        // Members, variables of a section, wide enumerations.
        STRUCT | UNION | 15 | 19 => 12 * members,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct with a bit field in a union in a struct without names, and the functions.
    fn types() -> Vec<u8> {
        let mut strings = b"\0sk_buff\0ip_summed\0csum_start\0csum_offset\0head\0data\0".to_vec();
        for (_, name) in KFUNCS {
            strings.extend([name.as_bytes(), b"\0"].concat());
        }
        let at = |name: &str| {
            let name = format!("{name}\0");
            let found = strings.windows(name.len()).position(|text| text == name.as_bytes());
            u32::try_from(found.unwrap()).unwrap()
        };
        let functions = KFUNCS.map(|(_, name)| [at(name), FUNC << 24, 0]);
        let words = [
            // 1 to 4.
            functions.as_flattened(),
            // 5: the innermost, with bit fields.
            &[0, 1 << 31 | STRUCT << 24 | 1, 8, at("ip_summed"), 0, 2 << 24 | 13],
            // 6: the union.
            &[0, UNION << 24 | 2, 8, 0, 5, 0, at("csum_start"), 0, 0],
            // 7: the struct.
            &[at("sk_buff"), STRUCT << 24 | 4, 32, 0, 6, 64, at("csum_offset"), 0, 16],
            &[at("head"), 0, 128, at("data"), 0, 192],
        ]
        .concat();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let [types, texts] =
            [bytes.len(), strings.len()].map(|length| u32::try_from(length).unwrap());
        let mut all = MAGIC.to_ne_bytes().to_vec();
        all.extend([1, 0]);
        all.extend([24, 0, types, types, texts].iter().flat_map(|word| word.to_ne_bytes()));
        all.extend(bytes);
        all.extend(strings);
        all
    }

    #[test]
    fn members_are_found_in_structs_without_names() {
        let facts = Types::parse(&types()).unwrap().facts().unwrap();
        let layout = SkbLayout {
            ip_summed: 9,
            ip_summed_shift: 5,
            csum_start: 8,
            csum_offset: 2,
            head: 16,
            data: 24,
        };
        assert_eq!(facts, KernelFacts { layout, functions: [1, 2, 3, 4] });
    }

    #[test]
    fn what_is_cut_short_or_foreign_is_refused() {
        let whole = types();
        for length in 0..whole.len() {
            if let Some(types) = Types::parse(&whole[..length]) {
                assert!(types.facts().is_err(), "{length}");
            }
        }
        assert!(Types::parse(b"no types at all, but some words").is_none());
        let mut later = whole;
        later[24 + 7] = 30;
        assert!(Types::parse(&later).is_none(), "a kind that came later");
    }

    #[test]
    fn the_running_kernel_has_them() {
        let facts = KernelFacts::read().unwrap();
        assert_ne!(facts.layout.head, facts.layout.data);
        assert!(!facts.functions.contains(&0));
    }
}
