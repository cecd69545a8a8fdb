//! Devices that something else made: found, guarded while a port is plugged into them, given back.
//!
//! A device is in the maps only while it is guarded, and its programs come off only when no map
//! knows it any more. One that cannot be used (any more) gets no programs; those that it has stay
//! until its port is unplugged, so that nothing passes unseen meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Cause, Converger, Outcome};
use crate::{
    external::{self, Judged},
    jobs::Subject,
    kernel::{Candidate, HostKernel, Plug, Refusal},
    plan::Wanted,
    underlay, uplink,
};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Borrowed {
    /// The names that were looked for.
    names: BTreeSet<String>,
    /// What was found.
    seen: BTreeMap<String, Candidate>,
    /// Why nothing could be found.
    unseen: Option<Refusal>,
    judged: Judged,
    /// The port for which a device got its programs, as far as is known.
    ports: BTreeMap<u32, Uuid>,
}

impl Borrowed {
    /// Whether devices could not be looked for.
    pub(super) fn is_blind(&self) -> bool {
        self.unseen.is_some()
    }

    /// Whether a change of any device may be one of these.
    pub(super) fn is_watching(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether a port is wanted on a device.
    pub(super) fn keeps(&self, ifindex: u32) -> bool {
        self.seen.values().any(|device| device.plug.ifindex == ifindex)
    }
}

impl<K: HostKernel> Converger<K> {
    /// Looks for the devices that are wanted, unless they are known, and says which cannot be used.
    pub(super) async fn find(&mut self, wanted: &Wanted, outcome: &mut Outcome) {
        let names: BTreeSet<_> = wanted.external.values().map(|port| port.device.clone()).collect();
        if !self.known.external || self.borrowed.names != names {
            match self.kernel.find(&names).await {
                Ok(seen) => (self.borrowed.seen, self.borrowed.unseen) = (seen, None),
                Err(refusal) => self.borrowed.unseen = Some(refusal),
            }
            self.known.external = self.borrowed.unseen.is_none();
            self.borrowed.names = names;
        }
        let mut ways = underlay::devices(&self.underlay.1);
        ways.extend(uplink::usable(&self.uplinks).values().map(|uplink| uplink.ifindex));
        self.borrowed.judged = external::judge(&wanted.external, &self.borrowed.seen, &ways);
        if let Some(refusal) = &self.borrowed.unseen {
            outcome.trouble.push(format!("cannot see its devices: {refusal}"));
        }
        outcome.failed.extend(self.borrowed.judged.refused.clone());
        let mut present = self.observed.borrowed.clone();
        present.extend(self.jobs.devices());
        self.borrowed.ports.retain(|ifindex, _| present.contains(ifindex));
        for (port, plug) in &self.borrowed.judged.plugs {
            if present.contains(&plug.ifindex) {
                self.borrowed.ports.insert(plug.ifindex, *port);
            }
        }
    }

    /// The ports whose devices are guarded by now.
    pub(super) fn plugged(&self) -> impl Iterator<Item = (Uuid, Plug)> {
        let plugs = self.borrowed.judged.plugs.iter();
        let guarded = plugs.filter(|(_, plug)| self.observed.attached.contains(&plug.ifindex));
        guarded.map(|(port, plug)| (*port, *plug))
    }

    /// Starts to guard what is to be guarded, and to give back what no port is plugged into: once
    /// the maps do not know it.
    pub(super) fn start_devices(&mut self, filled: bool, cause: Cause) {
        let may_start = |this: &Self, ifindex| {
            let subject = Subject::Device(ifindex);
            let waits = cause == Cause::Driver && this.failures.contains_key(&subject);
            !waits && !this.jobs.is_about(subject) && this.jobs.has_room()
        };
        for (port, plug) in self.borrowed.judged.plugs.clone() {
            let Plug { ifindex, .. } = plug;
            if !self.observed.attached.contains(&ifindex) && may_start(self, ifindex) {
                self.jobs.borrow(self.kernel.clone(), ifindex, port);
                self.borrowed.ports.insert(ifindex, port);
            }
        }
        if !filled || self.borrowed.is_blind() {
            return;
        }
        for ifindex in self.observed.borrowed.clone() {
            if !self.borrowed.keeps(ifindex) && may_start(self, ifindex) {
                self.jobs.give_back(self.kernel.clone(), ifindex);
            }
        }
    }

    /// Takes in what a job did about a device, if it was about one.
    pub(super) fn note_device(
        &mut self,
        subject: Subject,
        guarded: &BTreeSet<u32>,
        gone: &BTreeSet<u32>,
    ) {
        if let Subject::Device(_) = subject {
            self.observed.borrowed.extend(guarded);
            self.observed.borrowed.retain(|ifindex| !gone.contains(ifindex));
        }
    }

    /// Says what is in effect, and what is not yet.
    pub(super) fn conclude_devices(&self, wanted: &Wanted, outcome: &mut Outcome) {
        for (port, plug) in self.plugged() {
            if self.has_port(plug.ifindex) {
                outcome.up.insert(port);
            }
        }
        for port in wanted.external.keys().filter(|port| !outcome.up.contains(port)) {
            outcome.failed.entry(*port).or_insert_with(|| "is being plugged in".to_owned());
        }
        for port in self.borrowed.ports.values().filter(|port| !wanted.external.contains_key(port))
        {
            let reason = || "its device still has programs".to_owned();
            outcome.failed.entry(*port).or_insert_with(reason);
        }
    }
}
