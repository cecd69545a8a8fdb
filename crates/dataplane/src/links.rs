//! Attached programs as pinned TCX links: made once, replaced in place, never detached in between.
//!
//! A link outlives the process by its pin. When its interface goes away the kernel leaves the
//! link behind, defunct; the index may then be given to another interface. So a pin's name is never
//! believed, only the chain of programs that the kernel has for the interface: a guard must be the
//! first there, as any program before it could let frames pass.

use crate::bpffs::{entries, remove_pin};
use crate::error::{Error, chain};
use crate::keep::Kept;
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often, and how long each time, the removal of a link is waited for: a second in all.
const REMOVAL_TRIES: u32 = 200;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

/// A place where a program is attached; also the name of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// Ingress of a port's host side.
    FromPort,
    /// Ingress of the tunnel device.
    FromTunnel,
    /// Ingress of a device of the underlay.
    FromUnderlay,
    /// Ingress of a device of the underlay, where networks are in GRE.
    FromGre,
    /// Ingress of an uplink.
    FromUplink,
    /// Egress of a port's host side.
    ToPort,
    /// Egress of the tunnel device.
    ToTunnel,
    /// Egress of an uplink.
    ToUplink,
}

impl Hook {
    /// Every hook.
    pub(crate) const ALL: [Hook; 8] = [
        Hook::FromPort,
        Hook::FromTunnel,
        Hook::FromUnderlay,
        Hook::FromGre,
        Hook::FromUplink,
        Hook::ToPort,
        Hook::ToTunnel,
        Hook::ToUplink,
    ];

    /// The program's name in the object.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Hook::FromPort => "from_port",
            Hook::FromTunnel => "from_tunnel",
            Hook::FromUnderlay => "from_underlay",
            Hook::FromGre => "from_gre",
            Hook::FromUplink => "from_uplink",
            Hook::ToPort => "to_port",
            Hook::ToTunnel => "to_tunnel",
            Hook::ToUplink => "to_uplink",
        }
    }

    const fn side(self) -> TcAttachType {
        match self {
            Hook::FromPort
            | Hook::FromTunnel
            | Hook::FromUnderlay
            | Hook::FromGre
            | Hook::FromUplink => TcAttachType::Ingress,
            Hook::ToPort | Hook::ToTunnel | Hook::ToUplink => TcAttachType::Egress,
        }
    }

    /// Whether a program before ours would make ours worthless. The host's own devices are not only
    /// ours: two of our programs may be on one, and those of others.
    const fn must_be_first(self) -> bool {
        match self {
            Hook::FromPort | Hook::FromTunnel | Hook::ToPort | Hook::ToTunnel => true,
            Hook::FromUnderlay | Hook::FromGre | Hook::FromUplink | Hook::ToUplink => false,
        }
    }

    /// The pin of a link at this hook of an interface.
    pub(crate) fn pin(self, links: &Path, ifindex: u32) -> PathBuf {
        links.join(format!("{ifindex}-{}", self.name()))
    }
}

/// A pin that has the name of a link.
pub(crate) struct Pin {
    /// Interface index that it was made for.
    pub(crate) ifindex: u32,
    /// Where it is attached.
    pub(crate) hook: Hook,
    /// Its path.
    pub(crate) path: PathBuf,
}

impl Pin {
    /// What could not be done with the link.
    pub(crate) fn failed(&self, action: &'static str, cause: String) -> Error {
        Error::Attach { ifindex: self.ifindex, hook: self.hook.name(), action, cause }
    }
}

/// All pins in the directory; other names are none of ours.
pub(crate) fn pins(links: &Path) -> Result<Vec<Pin>, Error> {
    let parse = |path: PathBuf| {
        let name = path.file_name()?.to_str()?;
        let (ifindex, hook) = name.split_once('-')?;
        let hook = Hook::ALL.into_iter().find(|known| known.name() == hook)?;
        Some(Pin { ifindex: ifindex.parse().ok()?, hook, path })
    };
    Ok(entries(links)?.into_iter().filter_map(parse).collect())
}

/// All pins in the directory, and what the kernel says about their links.
pub(crate) fn look(links: &Path) -> Result<Vec<(Pin, Option<Found>)>, Error> {
    let look = |pin: Pin| inspect(&pin).map(|found| (pin, found));
    pins(links)?.into_iter().map(look).collect()
}

/// A pinned link, and what the kernel says about it.
pub(crate) struct Found {
    link: FdLink,
    /// Id of the program that it runs.
    pub(crate) program: u32,
    /// Whether its program is where it must be on the interface: as a guard, the first, so that
    /// nothing else sees a frame before.
    pub(crate) is_first: bool,
}

impl Found {
    /// Id of the program that it runs.
    pub(crate) fn program(&self) -> u32 {
        self.program
    }
}

/// What becomes of a link that is there and runs another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// It gets the program.
    Replaced,
    /// It stays: the program's maps are not full yet.
    Stays,
}

