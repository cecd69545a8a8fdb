//! The policies of the ports of a host: what they say, and whether the maps have all of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use compute::FarEnd;
use dataplane::{Tables, View};
use policy::Salt;
use serde::Serialize;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Port, Table},
    policy::Action,
};

use crate::{
    Error,
    explain::{Explained, Opening, explain},
    kernel::{Plug, Room, Ties},
    ledger::Ledger,
    state,
};

/// The policy of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLine {
    /// Its groups, in the order in which they are asked.
    pub groups: Vec<GroupLine>,
    /// What becomes of what is opened towards the port and no group has a rule for.
    pub ingress: &'static str,
    /// The same of what the port opens.
    pub egress: &'static str,
    /// Number of the rule set for what is opened towards it, in the maps, hexadecimal.
    pub ingress_rule_set: String,
    /// The same for what it opens.
    pub egress_rule_set: String,
    /// Why it is closed, if it is: then nothing passes but answers of before.
    pub closed: Option<String>,
}

/// A security group of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupLine {
    /// Its uuid.
    pub uuid: Uuid,
    /// How many rules it has; absent if the host does not know it.
    pub rules: Option<usize>,
    /// Whether it is for single packets.
    pub stateless: bool,
}

/// What there is of policies, and what differs from what should be.
#[derive(Default)]
pub(super) struct Policies {
    /// By number of the port.
    pub(super) lines: BTreeMap<u32, PolicyLine>,
    /// What the maps should hold and do not.
    pub(super) missing: Vec<String>,
    /// What they hold and should not.
    pub(super) unexpected: Vec<String>,
}

/// Compares the policies of the ports that are in the maps.
pub(super) fn compare(
    desired: &Holding,
    tables: &Tables,
    (ports_max, salt): (u32, u64),
) -> Policies {
    let numbers: BTreeSet<u32> = tables.ports.values().map(|port| port.number).collect();
    let ports = || {
        let objects = desired.objects().values();
        objects.filter_map(|object| match &**object {
            Object::Port(port) if numbers.contains(&port.number) => Some(port),
            _ => None,
        })
    };
    let ledger = {
        let mut ledger = Ledger::new(Room { ports_max, present: numbers.clone(), salt });
        ledger.follow(desired, &ties(ports(), tables));
        ledger
    };
    let mut found = Policies::default();
    let closed: BTreeMap<Uuid, String> =
        ledger.closed().map(|(port, why)| (port, why.to_owned())).collect();
    for port in ports() {
        let Some((key, entry)) = tables.ports.iter().find(|(_, e)| e.number == port.number) else {
            continue;
        };
        let expected = ledger.tables().ports.get(key);
        let policy_of = |port: &packet::Port| (port.ingress, port.egress, port.rules, port.domain);
        if expected.map(policy_of) != Some(policy_of(entry)) {
            found.missing.push(format!("port {} has its policy", port.number));
        }
        let closed = closed.get(&port.uuid).or_else(|| ledger.unfit().get(&port.uuid));
        found
            .lines
            .extend(line(port, entry, desired, closed.cloned()).map(|line| (port.number, line)));
    }
    found.differences(ledger.tables(), tables);
    found
}

impl Policies {
    /// Notes entries by their number: there may be as many as a host has room for.
    fn differences(&mut self, wanted: &Tables, held: &Tables) {
        let edits = held.edits_to(wanted);
        let mut note = |map: &str, comes: usize, all: usize| {
            let entries = |count: usize| format!("{count} entries of {map}, for policies");
            self.missing.extend((comes > 0).then(|| entries(comes)));
            self.unexpected.extend((all > comes).then(|| entries(all - comes)));
        };
        note("ranges", comes(&edits.ranges), edits.ranges.len());
        note("chapters", comes(&edits.chapters), edits.chapters.len());
        note("classes", comes(&edits.classes), edits.classes.len());
        note("idents", comes(&edits.idents), edits.idents.len());
    }
}

fn comes<K, V>(edits: &BTreeMap<K, Option<V>>) -> usize {
    edits.values().filter(|value| value.is_some()).count()
}

/// What the ports are plugged into, as the maps have it.
fn ties<'a>(ports: impl Iterator<Item = &'a Port>, tables: &Tables) -> Ties {
    let entries = tables.ports.iter().map(|(key, entry)| {
        let is_peer = entry.flags & packet::Port::PEER != 0;
        let far_end = if is_peer { FarEnd::Elsewhere } else { FarEnd::Here };
        (entry.number, Plug { ifindex: key.ifindex, far_end })
    });
    let plugs: BTreeMap<u32, Plug> = entries.collect();
    let ports = ports.filter_map(|port| Some((port.uuid, *plugs.get(&port.number)?)));
    Ties { ports: ports.collect(), ..Ties::default() }
}

fn line(
    port: &Port,
    entry: &packet::Port,
    desired: &Holding,
    closed: Option<String>,
) -> Option<PolicyLine> {
    let policy = port.policy.as_ref()?;
    let group = |uuid: &Uuid| {
        let held = desired.get(&ObjectKey { table: Table::SecurityGroup, uuid: *uuid });
        let (rules, stateless) = match held {
            Some(Object::SecurityGroup(group)) => (Some(group.rules.len()), group.is_stateless),
            _ => (None, false),
        };
        GroupLine { uuid: *uuid, rules, stateless }
    };
    Some(PolicyLine {
        groups: policy.groups.iter().map(group).collect(),
        ingress: word(policy.ingress),
        egress: word(policy.egress),
        ingress_rule_set: format!("{:016x}", entry.ingress),
        egress_rule_set: format!("{:016x}", entry.egress),
        closed,
    })
}

const fn word(action: Action) -> &'static str {
    match action {
        Action::Accept => "ACCEPT",
        Action::Drop => "DROP",
    }
}

impl fmt::Display for PolicyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (groups, ingress, egress) = (self.groups.len(), self.ingress, self.egress);
        write!(f, "{groups} security groups, then {ingress} in, {egress} out")?;
        self.closed.iter().try_for_each(|why| write!(f, "; {why}"))
    }
}

/// Says which rule decides about a connection of a NIC of the host whose agent has these directories.
///
/// # Errors
/// [`Error::DataPlane`] when no data plane is pinned at `bpffs`, [`Error::File`] when the saved
/// state cannot be read.
pub fn why(
    (data, bpffs): (&Path, &Path),
    nic: Uuid,
    opening: &Opening,
) -> Result<Explained, Error> {
    let view = View::open(bpffs)?;
    let saved = match state::read(data)? {
        Ok(Some(saved)) => saved,
        Ok(None) => return Ok(Explained::Inconclusive("nothing was saved yet".to_owned())),
        Err(reason) => return Ok(Explained::Inconclusive(reason)),
    };
    let key = ObjectKey { table: Table::Port, uuid: nic };
    let Some(Object::Port(port)) = saved.holding.get(&key) else {
        let (nic, host) = (nic.simple(), "is not on this host");
        return Ok(Explained::Inconclusive(format!("NIC {nic} {host}")));
    };
    let salt = Salt(view.salt()?);
    Ok(explain((&saved.holding, &view, salt), port, opening))
}
