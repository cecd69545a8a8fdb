//! VM instance: what NICs are plugged into.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    cluster::{Cluster, HypervisorType},
    host::Host,
    l3_network::L3Network,
    tag::TagForm,
    zone::{DeleteMode, Zone},
};
use crate::{
    FieldDef, Id, Kind, Message, MessageDef, Plain, Resource, Update,
    shown::{Child, Derived, Shown, View},
    words,
};

words! {
    /// What runs an instance.
    InstanceDriver {
        /// A network namespace.
        Netns = "netns",
    }
}

words! {
    /// The type of an instance.
    InstanceType {
        /// A user's.
        User = "UserVm",
    }
}

words! {
    /// What becomes of an instance once it is made.
    StartStrategy {
        /// It starts.
        Instant = "InstantStart",
    }
}

/// An instance on a host. Its `state` in the API comes from the status board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/vm-instances",
    quota = "vm.num",
    quota_default = 20,
    children,
    derived,
    home,
    tags,
    messages
)]
pub struct VmInstance {
    /// Its id.
    pub uuid: Id<VmInstance>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its zone.
    #[field(on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
    /// Its cluster.
    #[field(on_delete = "detach")]
    pub cluster_uuid: Option<Id<Cluster>>,
    /// The host that it is meant to run on; none while it is stopped.
    #[field(on_delete = "detach")]
    pub host_uuid: Option<Id<Host>>,
    /// The L3 network of its default route.
    #[field(on_delete = "detach")]
    pub default_l3_network_uuid: Option<Id<L3Network>>,
    /// Always `UserVm`.
    #[serde(rename = "type")]
    pub instance_type: InstanceType,
    /// What runs the host's instances.
    pub hypervisor_type: HypervisorType,
    /// What runs this one.
    #[field(hidden)]
    pub driver: InstanceDriver,
}

words! {
    /// The state of an instance.
    InstanceState {
        /// Its host has been told. Ends when the host reports it, or is lost, or the instance is
        /// taken off.
        Starting = "Starting",
        /// Its host says that it runs. Ends as `Starting` does.
        Running = "Running",
        /// It is on no host. Ends when it is put on one.
        Stopped = "Stopped",
        /// Its host cannot be asked. Ends when the host reports it, or the instance is taken off.
        Unknown = "Unknown",
    }
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceEvent {
    /// It is put on a host.
    Placed,
    /// It is taken off its host, or its host is deleted.
    TakenOff,
    /// Its host says that it runs.
    Runs,
    /// Its host says nothing of it, or that it does not run yet.
    DoesNotRun,
    /// Its host cannot be asked.
    HostLost,
}

impl InstanceState {
    /// The state after an event. What a host says of an instance that is not on it changes nothing.
    #[must_use]
    pub const fn next(self, event: InstanceEvent) -> Self {
        use InstanceEvent::{DoesNotRun, HostLost, Placed, Runs, TakenOff};
        match (self, event) {
            (_, TakenOff) | (Self::Stopped, Runs | DoesNotRun | HostLost) => Self::Stopped,
            (Self::Stopped, Placed) => Self::Starting,
            (other, Placed) => other,
            (Self::Starting | Self::Running | Self::Unknown, Runs) => Self::Running,
            (Self::Starting | Self::Running | Self::Unknown, DoesNotRun) => Self::Starting,
            (Self::Starting | Self::Running | Self::Unknown, HostLost) => Self::Unknown,
        }
    }
}

/// Most NICs of an instance that are looked at for a reason.
const NICS_SHOWN: usize = 16;

impl VmInstance {
    const TAGS: &'static [TagForm] = &[
        TagForm {
            form: "staticIp::{l3NetworkUuid}::{ip}",
            at_any_time: false,
            doc: "The address that its NIC gets when it is made; IPv6 with -- for :.",
        },
        TagForm {
            form: "customMac::{l3NetworkUuid}::{mac}",
            at_any_time: false,
            doc: "The MAC address that its NIC gets when it is made.",
        },
        TagForm {
            form: "hostname::{hostname}",
            at_any_time: true,
            doc: "Its host name. It is kept and shown; nothing tells the instance yet.",
        },
    ];

    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateVmInstance::DEF, &UpdateVmInstance::DEF, &DestroyVmInstance::DEF];

    const CHILDREN: &'static [Child] = &[Child {
        name: "vmNics",
        kind: Kind::VmNic,
        by: "vmInstanceUuid",
        order: Some("deviceId"),
        shown: Shown::Whole,
        only: None,
    }];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<InstanceState>("state", "What its host reports of it."),
            read: |record, view| {
                let state = VmInstance::of(record).map(|instance| instance.state(view));
                state.map_or(Plain::Null, |state| Plain::word(state.as_str()))
            },
            found_by: &[],
            only: None,
        },
        Derived {
            read: |record, view| {
                let reason = VmInstance::of(record).and_then(|it| it.not_in_effect(view));
                reason.map_or(Plain::Null, |reason| Plain::Text(reason.into()))
            },
            ..Derived::NOT_IN_EFFECT
        },
    ];

    /// Why it, or one of its NICs, is not on its host as it should be.
    fn not_in_effect(&self, view: &dyn View) -> Option<String> {
        let host = self.host_uuid?;
        let status = view.board().status(host);
        if status.failed.is_empty() {
            return None;
        }
        let nic = || {
            let nics = view.pointing(Kind::VmNic, "vmInstanceUuid", self.uuid.uuid(), NICS_SHOWN);
            nics.iter().find_map(|nic| {
                let reason = status.not_in_effect(host, nic.uuid())?;
                Some(format!("NIC {}: {reason}", nic.uuid().simple()))
            })
        };
        status.not_in_effect(host, self.uuid.uuid()).or_else(nic)
    }

    /// Its state, from where it is meant to be and what its host reports.
    fn state(&self, view: &dyn View) -> InstanceState {
        let Some(host) = self.host_uuid else { return InstanceState::Stopped };
        let status = view.board().status(host);
        let reported = match (status.connected, status.up.contains(&self.uuid.uuid())) {
            (true, true) => InstanceEvent::Runs,
            (true, false) => InstanceEvent::DoesNotRun,
            (false, _) => InstanceEvent::HostLost,
        };
        InstanceState::Stopped.next(InstanceEvent::Placed).next(reported)
    }
}

