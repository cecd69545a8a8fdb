//! The programs of a data plane, one for each hook.

use crate::bpffs::Paths;
use crate::error::Error;
use crate::links::Hook;
use crate::object;
use aya::Ebpf;
use aya::programs::SchedClassifier;

/// The programs, in the kernel and pinned.
pub(crate) struct Programs {
    from_port: SchedClassifier,
    from_tunnel: SchedClassifier,
    from_underlay: SchedClassifier,
    from_gre: SchedClassifier,
    from_uplink: SchedClassifier,
    to_port: SchedClassifier,
    to_tunnel: SchedClassifier,
    to_uplink: SchedClassifier,
}

impl Programs {
    pub(crate) fn open(object: &mut Ebpf, paths: &Paths) -> Result<Programs, Error> {
        let directory = paths.programs();
        let mut open =
            |hook: Hook| object::program(object, hook.name(), &directory.join(hook.name()));
        Ok(Programs {
            from_port: open(Hook::FromPort)?,
            from_tunnel: open(Hook::FromTunnel)?,
            from_underlay: open(Hook::FromUnderlay)?,
            from_gre: open(Hook::FromGre)?,
            from_uplink: open(Hook::FromUplink)?,
            to_port: open(Hook::ToPort)?,
            to_tunnel: open(Hook::ToTunnel)?,
            to_uplink: open(Hook::ToUplink)?,
        })
    }

    pub(crate) fn get(&self, hook: Hook) -> &SchedClassifier {
        match hook {
            Hook::FromPort => &self.from_port,
            Hook::FromTunnel => &self.from_tunnel,
            Hook::FromUnderlay => &self.from_underlay,
            Hook::FromGre => &self.from_gre,
            Hook::FromUplink => &self.from_uplink,
            Hook::ToPort => &self.to_port,
            Hook::ToTunnel => &self.to_tunnel,
            Hook::ToUplink => &self.to_uplink,
        }
    }

    /// The kernel's number of a program.
    pub(crate) fn id(&self, hook: Hook) -> Result<u32, Error> {
        let info = self.get(hook).info().map_err(|cause| Error::Load {
            program: hook.name().to_owned(),
            cause: crate::error::chain(&cause),
        })?;
        Ok(info.id())
    }

    pub(crate) fn of(&mut self, hook: Hook) -> &mut SchedClassifier {
        match hook {
            Hook::FromPort => &mut self.from_port,
            Hook::FromTunnel => &mut self.from_tunnel,
            Hook::FromUnderlay => &mut self.from_underlay,
            Hook::FromGre => &mut self.from_gre,
            Hook::FromUplink => &mut self.from_uplink,
            Hook::ToPort => &mut self.to_port,
            Hook::ToTunnel => &mut self.to_tunnel,
            Hook::ToUplink => &mut self.to_uplink,
        }
    }
}
