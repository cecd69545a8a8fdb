//! The tunnel device, the host's own VTEPs, and the underlay, as a pass follows them.

use std::{collections::BTreeSet, net::IpAddr};

use model::resource::vtep::VXLAN_PORT;
use wire::holding::Holding;

use super::{Cause, Converger, Outcome};
use crate::{
    kernel::{Directly, HostKernel, Refusal},
    plan,
    underlay::{self, Ways},
};

/// The host's own VTEPs.
#[derive(Debug)]
pub(super) struct Vteps {
    /// Those that its networks are to use.
    wanted: BTreeSet<IpAddr>,
    /// Those of them that no device has.
    lacking: Result<BTreeSet<IpAddr>, Refusal>,
}

impl Default for Vteps {
    fn default() -> Self {
        Self { wanted: BTreeSet::new(), lacking: Ok(BTreeSet::new()) }
    }
}

/// What goes past the tunnel device.
#[derive(Debug, Default)]
pub(super) struct Direct {
    /// What ought to.
    pub(super) wanted: Directly,
    /// It is so, or will not be.
    is_known: bool,
    /// Why nothing does.
    pub(super) why_not: Option<String>,
}

impl<K: HostKernel> Converger<K> {
    /// Makes the tunnel device, or looks at it again.
    pub(super) async fn tunnel(&mut self, desired: &Holding, cause: Cause, outcome: &mut Outcome) {
        let port = plan::vxlan_port(desired).unwrap_or(match self.port {
            0 => VXLAN_PORT,
            port => port,
        });
        self.known.tunnel &= self.port == port;
        if !self.known.tunnel || (self.tunnel.is_err() && cause == Cause::Due) {
            self.tunnel = self.kernel.tunnel(port).await;
            self.port = port;
            self.known.tunnel = true;
        }
        if let Err(refusal) = &self.tunnel {
            outcome.lacks_tunnel(desired, refusal);
        }
    }

    /// Looks whether the host has the addresses that its tunnels end at. What leaves from one that
    /// it has not got is lost on the way, and answers do not come back.
    pub(super) async fn vteps(&mut self, desired: &Holding, outcome: &mut Outcome) {
        let wanted = plan::vteps(desired);
        if !self.known.vteps || self.vteps.wanted != wanted {
            let lacking = match wanted.is_empty() {
                true => Ok(BTreeSet::new()),
                false => self.kernel.lacking(&wanted).await,
            };
            self.known.vteps = lacking.is_ok();
            self.vteps = Vteps { wanted, lacking };
        }
        match &self.vteps.lacking {
            Ok(lacking) if lacking.is_empty() => {}
            Ok(lacking) => outcome.lacks_vteps(desired, lacking),
            Err(refusal) => outcome.trouble.push(format!("cannot see its addresses: {refusal}")),
        }
    }

    /// Looks whether the underlay is large enough, of which nothing is done and nothing waits; and what may go
    /// past the tunnel device there.
    pub(super) async fn underlay(&mut self, desired: &Holding, outcome: &mut Outcome) {
        let longest = underlay::longest(desired);
        let tunnels = underlay::tunnels(longest.keys(), self.ledger.tables());
        let gre = plan::gre_vteps(desired);
        if !self.known.underlay || tunnels != self.underlay.0 {
            match self.kernel.ways(&tunnels).await {
                Ok(ways) => (self.underlay, self.known.underlay) = ((tunnels, ways), true),
                Err(refusal) => tracing::warn!(%refusal, "cannot see how large the underlay is"),
            }
            self.direct.is_known = false;
        }
        let ways = &self.underlay.1;
        let wanted = Directly {
            devices: underlay::direct(ways),
            gre: underlay::direct(ways.iter().filter(|(own, _)| gre.contains(own))),
            port: self.port,
        };
        if self.known.underlay && !(self.direct.is_known && self.direct.wanted == wanted) {
            let done = self.kernel.receive_directly(wanted.clone()).await;
            if let Err(refusal) = &done {
                tracing::warn!(%refusal, "packets come in through the tunnel device");
            }
            let is_known = done.is_ok();
            let why_not = done.unwrap_or_else(|refusal| Some(refusal.to_string()));
            self.direct = Direct { wanted, is_known, why_not };
        }
        let lines = underlay::compare(&longest, &self.underlay.1);
        outcome.trouble.extend(lines.into_iter().filter_map(|line| line.trouble));
        outcome.lacks_gre(desired, &self.underlay.1, self.direct.why_not.as_deref());
    }
}

impl Outcome {
    /// Ports of tunnel networks work on this host only, which nobody has asked for.
    pub(super) fn lacks_tunnel(&mut self, desired: &Holding, refusal: &Refusal) {
        let reason = format!("the host has no tunnel device: {refusal}");
        let before = self.failed.len();
        for (nic, _) in plan::tunneled(desired) {
            self.failed.entry(nic).or_insert_with(|| reason.clone());
        }
        // A host that has networks, and none with tunnels, does not need the device.
        if self.failed.len() > before || desired.objects().is_empty() {
            self.trouble.push(reason);
        }
    }

    /// What these ports send into their tunnels is lost.
    pub(super) fn lacks_vteps(&mut self, desired: &Holding, lacking: &BTreeSet<IpAddr>) {
        let reason = |vtep: &IpAddr| {
            format!(
                "no device of the host has its VTEP address {vtep}: give it to one, or detach the \
                 pool from the cluster and make a VTEP with an address that the host has"
            )
        };
        for (nic, vtep) in plan::tunneled(desired).filter(|(_, vtep)| lacking.contains(vtep)) {
            self.failed.entry(nic).or_insert_with(|| reason(&vtep));
        }
        self.trouble.extend(lacking.iter().map(reason));
    }

    /// GRE has no device that it could pass: where frames must pass one, and where the way to other
    /// hosts is no Ethernet, its networks work on this host only.
    fn lacks_gre(&mut self, desired: &Holding, ways: &Ways, why_not: Option<&str>) {
        let reason = |vtep: &IpAddr| match (why_not, ways.get(vtep)) {
            (Some(why), _) => Some(format!(
                "networks in GRE do not leave this host, as GRE cannot pass the tunnel device, and \
                 all must: {why}; or take a VXLAN pool"
            )),
            (None, Some(way)) if !way.is_ethernet => Some(format!(
                "networks in GRE do not leave this host, as {}, by which VTEP {vtep} reaches \
                 others, is no Ethernet: give the VTEP to a device that is, or take a VXLAN pool",
                way.device
            )),
            _ => None,
        };
        let mut told = BTreeSet::new();
        for (nic, vtep) in plan::in_gre(desired) {
            let Some(reason) = reason(&vtep) else { continue };
            self.failed.entry(nic).or_insert_with(|| reason.clone());
            told.insert(reason);
        }
        self.trouble.extend(told);
    }
}
