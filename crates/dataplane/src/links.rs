//! Attached programs as pinned TCX links: made once, replaced in place, never detached in between.
//!
//! A link outlives the process by its pin. When its interface goes away the kernel leaves the
//! link behind, defunct, with interface index 0; the index may then be given to another
//! interface. So a pin's name is never believed, only what the kernel says about the link.

use crate::bpffs::{entries, remove_pin};
use crate::error::{Error, chain};
use aya::programs::links::{FdLink, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A place where a program is attached; also the name of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// Ingress of a port's host side.
    FromPort,
    /// Ingress of the tunnel device.
    FromTunnel,
    /// Egress of a port's host side.
    ToPort,
}

impl Hook {
    /// Every hook.
    pub(crate) const ALL: [Hook; 3] = [Hook::FromPort, Hook::FromTunnel, Hook::ToPort];

    /// The program's name in the object.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Hook::FromPort => "from_port",
            Hook::FromTunnel => "from_tunnel",
            Hook::ToPort => "to_port",
        }
    }

    const fn side(self) -> TcAttachType {
        match self {
            Hook::FromPort | Hook::FromTunnel => TcAttachType::Ingress,
            Hook::ToPort => TcAttachType::Egress,
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

/// What the kernel says about a pinned link.
pub(crate) struct Found {
    link: PinnedLink,
    /// Id of the program that it runs.
    pub(crate) program: u32,
    /// Interface that it is on; 0 if that is gone.
    pub(crate) ifindex: u32,
}

/// Looks at a pinned link; `None` if there is none.
pub(crate) fn inspect(pin: &Path) -> Result<Option<Found>, String> {
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => link,
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(chain(&error)),
    };
    let link = FdLink::from(link);
    let info = link.info().map_err(|error| chain(&error))?;
    let ifindex = interface_of(info.id()).map_err(|error| error.to_string())?;
    let program = info.program_id();
    // The pin stays; `FdLink::from` only took the descriptor out of it.
    let link = PinnedLink::from_pin(pin).map_err(|error| chain(&error))?;
    Ok(Some(Found { link, program, ifindex }))
}

/// The interface index of a link of which this process has a descriptor, 0 if it is defunct.
///
/// The loader does not expose it, but the kernel prints it for every descriptor of a TCX link
/// (`tcx_link_fdinfo`), so no system call of our own is needed.
fn interface_of(link_id: u32) -> io::Result<u32> {
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // Another thread may close a descriptor while we look.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u32>().ok()
        };
        if field("link_id:") == Some(link_id)
            && let Some(ifindex) = field("ifindex:")
        {
            return Ok(ifindex);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "the kernel does not describe the link"))
}

/// Attaches the program unless a link does already; replaces the link's program if it differs.
pub(crate) fn attach(
    program: &mut SchedClassifier,
    hook: Hook,
    links: &Path,
    ifindex: u32,
) -> Result<(), Error> {
    let pin = hook.pin(links, ifindex);
    let failed = |action, cause| Error::Attach { ifindex, hook: hook.name(), action, cause };
    let name = interface_name(ifindex)?;
    if let Some(found) = inspect(&pin).map_err(|cause| failed("inspect", cause))? {
        if found.ifindex == ifindex {
            return replace(program, found).map_err(|cause| failed("replace", cause));
        }
        remove_pin(&pin)?;
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = program
        .attach_with_options(&name, hook.side(), order)
        .and_then(|id| program.take_link(id))
        .map_err(|error| failed("attach", chain(&error)))?;
    FdLink::try_from(link)
        .map_err(|error| failed("attach", chain(&error)))?
        .pin(&pin)
        .map_err(|error| failed("pin", chain(&error)))?;
    Ok(())
}

/// Makes the link run this program, if it runs another one. No packet passes in between.
pub(crate) fn replace(program: &mut SchedClassifier, found: Found) -> Result<(), String> {
    let ours = program.info().map_err(|error| chain(&error))?.id();
    if found.program == ours {
        return Ok(());
    }
    let link =
        SchedClassifierLink::try_from(FdLink::from(found.link)).map_err(|error| chain(&error))?;
    let id = program.attach_to_link(link).map_err(|error| chain(&error))?;
    // Taken out and closed here: the pin keeps the link.
    program.take_link(id).map_err(|error| chain(&error))?;
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
