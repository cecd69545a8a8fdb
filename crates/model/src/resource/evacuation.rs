//! Evacuation: that a host is being emptied, instance by instance, so that people can work on it.

use derive::Resource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    host::{Host, HostMode},
    vm_instance::VmInstance,
};
use crate::{Claim, Id, Kind, Resource, shown::View};

/// Instances on their way that are named.
const NAMED_MAX: usize = 8;

/// That the instances of a host are being moved to others, a few at a time. Its row is what is left
/// to do, so that whichever server runs next goes on with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource()]
pub struct Evacuation {
    /// The host's uuid, as this record's own.
    pub uuid: Id<Evacuation>,
    /// The host.
    #[field(on_delete = "cascade")]
    pub host_uuid: Id<Host>,
    /// What the host becomes if it cannot be emptied.
    pub before: HostMode,
    /// Jobs that are a success once it is empty.
    #[field(hidden)]
    pub jobs: Vec<Uuid>,
    /// Instances that are moving off the host, or were taken off it and are to be started elsewhere.
    #[field(hidden, on_delete = "keep")]
    pub moving: Vec<Id<VmInstance>>,
    /// Instances that were to move while they run: once each.
    #[serde(default)]
    #[field(hidden, on_delete = "keep")]
    pub tried: Vec<Id<VmInstance>>,
    /// What keeps something where it is, as it was seen last.
    #[field(hidden)]
    pub obstacle: Option<String>,
    /// Nothing more is taken off the host: it was given up, or ended. What is on its way is brought
    /// to its end.
    pub is_over: bool,
}

impl Evacuation {
    /// The evacuation of a host.
    #[must_use]
    pub fn id_of(host: Id<Host>) -> Id<Self> {
        Id::new(host.uuid())
    }

    /// What it waits for, in words, a sentence each.
    #[must_use]
    pub fn waits(&self, view: &dyn View) -> Vec<String> {
        let host = self.host_uuid;
        let named = |id: &Id<VmInstance>| {
            let record = view.get(Kind::VmInstance, id.uuid())?;
            let instance = VmInstance::of(&record)?;
            let what = match view.is_claimed(&Claim::Running(host, *id)) {
                _ if instance.moves_to().is_some() => "is moving while it runs".to_owned(),
                true => format!("waits for host {host} to let go of it"),
                false => "waits for a host that takes it".to_owned(),
            };
            Some(format!("instance {} ({id}) {what}", instance.name))
        };
        let mut waits: Vec<String> = self.moving.iter().take(NAMED_MAX).filter_map(named).collect();
        waits.extend(self.obstacle.clone());
        let here = view.pointing(Kind::VmInstance, VmInstance::HOST.field, host.uuid(), 1);
        if let Some(next) = here.first().and_then(|record| VmInstance::of(record)) {
            waits.push(format!(
                "host {host} still has instances, such as {} ({})",
                next.name, next.uuid
            ));
        }
        waits
    }
}
