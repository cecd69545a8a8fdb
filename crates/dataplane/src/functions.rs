//! Types for the object's functions: which of them the kernel checks by themselves (`packet::Checked`).
//!
//! What is global by the types of an object (BTF) is walked by the verifier once, and not anew for
//! each call. A compiler would tell of all types of the program, with names that are none in C; the
//! kernel asks for the signatures alone. So they are made here, out of the table that the object has
//! of them. The formats: ELF, and `Documentation/bpf/btf.rst` of the kernel.

use packet::{Checked, PARAMETERS};

/// The first kernel that can be told of a pointer that is never null. An older one walks the functions
/// anew for each call, which takes it several times as long and leads to the same.
pub(crate) const OLDEST_KERNEL: (u32, u32) = (6, 8);

/// Sections of the object.
const SYMBOLS: u32 = 2;
const RELOCATIONS: u32 = 9;
const TABLE: &str = "checked";
/// Bytes of a section's header, a symbol, a relocation, and an entry of the table.
const HEADER: usize = 64;
const SYMBOL: usize = 24;
const RELOCATION: usize = 16;
const ENTRY: usize = size_of::<Checked>();
/// The type of a symbol that is a function.
const FUNCTION: u8 = 2;

/// Kinds of types.
const INT: u32 = 1;
const PTR: u32 = 2;
const STRUCT: u32 = 4;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const DECL_TAG: u32 = 17;
/// Linkage of a function.
const STATIC: u32 = 0;
const GLOBAL: u32 = 1;
/// Numbers of the first types, see [`Types::new`].
const NUMBER: u32 = 1;
const CONTEXT: u32 = 3;
const UNCHECKED: u32 = 5;
/// The struct that a context pointer points to, for the verifier: it looks at the name alone.
const CONTEXT_NAME: &str = "__sk_buff";
/// The tag of a pointer that is never null.
const NOT_NULL: &str = "arg:nonnull";

/// The object with types of its functions; `None` if it has no table of them, as those of earlier
/// releases, or is no object.
pub(crate) fn with_types(object: &[u8]) -> Option<Vec<u8>> {
    let elf = Elf::of(object)?;
    let functions = elf.functions()?;
    let checked = elf.checked(&functions)?;
    let mut types = Types::new();
    let mut records: Vec<(usize, Vec<[u32; 2]>)> = Vec::new();
    for function in &functions {
        let parameters = checked.iter().find(|(place, _)| *place == function.place);
        let number = match parameters {
            Some((_, parameters)) => types.function(function.name, parameters),
            None => UNCHECKED,
        };
        let (section, start) = function.place;
        let record = [u32::try_from(start).ok()?, number];
        match records.iter_mut().find(|(known, _)| *known == section) {
            Some((_, records)) => records.push(record),
            None => records.push((section, vec![record])),
        }
    }
    let mut infos = vec![8];
    for (section, mut records) in records {
        records.sort_unstable();
        let name = types.text(elf.section_name(section)?);
        infos.extend([name, u32::try_from(records.len()).ok()?]);
        infos.extend(records.as_flattened());
    }
    let infos = to_bytes(&infos);
    let [magic, length] = [0x0001_eb9f, u32::try_from(infos.len()).ok()?];
    let mut extension = to_bytes(&[magic, 24, 0, length, length, 0]);
    extension.extend(infos);
    elf.with_sections(&[(".BTF", &types.to_bytes()?), (".BTF.ext", &extension)])
}

/// A section, and where in it.
type Place = (usize, u64);

struct Function<'a> {
    name: &'a str,
    place: Place,
}

/// An object for 64 bits and little-endian.
struct Elf<'a> {
    bytes: &'a [u8],
    headers: Vec<&'a [u8]>,
    names: &'a [u8],
}

impl<'a> Elf<'a> {
    fn of(bytes: &'a [u8]) -> Option<Elf<'a>> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let start = usize::try_from(long(bytes, 0x28)?).ok()?;
        let length = usize::from(short(bytes, 0x3c)?) * HEADER;
        let headers: Vec<_> =
            bytes.get(start..start.checked_add(length)?)?.chunks_exact(HEADER).collect();
        let names = contents(bytes, headers.get(usize::from(short(bytes, 0x3e)?))?)?;
        Some(Elf { bytes, headers, names })
    }

