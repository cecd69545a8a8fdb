//! Host: a machine that runs instances, and how it proves who it is.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    cluster::{Cluster, HypervisorType},
    host_word,
    zone::{DeleteMode, EnableEvent, Zone},
};
use crate::{
    Claim, FieldDef, Id, Kind, Message, MessageDef, Plain, Resource, Timestamp, Update,
    shown::{Child, Derived, View},
    status::{Clocks, HostDevice},
    words,
};

/// A machine that runs instances. Its `status` and `synced` in the API come from the status board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/hosts", children, claims, derived, messages)]
pub struct Host {
    /// Its zone.
    #[field(on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Its id.
    pub uuid: Id<Host>,
    /// Its cluster.
    #[field(on_delete = "cascade")]
    pub cluster_uuid: Id<Cluster>,
    /// Free text.
    pub description: Option<String>,
    /// Its address on the management network.
    #[field(index)]
    pub management_ip: IpAddr,
    /// What runs its instances.
    pub hypervisor_type: HypervisorType,
    /// Whether it takes new instances.
    pub state: HostMode,
    /// How often it was told to connect anew.
    #[field(hidden)]
    #[serde(default)]
    pub reconnects: u32,
}

/// Ways to peers on which packets are lost that a host's `notInEffect` names; `tunnels` has more.
const BLOCKED_MAX: usize = 4;

impl Host {
    const MESSAGES: &'static [&'static MessageDef] = &[
        &AddKVMHost::DEF,
        &UpdateHost::DEF,
        &UpdateKVMHost::DEF,
        &ChangeHostState::DEF,
        &ReconnectHost::DEF,
        &DeleteHost::DEF,
        &CreateHostEnrolment::DEF,
        &GetHypervisorTypes::DEF,
    ];

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        vec![Claim::ManagementIp(self.management_ip)]
    }

    const CHILDREN: &'static [Child] = &[Child::unseen("vmInstance", Kind::VmInstance, "hostUuid")];

    /// What it says itself, and what is known of its agent.
    const DERIVED: &'static [Derived] = &{
        let [since, digests, watermark, versions, maps, drops, traffic, vteps, tunnels, uplinks] =
            host_word::WORD;
        [
            Derived {
                field: FieldDef::of::<HostState>("status", "Whether its agent is connected."),
                read: |record, view| {
                    let state = Host::of(record).map(|host| HostState::reported(host.uuid, view));
                    state.map_or(Plain::Null, |state| Plain::word(state.as_str()))
                },
                found_by: &[],
                only: &[],
            },
            Derived {
                field: FieldDef::of::<bool>(
                    "synced",
                    "It has last said that it holds all that concerns it, and exactly that.",
                ),
                read: |record, view| {
                    let host = Host::of(record);
                    let synced = |host: &Host| view.board().is_synced(host.uuid, view.revision());
                    Plain::Bool(host.is_some_and(synced))
                },
                found_by: &[],
                only: &[],
            },
            Derived {
                field: FieldDef::of::<Option<String>>(
                    "notInEffect",
                    "What ails it as a whole, as it has last said: why nothing, or no tunnel, works on it, or to which peers none does.",
                ),
                read: |record, view| {
                    let Some(host) = Host::of(record) else { return Plain::Null };
                    let trouble = view.board().status(host.uuid).trouble(host.uuid);
                    let trouble = trouble.map(str::to_owned);
                    let mut all: Vec<String> = trouble.into_iter().collect();
                    all.extend(host_word::blocked(host, view, BLOCKED_MAX));
                    match all.is_empty() {
                        true => Plain::Null,
                        false => Plain::Text(all.join("; ").into()),
                    }
                },
                found_by: &[],
                only: &[],
            },
            Derived {
                field: FieldDef::of::<Option<String>>(
                    "clock",
                    "Its clock and the server's, while they are more than five minutes apart.",
                ),
                read: |record, view| {
                    let clocks =
                        Host::of(record).and_then(|host| view.board().status(host.uuid).clock);
                    let text = |Clocks { host, server }| {
                        let text = format!("{host} on the host, {server} on the server (UTC)");
                        Plain::Text(text.into())
                    };
                    clocks.map_or(Plain::Null, text)
                },
                found_by: &[],
                only: &[],
            },
            Derived {
                field: FieldDef::of::<Vec<String>>(
                    "devices",
                    "Its devices that networks and tunnels may use, as it has last said, each with state, MTU and addresses.",
                ),
                read: |record, view| {
                    let host = Host::of(record).map(|host| view.board().status(host.uuid));
                    let devices = host.and_then(|status| status.devices.clone());
                    let text = |device: &HostDevice| Plain::Text(device.to_string().into());
                    Plain::List(devices.iter().flat_map(|all| all.iter()).map(text).collect())
                },
                found_by: &[],
                only: &[],
            },
            Derived {
                field: FieldDef::of::<Option<String>>(
                    "refused",
                    "Why it is told nothing, if so; instances on it go on as they are.",
                ),
                read: |record, view| {
                    let reason = Host::of(record);
                    let reason =
                        reason.and_then(|host| view.board().status(host.uuid).refused.clone());
                    reason.map_or(Plain::Null, |reason| Plain::Text(reason.to_string().into()))
                },
                found_by: &[],
                only: &[],
            },
            since,
            digests,
            watermark,
            versions,
            maps,
            drops,
            traffic,
            vteps,
            tunnels,
            uplinks,
        ]
    };
}

