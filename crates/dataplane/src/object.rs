//! The committed eBPF object, and loading it.
//!
//! The object is built by `scripts/build-ebpf` and committed under `gen/`, so that an ordinary
//! build needs no BPF compiler. It carries no BTF and is loaded without any.

use crate::bpffs::{Paths, remove_pin};
use crate::error::{Error, chain};
use aya::maps::MapInfo;
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use packet::ConntrackSize;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The names of the maps that are pinned.
macro_rules! names {
    (
        filled {$(
            $(#[$doc:meta])*
            $name:ident $constant:ident: $key:ty => $value:ty, $entries:expr, removed $when:ident;
        )*}
        kept {$(
            $(#[$kept_doc:meta])*
            $kept:ident $kept_constant:ident: $kind:ident $held:ty, $size:expr;
        )*}
    ) => {
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name),)* $(stringify!($kept),)*];
    };
}
packet::maps!(names);

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
        let info = MapInfo::from_pin(maps.join(map)).ok();
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
    EbpfLoader::new()
        .btf(None)
        .map_max_entries("ports", ports)
        .map_max_entries("conntrack", buckets)
        .default_map_pin_directory(&maps)
        .load(OBJECT)
        .map_err(|cause| Error::Load { program: "maps".to_owned(), cause: chain(&cause) })
}

/// A program that is in the kernel: the pinned one if there is, else loaded and pinned now.
///
/// Programs are pinned under the hash of their object, so a start with the same object loads,
/// verifies and replaces nothing. A program that works on other maps than those that are pinned now
/// is replaced: what is written into these would have no effect on it.
pub(crate) fn program(
    object: &mut Ebpf,
    name: &'static str,
    pin: &Path,
    maps: &Path,
) -> Result<SchedClassifier, Error> {
    if let Ok(program) = SchedClassifier::from_pin(pin) {
        match works_on(&program, maps) {
            Ok(true) => return Ok(program),
            Ok(false) => tracing::warn!(name, "the program works on maps that are gone"),
            Err(cause) => tracing::warn!(name, cause, "cannot tell which maps a program works on"),
        }
        remove_pin(pin)?;
    }
    let failed = |cause: &dyn std::error::Error| Error::Load {
        program: name.to_owned(),
        cause: chain(cause),
    };
    let program = load(object, name)?;
    program.pin(pin).map_err(|cause| failed(&cause))?;
    SchedClassifier::from_pin(pin).map_err(|cause| failed(&cause))
}

/// Whether each map of the program that has the name of a pinned one is that one.
fn works_on(program: &SchedClassifier, maps: &Path) -> Result<bool, String> {
    let info = program.info().map_err(|cause| chain(&cause))?;
    let ids = info.map_ids().map_err(|cause| chain(&cause))?.unwrap_or_default();
    for id in ids {
        let used = MapInfo::from_id(id).map_err(|cause| chain(&cause))?;
        let Some(name) = used.name_as_str().filter(|name| NAMES.contains(name)) else { continue };
        let pinned = MapInfo::from_pin(maps.join(name)).map_err(|cause| chain(&cause))?;
        if pinned.id() != id {
            return Ok(false);
        }
    }
    Ok(true)
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