    fn section_name(&self, number: usize) -> Option<&'a str> {
        text(self.names, word(self.headers.get(number)?, 0)?)
    }

    fn symbols(&self) -> Option<(Vec<&'a [u8]>, &'a [u8])> {
        let header = *self.headers.iter().find(|header| word(header, 4) == Some(SYMBOLS))?;
        let names = self.headers.get(usize::try_from(word(header, 40)?).ok()?)?;
        let symbols = contents(self.bytes, header)?.chunks_exact(SYMBOL).collect();
        Some((symbols, contents(self.bytes, names)?))
    }

    fn functions(&self) -> Option<Vec<Function<'a>>> {
        let (symbols, names) = self.symbols()?;
        let functions = symbols.into_iter().filter(|symbol| symbol[4] & 0xf == FUNCTION);
        let function = |symbol| {
            let name = text(names, word(symbol, 0)?)?;
            Some(Function { name, place: place(symbol)? })
        };
        functions.map(function).collect()
    }

    /// The table: where the functions are, and their parameters. Each static that is part of it has
    /// a section.
    fn checked(&self, functions: &[Function<'_>]) -> Option<Vec<(Place, [u32; PARAMETERS])>> {
        let parts = (0..self.headers.len()).filter(|at| self.section_name(*at) == Some(TABLE));
        let parts: Option<Vec<_>> = parts.map(|part| self.part(part, functions)).collect();
        parts.map(|parts| parts.concat()).filter(|table| !table.is_empty())
    }

    fn part(
        &self,
        part: usize,
        functions: &[Function<'_>],
    ) -> Option<Vec<(Place, [u32; PARAMETERS])>> {
        let relocates = |header: &[u8]| {
            let of = word(header, 44).and_then(|of| usize::try_from(of).ok());
            word(header, 4) == Some(RELOCATIONS) && of == Some(part)
        };
        let relocations = self.headers.iter().find(|header| relocates(header))?;
        let relocations = contents(self.bytes, relocations)?;
        let entries = contents(self.bytes, self.headers.get(part)?)?;
        let (symbols, _) = self.symbols()?;
        let entry = |relocation: &[u8]| {
            let at = usize::try_from(long(relocation, 0)?).ok()?;
            let entry = entries.get(at..at.checked_add(ENTRY)?)?;
            let symbol = usize::try_from(long(relocation, 8)? >> 32).ok()?;
            let (section, start) = place(symbols.get(symbol)?)?;
            // The symbol is the function's, or that of the section.
            let place = (section, start.checked_add(long(entry, 0)?)?);
            let parameters: Option<Vec<u32>> =
                (0..PARAMETERS).map(|number| word(entry, 8 + 4 * number)).collect();
            let is_one = functions.iter().any(|function| function.place == place);
            is_one.then_some((place, parameters?.try_into().ok()?))
        };
        relocations.chunks_exact(RELOCATION).map(entry).collect()
    }

    /// The object with these sections added.
    fn with_sections(&self, added: &[(&str, &[u8])]) -> Option<Vec<u8>> {
        let mut object = self.bytes.to_vec();
        let mut headers: Vec<Vec<u8>> = self.headers.iter().map(|header| header.to_vec()).collect();
        let mut names = self.names.to_vec();
        for (name, contents) in added {
            object.resize(object.len().next_multiple_of(8), 0);
            let mut header = vec![0; HEADER];
            put(&mut header, 0, &u32::try_from(names.len()).ok()?.to_le_bytes());
            // Contents of the program's own.
            put(&mut header, 4, &1_u32.to_le_bytes());
            place_section(&mut header, object.len(), contents.len())?;
            put(&mut header, 48, &4_u64.to_le_bytes());
            headers.push(header);
            names.extend(name.bytes());
            names.push(0);
            object.extend(*contents);
        }
        // The names may have been those of symbols as well, which stay where they are.
        let at = usize::from(short(self.bytes, 0x3e)?);
        place_section(headers.get_mut(at)?, object.len(), names.len())?;
        object.extend(names);
        object.resize(object.len().next_multiple_of(8), 0);
        let start = u64::try_from(object.len()).ok()?;
        put(&mut object, 0x28, &start.to_le_bytes());
        let count = u16::try_from(headers.len()).ok()?;
        put(&mut object, 0x3c, &count.to_le_bytes());
        object.extend(headers.concat());
        Some(object)
    }
}

/// The types that are made.
struct Types {
    words: Vec<u32>,
    count: u32,
    strings: Vec<u8>,
    /// Pointers to memory of so many bytes.
    pointers: Vec<(u32, u32)>,
}

impl Types {
    fn new() -> Types {
        let mut types =
            Types { words: Vec::new(), count: 0, strings: vec![0], pointers: Vec::new() };
        let [number, context] = ["number", CONTEXT_NAME].map(|name| types.text(name));
        types.add(&[number, INT << 24, 8, 64]);
        types.add(&[context, STRUCT << 24, 8]);
        types.add(&[0, PTR << 24, CONTEXT - 1]);
        types.add(&[0, FUNC_PROTO << 24, NUMBER]);
        let unchecked = types.text("unchecked");
        types.add(&[unchecked, FUNC << 24 | STATIC, UNCHECKED - 1]);
        types
    }

    fn add(&mut self, words: &[u32]) -> u32 {
        self.words.extend(words);
        self.count += 1;
        self.count
    }

    fn text(&mut self, text: &str) -> u32 {
        let at = self.strings.len();
        self.strings.extend(text.bytes());
        self.strings.push(0);
        u32::try_from(at).unwrap_or(0)
    }

    /// A pointer to memory.
    fn pointer(&mut self, bytes: u32) -> u32 {
        if let Some((_, known)) = self.pointers.iter().find(|(size, _)| *size == bytes) {
            return *known;
        }
        let name = self.text(&format!("bytes_{bytes}"));
        let memory = self.add(&[name, STRUCT << 24, bytes]);
        let pointer = self.add(&[0, PTR << 24, memory]);
        self.pointers.push((bytes, pointer));
        pointer
    }

    /// A function that is checked by itself.
    fn function(&mut self, name: &str, parameters: &[u32; PARAMETERS]) -> u32 {
        let known: Vec<u32> =
            parameters.iter().copied().take_while(|is| *is != Checked::NONE).collect();
        let mut prototype = Vec::new();
        for (number, is) in known.iter().enumerate() {
            let kind = match *is {
                Checked::NUMBER => NUMBER,
                0 => CONTEXT,
                bytes => self.pointer(bytes),
            };
            let name = self.text(&format!("p{number}"));
            prototype.extend([name, kind]);
        }
        let vlen = u32::try_from(known.len()).unwrap_or(0);
        let prototype = self.add(&[&[0, FUNC_PROTO << 24 | vlen, NUMBER], &prototype[..]].concat());
        let name = self.text(name);
        let function = self.add(&[name, FUNC << 24 | GLOBAL, prototype]);
        for (number, is) in (0..).zip(&known) {
            if ![0, Checked::NUMBER].contains(is) {
                let tag = self.text(NOT_NULL);
                self.add(&[tag, DECL_TAG << 24, function, number]);
            }
        }
        function
    }

    fn to_bytes(&self) -> Option<Vec<u8>> {
        let types = u32::try_from(4 * self.words.len()).ok()?;
        let strings = u32::try_from(self.strings.len()).ok()?;
        let mut bytes = to_bytes(&[0x0001_eb9f, 24, 0, types, types, strings]);
        bytes.extend(to_bytes(&self.words));
        bytes.extend(&self.strings);
        Some(bytes)
    }
}

/// Where a symbol is.
fn place(symbol: &[u8]) -> Option<Place> {
    Some((usize::from(short(symbol, 6)?), long(symbol, 8)?))
}

/// What a section holds.
fn contents<'a>(bytes: &'a [u8], header: &[u8]) -> Option<&'a [u8]> {
    let start = usize::try_from(long(header, 24)?).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(long(header, 32)?).ok()?)?)
}