words! {
    /// Whether a host takes new instances.
    HostMode {
        /// It does.
        Enabled = "Enabled",
        /// What runs goes on; nothing new.
        Disabled = "Disabled",
        /// What runs is being moved to other hosts; nothing new. Ends in `Maintenance`, or as before.
        PreMaintenance = "PreMaintenance",
        /// Nothing runs, and nothing new: people work on it.
        Maintenance = "Maintenance",
    }
}

words! {
    /// What changes whether a host takes new instances: ZStack's `stateEvent`.
    HostModeEvent {
        /// It does from now on.
        Enable = "enable",
        /// Nothing new from now on.
        Disable = "disable",
        /// Nothing runs from now on.
        Maintain = "maintain",
    }
}

impl HostMode {
    /// The mode after an event. A host that is to be maintained is emptied first.
    #[must_use]
    pub const fn next(self, event: HostModeEvent) -> Self {
        match (self, event) {
            (
                Self::Enabled | Self::Disabled | Self::PreMaintenance | Self::Maintenance,
                HostModeEvent::Enable,
            ) => Self::Enabled,
            (
                Self::Enabled | Self::Disabled | Self::PreMaintenance | Self::Maintenance,
                HostModeEvent::Disable,
            ) => Self::Disabled,
            (Self::Enabled | Self::Disabled | Self::PreMaintenance, HostModeEvent::Maintain) => {
                Self::PreMaintenance
            }
            (Self::Maintenance, HostModeEvent::Maintain) => Self::Maintenance,
        }
    }

    /// The mode after its cluster was enabled or disabled: people who work on a host are not
    /// disturbed by that.
    #[must_use]
    pub const fn with_cluster(self, event: EnableEvent) -> Self {
        match (self, event) {
            (
                Self::PreMaintenance | Self::Maintenance,
                EnableEvent::Enable | EnableEvent::Disable,
            ) => self,
            (Self::Enabled | Self::Disabled, EnableEvent::Enable) => Self::Enabled,
            (Self::Enabled | Self::Disabled, EnableEvent::Disable) => Self::Disabled,
        }
    }
}

words! {
    /// Whether a host's agent is connected.
    HostState {
        /// It never was since the server has started. Ends by a connection.
        Connecting = "Connecting",
        /// It is. Ends when the connection does.
        Connected = "Connected",
        /// It was. Ends by a connection.
        Disconnected = "Disconnected",
    }
}

/// What happens to a host's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// Its agent's stream is open.
    Opened,
    /// Its agent's stream is closed.
    Closed,
}

impl HostState {
    /// The state after an event.
    #[must_use]
    pub const fn next(self, event: HostEvent) -> Self {
        match (self, event) {
            (Self::Connecting | Self::Connected | Self::Disconnected, HostEvent::Opened) => {
                Self::Connected
            }
            (Self::Connecting | Self::Connected | Self::Disconnected, HostEvent::Closed) => {
                Self::Disconnected
            }
        }
    }

    /// The state of a host, from what is known of it.
    fn reported(host: Id<Host>, view: &dyn View) -> Self {
        let status = view.board().status(host);
        match (status.connected, status.heard > 0) {
            (true, _) => Self::Connecting.next(HostEvent::Opened),
            (false, true) => Self::Connecting.next(HostEvent::Closed),
            (false, false) => Self::Connecting,
        }
    }
}

