//! What goes over the stream, after parsing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use uuid::Uuid;

use crate::{
    counters::Counters,
    digest::{SetDigest, TableDigests},
    leases::LeaseSeen,
    object::ObjectKey,
    paths::Paths,
    question::{Answered, Asked},
    shared::Shared,
    versions::Versions,
};

/// What an agent asks for once in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolRequest {
    /// The host that it says it is.
    pub host: Uuid,
    /// The one-time token that proves it.
    pub token: String,
    /// PKCS #10 certificate signing request, DER.
    pub csr: Vec<u8>,
}

/// What an agent asks for now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenewRequest {
    /// The host that it says it is; the certificate proves it.
    pub host: Uuid,
    /// PKCS #10 certificate signing request, DER.
    pub csr: Vec<u8>,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentMessage {
    /// First, and once.
    Hello(Hello),
    /// What it has applied.
    Report(Report),
    /// It lives.
    Heartbeat(Heartbeat),
    /// What it was asked, answered.
    Answered(Answered),
}

/// Who the agent is and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// [`crate::PROTOCOL`] of the agent.
    pub protocol: u32,
    /// [`crate::PROTOCOL_MIN`] of the agent.
    pub protocol_min: u32,
    /// The agent's release, for people.
    pub agent_version: String,
    /// The tables that it knows.
    pub tables: Versions,
    /// The host that it says it is; the certificate proves it.
    pub host: Uuid,
    /// The revision that it holds on disk, 0 if none.
    pub revision: u64,
    /// The lineage of the server that told it so, if it knows: drawn at each of its starts.
    pub lineage: Option<Uuid>,
    /// The digests of what it holds.
    pub digests: TableDigests,
    /// Drawn at each start of the agent; an older one has none.
    pub run: Option<Uuid>,
}

/// What an agent has applied. Level-triggered: the newest one says all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The objects that were applied last are those of this revision.
    pub revision: u64,
    /// All of it is durable and was applied as far as possible: what is not in `failed` is as it
    /// must be. `false` says that the host as a whole is in trouble; such a report confirms
    /// nothing.
    pub processed: bool,
    /// The digests of these objects.
    pub digests: TableDigests,
    /// The digest of the facts that were read back from the kernel.
    pub kernel: SetDigest,
    /// Instances that run and ports that are up.
    pub up: BTreeSet<Uuid>,
    /// Objects that are not in force, and objects that ought to be gone and are not, with the
    /// reason; under the host's own uuid what concerns the host as a whole.
    pub failed: BTreeMap<Uuid, String>,
    /// Moves to this host, by number, whose NIC has sent its first frame here, or whose instance runs
    /// here.
    pub arrived: BTreeSet<u32>,
    /// Moves of instances from this host, by number, that have failed, and why: these go on here.
    pub given_up: BTreeMap<u32, String>,
}

/// What an agent says while there is nothing else to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its wall clock, in milliseconds since 1970; an older one does not tell.
    pub clock_ms: Option<u64>,
    /// Connections of its ports, if they have been counted since the last time.
    pub connections: Option<Connections>,
    /// Its devices, if they are others than it has told on this stream; an older one does not tell.
    pub devices: Option<Vec<Device>>,
    /// What its data plane has counted, if it has been read since the last time; an older one does
    /// not tell.
    pub counters: Option<Counters>,
    /// How the ways to its peers are, if that is something else than it has told on this stream; an
    /// older one does not tell.
    pub paths: Option<Paths>,
    /// The drivers that cannot run instances there, each with what it lacks, if that is something else
    /// than it has told on this stream; an older one does not tell.
    pub lacking: Option<BTreeMap<String, String>>,
    /// What guests have asked since the last time, each NIC and family once; an older one does not tell.
    pub leases: Vec<LeaseSeen>,
}

/// A device of the host that networks and tunnels may use: none of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The longest packet that it takes, in bytes, without the Ethernet header.
    pub mtu_bytes: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// Whether its frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Whether it belongs to a bridge or a bond.
    pub is_owned: bool,
    /// Its addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

/// Connections of all ports of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// How many each port is sure to get: so many that it opens, and as many that others open.
    pub sure: u32,
    /// Those that each port has.
    pub ports: BTreeMap<Uuid, u32>,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// First, and once.
    Welcome(Welcome),
    /// A part of everything that the host must hold.
    Snapshot(Snapshot),
    /// A part of a change.
    Delta(Delta),
    /// What somebody wants to know of the host.
    Asked(Asked),
}

/// Who the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// [`crate::PROTOCOL`] of the server.
    pub protocol: u32,
    /// The server's release, for people.
    pub server_version: String,
    /// Drawn at random for this start of the server.
    pub lineage: Uuid,
}

/// A part of everything that a host must hold. Takes effect as a whole with the last part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision.
    pub revision: u64,
    /// The objects of this part.
    pub objects: Vec<Shared>,
    /// With the last part: the digests after it. `None`: more parts follow.
    pub last: Option<TableDigests>,
}

/// A part of a change. Takes effect as a whole with the last part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The store's revision.
    pub revision: u64,
    /// Objects to put in, in the place of those with their keys.
    pub upserts: Vec<Shared>,
    /// Objects to take out.
    pub removes: Vec<ObjectKey>,
    /// With the last part: the digests after it. `None`: more parts follow.
    pub last: Option<TableDigests>,
}