/// Makes an instance and starts it. System tags `staticIp::<l3>::<ip>` (IPv6 with `--` for `:`)
/// and `customMac::<l3>::<mac>` choose addresses.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vm-instances", creates = "VmInstance")]
pub struct CreateVmInstance {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// One NIC for each, in this order.
    #[field(max_len = 16, required)]
    pub l3_network_uuids: Vec<Id<L3Network>>,
    /// The L3 network of its default route; needed when there are several.
    pub default_l3_network_uuid: Option<Id<L3Network>>,
    /// Where it may run.
    pub zone_uuid: Option<Id<Zone>>,
    /// Where it may run.
    pub cluster_uuid: Option<Id<Cluster>>,
    /// Where it must run.
    pub host_uuid: Option<Id<Host>>,
    /// The only type there is, if named at all.
    #[serde(rename = "type")]
    pub instance_type: Option<InstanceType>,
    /// It starts at once, whether named or not.
    pub strategy: Option<StartStrategy>,
    /// Accepted and ignored: an instance is as large as its driver makes it.
    pub instance_offering_uuid: Option<Uuid>,
    /// Accepted and ignored: an instance is what its driver makes it.
    pub image_uuid: Option<Uuid>,
    /// Accepted and ignored.
    pub cpu_num: Option<u32>,
    /// Accepted and ignored.
    pub memory_size: Option<u64>,
}

/// Renames an instance.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{uuid}/actions", action = "updateVmInstance")]
pub struct UpdateVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// The L3 network of its default route, one of its NICs'.
    pub default_l3_network_uuid: Option<Id<L3Network>>,
}

/// Ends an instance; its NICs and addresses go with it. While its host is not connected the
/// addresses rest, until the host is back or is deleted.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/vm-instances/{uuid}")]
pub struct DestroyVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// `Enforcing`: do not wait for a host that is not connected.
    pub delete_mode: Option<DeleteMode>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_instance_on_a_host_is_anything_but_stopped() {
        use InstanceEvent::{DoesNotRun, HostLost, Placed, Runs, TakenOff};
        let cases: &[(&[InstanceEvent], InstanceState)] = &[
            (&[], InstanceState::Stopped),
            (&[Runs], InstanceState::Stopped),
            (&[Placed], InstanceState::Starting),
            (&[Placed, DoesNotRun], InstanceState::Starting),
            (&[Placed, Runs], InstanceState::Running),
            (&[Placed, Runs, Placed], InstanceState::Running),
            (&[Placed, Runs, HostLost], InstanceState::Unknown),
            (&[Placed, HostLost, Runs], InstanceState::Running),
            (&[Placed, Runs, TakenOff], InstanceState::Stopped),
            (&[Placed, HostLost, TakenOff, HostLost], InstanceState::Stopped),
        ];
        for (events, expected) in cases {
            let state = events.iter().fold(InstanceState::Stopped, |state, e| state.next(*e));
            assert_eq!(state, *expected, "{events:?}");
        }
    }
}