/// How a host's agent proves who it is. Has the host's uuid; never shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
pub struct HostCredential {
    /// The host's uuid, as this record's own.
    pub uuid: Id<HostCredential>,
    /// The host.
    #[field(on_delete = "cascade")]
    pub host_uuid: Id<Host>,
    /// SHA-256 of the client certificate's DER, hex; `None` until the agent has enrolled.
    pub certificate_sha256: Option<String>,
    /// When that certificate was signed; `None` for one of an earlier build.
    #[serde(default)]
    pub certificate_issued: Option<Timestamp>,
    /// SHA-256 of a later certificate's DER, hex, until the agent has used it.
    #[serde(default)]
    pub renewed_sha256: Option<String>,
    /// SHA-256 of the one-time token, hex.
    pub token_sha256: Option<String>,
    /// SHA-256 of the public key that the token was used for, hex. It opens nothing else any more.
    pub token_key_sha256: Option<String>,
    /// When that token stops working.
    pub token_expires: Timestamp,
}

/// Adds a Linux host. `username`, `password` and `sshPort` are accepted for ZStack's clients and
/// not kept: netloom never logs in to a host, its agent enrols with a one-time token.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/hosts/kvm", creates = "Host", access = "admin")]
pub struct AddKVMHost {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Its address on the management network.
    pub management_ip: IpAddr,
    /// Its cluster.
    pub cluster_uuid: Id<Cluster>,
    /// Accepted and ignored.
    pub username: Option<String>,
    /// Accepted and ignored.
    #[field(secret)]
    pub password: Option<String>,
    /// Accepted and ignored.
    #[field(range = "1..=65535")]
    pub ssh_port: Option<u32>,
}

/// Changes a host's name or its address on the management network.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/hosts/{uuid}/actions", action = "updateHost", access = "admin")]
pub struct UpdateHost {
    /// The host.
    pub uuid: Id<Host>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// A new address on the management network.
    pub management_ip: Option<IpAddr>,
}

/// Changes a KVM host's name or its address on the management network. `username`, `password` and
/// `sshPort` are accepted for ZStack's clients and not kept.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/hosts/kvm/{uuid}/actions", action = "updateKVMHost", access = "admin")]
pub struct UpdateKVMHost {
    /// The host.
    pub uuid: Id<Host>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// A new address on the management network.
    pub management_ip: Option<IpAddr>,
    /// Accepted and ignored.
    pub username: Option<String>,
    /// Accepted and ignored.
    #[field(secret)]
    pub password: Option<String>,
    /// Accepted and ignored.
    #[field(range = "1..=65535")]
    pub ssh_port: Option<u32>,
}

/// Enables or disables a host, or takes it into maintenance: it takes no new instances then.
/// `maintain` moves its instances to other hosts first, some at a time: each is stopped, and started
/// elsewhere with its addresses and MACs. Meanwhile the host is in `PreMaintenance`, and the job names
/// what it waits for. The setting `host/maintenancePolicy` says what becomes of an instance that no
/// other host can take. NICs that are plugged into devices of the host (`PlugVmNic`) are their
/// owners' to move: as long as there are some, `maintain` is refused. `enable` and `disable` end it.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/hosts/{uuid}/actions", action = "changeHostState", access = "admin")]
pub struct ChangeHostState {
    /// The host.
    pub uuid: Id<Host>,
    /// What to do.
    pub state_event: HostModeEvent,
}

/// Ends the stream of a host's agent. A success once the agent is connected anew and has confirmed
/// all that it holds. Instances on it do not notice.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/hosts/{uuid}/actions", action = "reconnectHost", access = "admin")]
pub struct ReconnectHost {
    /// The host.
    pub uuid: Id<Host>,
}

/// Deletes a host: its certificate stops working, and nothing waits for it any more. It must have no
/// instances: stop or destroy them first. With `deleteMode=Enforcing` the caller vouches that it is
/// dead: its instances are stopped and can be started elsewhere, with the same addresses and MACs.
/// Power it off before: what still runs there keeps its addresses.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/hosts/{uuid}", access = "admin")]
pub struct DeleteHost {
    /// The host.
    pub uuid: Id<Host>,
    /// `Enforcing`: it is dead. Refused while its agent is connected.
    pub delete_mode: Option<DeleteMode>,
}

/// Makes a one-time token with which the host's agent enrols; an older open one stops working.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/hosts/{uuid}/actions",
    action = "createHostEnrolment",
    answer = "now",
    access = "admin"
)]
pub struct CreateHostEnrolment {
    /// The host.
    pub uuid: Id<Host>,
}

/// Lists what can run a host's instances.
#[derive(Debug, Deserialize, Message)]
#[message(get = "/hosts/hypervisor-types", answer = "now")]
pub struct GetHypervisorTypes {}