fn place_section(header: &mut [u8], start: usize, length: usize) -> Option<()> {
    put(header, 24, &u64::try_from(start).ok()?.to_le_bytes());
    put(header, 32, &u64::try_from(length).ok()?.to_le_bytes());
    Some(())
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn text(strings: &[u8], at: u32) -> Option<&str> {
    let rest = strings.get(usize::try_from(at).ok()?..)?;
    std::str::from_utf8(rest.split(|byte| *byte == 0).next()?).ok()
}

fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::OBJECT;

    /// The names of the global functions among the types of an object.
    fn global(object: &[u8]) -> Vec<String> {
        let elf = Elf::of(object).unwrap();
        let number = (0..elf.headers.len()).find(|at| elf.section_name(*at) == Some(".BTF"));
        let types = contents(object, elf.headers[number.unwrap()]).unwrap();
        let length = usize::try_from(word(types, 12).unwrap()).unwrap();
        let (words, strings) = types[24..].split_at(length);
        let words: Vec<u32> =
            (0..words.len()).step_by(4).map(|at| word(words, at).unwrap()).collect();
        let mut names = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let info = words[at + 1];
            if info >> 24 == FUNC && info & 0xffff == GLOBAL {
                names.push(text(strings, words[at]).unwrap().to_owned());
            }
            at += 3 + match info >> 24 {
                INT | DECL_TAG => 1,
                FUNC_PROTO => 2 * usize::try_from(info & 0xffff).unwrap(),
                _ => 0,
            };
        }
        names
    }

    #[test]
    fn each_function_of_the_table_is_global() {
        let elf = Elf::of(OBJECT).unwrap();
        let parts = (0..elf.headers.len()).filter(|at| elf.section_name(*at) == Some(TABLE));
        let bytes: usize =
            parts.map(|part| contents(OBJECT, elf.headers[part]).unwrap().len()).sum();
        let entries = bytes / ENTRY;
        let typed = with_types(OBJECT).unwrap();
        let mut names = global(&typed);
        assert_eq!(names.len(), entries);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), entries);
        assert!(names.iter().any(|name| name.contains("conntrack5track")), "{names:?}");
        // All that was there is there still, but for the header.
        assert_eq!(typed[64..OBJECT.len()], OBJECT[64..]);
    }

    #[test]
    fn an_object_that_is_cut_short_or_has_no_table_is_left_alone() {
        for length in (0..OBJECT.len()).step_by(97) {
            assert!(with_types(&OBJECT[..length]).is_none(), "{length}");
        }
        let earlier = include_bytes!("../tests/objects/layout-6.bpf.o");
        assert!(with_types(earlier).is_none());
    }
}