/// Looks at a pinned link; `None` if there is none.
pub(crate) fn inspect(pin: &Pin) -> Result<Option<Found>, Error> {
    let failed = |cause| pin.failed("inspect", cause);
    let link = match PinnedLink::from_pin(&pin.path) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(failed(chain(&error))),
    };
    let program = link.info().map_err(|error| failed(chain(&error)))?.program_id();
    let chain = programs(pin.ifindex, pin.hook)?;
    let is_first = match pin.hook.must_be_first() {
        true => chain.first() == Some(&program),
        false => chain.contains(&program),
    };
    Ok(Some(Found { link, program, is_first }))
}

/// Ids of the programs that see the frames of an interface, in their order. A link whose interface is gone is
/// in no chain, also when another interface has the index by now: a link of ours is made there
/// only after the pin of this one is removed.
fn programs(ifindex: u32, hook: Hook) -> Result<Vec<u32>, Error> {
    let name = match interface_name(ifindex) {
        Ok(name) => name,
        Err(Error::NoInterface { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    match SchedClassifier::query_tcx(&name, hook.side()) {
        Ok((_, programs)) => Ok(programs.iter().map(|program| program.id()).collect()),
        // The interface may go at any time.
        Err(_) if interface_name(ifindex).is_err() => Ok(Vec::new()),
        Err(error) => Err(Error::Attach {
            ifindex,
            hook: hook.name(),
            action: "look at the programs of",
            cause: chain(&error),
        }),
    }
}

/// Makes the program the first one at the hook of the interface, unless a link does already;
/// what becomes of one that runs another program is said by `other`. `kept` has the link of this
/// pin open, if there is one, and has the one that is there in the end.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    pin: &Pin,
    other: Other,
    kept: &mut Kept,
) -> Result<(), Error> {
    let name = interface_name(pin.ifindex)?;
    match inspect(pin)? {
        Some(found) if found.is_first && other == Other::Stays => {
            kept.put(pin.ifindex, pin.hook, found.link);
            return Ok(());
        }
        Some(found) if found.is_first => return replace(program, found, pin, kept),
        // Somewhere else, or behind another program: worth nothing.
        _ => remove_pin(&pin.path)?,
    }
    kept.let_go(pin.ifindex, pin.hook);
    let link = attach_first(program, pin.hook, &name)
        .map_err(|error| pin.failed("attach", chain(&error)))?;
    let link = FdLink::try_from(link)
        .map_err(|error| pin.failed("attach", chain(&error)))?
        .pin(&pin.path)
        .map_err(|error| pin.failed("pin", chain(&error)))?;
    kept.put(pin.ifindex, pin.hook, link.into());
    Ok(())
}

/// Waits until a program is off an interface whose link was let go: the kernel does that a little
/// later.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody that a link is gone")]
pub(crate) fn until_off(program: u32, pin: &Pin) -> Result<(), Error> {
    for _ in 0..REMOVAL_TRIES {
        if !programs(pin.ifindex, pin.hook)?.contains(&program) {
            return Ok(());
        }
        std::thread::sleep(REMOVAL_PAUSE);
    }
    Err(pin.failed("take off", "the kernel still has it there after a second".to_owned()))
}

/// Attaches the program before all others. The kernel takes off a link whose pin was removed a
/// little later, and until then refuses to have the program there twice.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody that a link is gone")]
fn attach_first(
    program: &mut SchedClassifier,
    hook: Hook,
    interface: &str,
) -> Result<SchedClassifierLink, ProgramError> {
    let mut tries = REMOVAL_TRIES;
    loop {
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(interface, hook.side(), order) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists && tries > 0 =>
            {
                tries -= 1;
                std::thread::sleep(REMOVAL_PAUSE);
            }
            attached => return attached.and_then(|id| program.take_link(id)),
        }
    }
}

/// Makes the link run this program, if it runs another one, and keeps it open. No packet passes
/// in between.
pub(crate) fn replace(
    program: &mut SchedClassifier,
    found: Found,
    pin: &Pin,
    kept: &mut Kept,
) -> Result<(), Error> {
    let failed = |cause| pin.failed("replace", cause);
    let ours = program.info().map_err(|error| failed(chain(&error)))?.id();
    if found.program == ours {
        kept.put(pin.ifindex, pin.hook, found.link);
        return Ok(());
    }
    let link = SchedClassifierLink::try_from(found.link).map_err(|error| failed(chain(&error)))?;
    let id = program.attach_to_link(link).map_err(|error| failed(chain(&error)))?;
    let link = program.take_link(id).map_err(|error| failed(chain(&error)))?;
    let link = FdLink::try_from(link).map_err(|error| failed(chain(&error)))?;
    kept.put(pin.ifindex, pin.hook, link);
    tracing::debug!(ifindex = pin.ifindex, hook = pin.hook.name(), "a link has its new program");
    Ok(())
}

/// The name of an interface of this network namespace.
pub(crate) fn interface_name(ifindex: u32) -> Result<String, Error> {
    let missing = || Error::NoInterface { ifindex };
    let name = nix::net::if_::if_indextoname(ifindex).map_err(|_| missing())?;
    let name = name.into_string().map_err(|_| missing())?;
    // nix takes the null of a failed lookup for success and leaves the name empty.
    if name.is_empty() { Err(missing()) } else { Ok(name) }
}
