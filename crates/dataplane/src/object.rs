//! The committed eBPF object, and loading it.
//!
//! The object is built by `scripts/build-ebpf` and committed under `gen/`, so that an ordinary
//! build needs no BPF compiler. It carries no BTF: what it needs to know of the kernel's types is
//! written into it before it is loaded, and types of its functions are added (`functions`).

use crate::bpffs::Paths;
use crate::btf::KernelFacts;
use crate::error::{Error, chain};
use crate::functions;
use crate::preflight::is_kernel;
use aya::maps::MapInfo;
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use packet::{ConntrackSize, FLOWS, FRAGMENTS_PER_PORT, KFUNCS, Plain};
use sha2::{Digest, Sha256};
use std::path::Path;

/// A map of the table.
pub(crate) struct MapName {
    /// Its name.
    pub(crate) base: &'static str,
    /// The version of its layout.
    pub(crate) version: u32,
    /// What it is called in the object, in the kernel and in its pin.
    pub(crate) full: &'static str,
}

/// The maps that are pinned.
macro_rules! names {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident $version:literal:
                $shape:ident $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept {$(
            $(#[$kept_doc:meta])*
            $kept:ident $kept_constant:ident $kept_version:literal:
                $kind:ident $held:ty, $size:expr;
        )*}
    ) => {
        /// Every map of the table.
        pub(crate) const MAPS: &[MapName] = &[
            $(MapName {
                base: stringify!($name),
                version: $version,
                full: concat!(stringify!($name), "_", $version),
            },)*
            $(MapName {
                base: stringify!($kept),
                version: $kept_version,
                full: concat!(stringify!($kept), "_", $kept_version),
            },)*
        ];
    };
}
packet::maps!(names);

/// What the map with this name is called in the object and in its pin.
pub(crate) fn full_name(base: &'static str) -> &'static str {
    MAPS.iter().find(|map| map.base == base).map_or(base, |map| map.full)
}

/// The version of the layout of the map with this name; 0 if there is none.
#[must_use]
pub fn map_version(base: &str) -> u32 {
    MAPS.iter().find(|map| map.base == base).map_or(0, |map| map.version)
}

/// The object.
pub(crate) const OBJECT: &[u8] = aya::include_bytes_aligned!("../gen/netloom.bpf.o");

/// The SHA-256 of the object, in hexadecimal.
pub(crate) fn hash() -> String {
    Sha256::digest(OBJECT).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the maps, or opens the pinned ones, and prepares the programs. None is loaded yet.
///
/// The connection table keeps the size that it was made with: another size would mean another
/// map, and with it the loss of every connection.
pub(crate) fn open(paths: &Paths, wanted: ConntrackSize) -> Result<Ebpf, Error> {
    let maps = paths.maps();
    let size = |map, wanted| {
        let info = MapInfo::from_pin(maps.join(full_name(map))).ok();
        info.map_or(wanted, |info| info.max_entries())
    };
    let (ports, buckets) = (size("ports", wanted.ports), size("conntrack", wanted.buckets()));
    if (ports, buckets) != (wanted.ports, wanted.buckets()) {
        tracing::warn!(
            ports,
            buckets,
            ?wanted,
            "the connection table keeps its size until the data plane is unloaded"
        );
    }
    // For each CPU, and for all of them together.
    let cpus = aya::util::nr_cpus().map_or(1, |cpus| u32::try_from(cpus).unwrap_or(1));
    let sizes = [
        (full_name("ports"), ports),
        (full_name("conntrack"), buckets),
        (full_name("fragments"), ports.saturating_mul(FRAGMENTS_PER_PORT)),
        ("flows", FLOWS * (cpus + 1)),
    ];
    open_sized(OBJECT, &maps, &sizes)
}

/// The same of any object, with this many entries in these maps.
pub(crate) fn open_sized(
    object: &[u8],
    maps: &Path,
    sizes: &[(&'static str, u32)],
) -> Result<Ebpf, Error> {
    let failed = |cause| Error::Load { program: "maps".to_owned(), cause };
    let facts = KernelFacts::read().map_err(failed)?;
    let layout = facts.layout.to_bytes();
    let mut loader = EbpfLoader::new();
    loader.btf(None).override_global("SKB_LAYOUT", &layout, true).default_map_pin_directory(maps);
    for (map, entries) in sizes {
        loader.map_max_entries(map, *entries);
    }
    let object = with_functions(object, &facts.functions);
    let object = match is_kernel(functions::OLDEST_KERNEL) {
        true => functions::with_types(&object).unwrap_or(object),
        false => object,
    };
    loader.load(&object).map_err(|cause| failed(chain(&cause)))
}

/// The object with calls of the kernel's functions in the place of those of no helper.
///
/// The object has no BTF, by which a loader would do this.
fn with_functions(object: &[u8], functions: &[u32; KFUNCS.len()]) -> Vec<u8> {
    /// An instruction's code, its registers (the second is zero for a helper, and says what kind
    /// of function is called), its offset.
    const CALL: [u8; 4] = [0x85, 0, 0, 0];
    const CALL_KERNEL: [u8; 4] = [0x85, 0x20, 0, 0];
    let mut object = object.to_vec();
    for instruction in object.chunks_exact_mut(8) {
        let Some(number) = instruction.strip_prefix(&CALL) else { continue };
        let mut numbered = KFUNCS.iter().zip(functions);
        let called = numbered.find(|((of_ours, _), _)| *number == of_ours.to_le_bytes());
        if let Some((_, function)) = called {
            instruction[..4].copy_from_slice(&CALL_KERNEL);
            instruction[4..].copy_from_slice(&function.to_le_bytes());
        }
    }
    object
}

/// A program that is in the kernel: the pinned one if there is, else loaded and pinned now.
///
/// Programs are pinned under the hash of their object, so a start with the same object loads,
/// verifies and replaces nothing.
pub(crate) fn program(
    object: &mut Ebpf,
    name: &'static str,
    pin: &Path,
) -> Result<SchedClassifier, Error> {
    if let Ok(program) = SchedClassifier::from_pin(pin) {
        return Ok(program);
    }
    let failed = |cause: &dyn std::error::Error| Error::Load {
        program: name.to_owned(),
        cause: chain(cause),
    };
    let program = load(object, name)?;
    program.pin(pin).map_err(|cause| failed(&cause))?;
    SchedClassifier::from_pin(pin).map_err(|cause| failed(&cause))
}

/// Loads a program of the object into the kernel.
pub(crate) fn load<'a>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    let program = object.program_mut(name).ok_or(Error::Incomplete(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(|_| Error::Incomplete(name))?;
    program
        .load()
        .map_err(|cause| Error::Load { program: name.to_owned(), cause: chain(&cause) })?;
    Ok(program)
}
