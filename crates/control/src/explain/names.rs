//! What a caller may know of what hosts tell: the one place where it is decided.
//!
//! An administrator may know everything. An account may know its own objects and what is shared with it;
//! of others it is told what they are, and no more: no uuid, no name. It is not told which host is which. In
//! texts of hosts, addresses, MACs and uuids that it has neither asked about nor owns are left out, and
//! so is all that they say of others' objects.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use model::{
    Id, Kind, Mac, Plain, Record, Resource,
    id::parse_uuid,
    resource::{
        account::Account, host::Host, security_group_rule::SecurityGroupRule, used_ip::UsedIp,
        vm_nic::VmNic,
    },
};
use serde_json::{Map, Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use crate::Caller;

/// What stands for what is left out.
pub(super) const LEFT_OUT: &str = "(...)";

/// What hosts name, in the order in which it is looked for.
const NAMED: [Kind; 7] = [
    Kind::VmNic,
    Kind::L2Network,
    Kind::L3Network,
    Kind::SecurityGroup,
    Kind::SecurityGroupRule,
    Kind::VmInstance,
    Kind::Host,
];

/// What one caller may know of a snapshot.
pub(super) struct Names<'a> {
    read: &'a Snapshot<Record>,
    caller: &'a Caller,
    addresses: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
}

impl<'a> Names<'a> {
    /// Of a caller who asks about a NIC of its own, and names these addresses.
    pub(super) fn new(
        read: &'a Snapshot<Record>,
        caller: &'a Caller,
        (nic, asked): (&VmNic, &[IpAddr]),
    ) -> Self {
        let used = read.referrers(Kind::UsedIp, UsedIp::USED_BY, nic.uuid.uuid());
        let used = used.filter_map(|id| read.get(Kind::UsedIp, id));
        let own = used.filter_map(|used| UsedIp::of(&used).map(|used| [used.ip, used.gateway]));
        let addresses = own.flatten().chain(asked.iter().copied()).collect();
        let macs = [nic.mac, Mac::SERVICES, Mac([0xff; 6])].into();
        Self { read, caller, addresses, macs }
    }

    pub(super) fn is_admin(&self) -> bool {
        self.caller.is_admin()
    }

    fn sees(&self, record: &Record) -> bool {
        self.caller.sees(self.read, record)
    }

    fn find(&self, uuid: Uuid) -> Option<Arc<Record>> {
        NAMED.into_iter().find_map(|kind| self.read.get(kind, uuid))
    }

    /// What is behind a uuid that a host has named; what has no kind is not of this world.
    pub(super) fn object(&self, uuid: Uuid) -> Value {
        match self.find(uuid) {
            Some(record) => self.shown(&record),
            None if self.is_admin() => json!({"uuid": uuid.simple().to_string()}),
            None => Value::Null,
        }
    }

    /// A resource of a kind.
    pub(super) fn of(&self, kind: Kind, uuid: Uuid) -> Value {
        match self.read.get(kind, uuid) {
            Some(record) => self.shown(&record),
            None if self.is_admin() => {
                let words = format!("{}, deleted", noun(kind));
                json!({"type": kind.def().name, "uuid": uuid.simple().to_string(), "words": words})
            }
            None => json!({"type": kind.def().name, "words": format!("{}, deleted", noun(kind))}),
        }
    }

    fn shown(&self, record: &Record) -> Value {
        let kind = record.kind();
        let mut shown = Map::from_iter([("type".to_owned(), json!(kind.def().name))]);
        if !self.sees(record) {
            // Whose it is, is no more theirs to know than what it is called.
            let whose = if kind == Kind::Host { "a" } else { "another account's" };
            shown.insert("words".to_owned(), json!(format!("{whose} {}", noun(kind))));
            return Value::Object(shown);
        }
        let name = self.name(record);
        shown.insert("uuid".to_owned(), json!(record.uuid().simple().to_string()));
        let words = match (&name, kind) {
            (_, Kind::SecurityGroupRule) => self.rule_words(record),
            (Some(name), Kind::VmNic) => format!("NIC of instance {name}"),
            (Some(name), _) => format!("{} {name}", noun(kind)),
            (None, _) => format!("{} {}", noun(kind), record.uuid().simple()),
        };
        if let Some(name) = name {
            shown.insert("name".to_owned(), json!(name));
        }
        if let Some(owner) = self.owner(record) {
            shown.insert("account".to_owned(), json!(owner));
        }
        shown.insert("words".to_owned(), json!(words));
        Value::Object(shown)
    }

    /// Its name; of a NIC, its instance's.
    fn name(&self, record: &Record) -> Option<String> {
        let instance = VmNic::of(record).and_then(|nic| nic.vm_instance_uuid);
        if let Some(instance) = instance {
            let found = self.read.get(Kind::VmInstance, instance.uuid());
            return found.filter(|found| self.sees(found)).and_then(|found| name_of(&found));
        }
        name_of(record)
    }

    /// The name of the account that owns it, where the caller may know that.
    fn owner(&self, record: &Record) -> Option<String> {
        let owner = record.meta.owner.filter(|owner| self.caller.owns(Some(*owner)))?;
        let account = self.read.get(Kind::Account, owner.uuid())?;
        Account::of(&account).map(|account| account.name.clone())
    }

    /// A rule, as people would say it.
    fn rule_words(&self, record: &Record) -> String {
        let Some(rule) = SecurityGroupRule::of(record) else {
            return noun(record.kind()).to_owned();
        };
        let mut words = match rule.is_default() {
            true => "default rule:".to_owned(),
            false => format!("rule {}:", rule.priority),
        };
        let mut say = |text: String| {
            words.push(' ');
            words.push_str(&text);
        };
        say(format!("{} {} of IPv{}", rule.rule_type.as_str(), rule.protocol, rule.ip_version));
        rule.dst_port_range.iter().for_each(|ports| say(format!("port {ports}")));
        rule.icmp_type.iter().for_each(|number| say(format!("type {number}")));
        rule.icmp_code.iter().for_each(|number| say(format!("code {number}")));
        rule.src_ip_range.iter().for_each(|from| say(format!("from {from}")));
        rule.dst_ip_range.iter().for_each(|to| say(format!("to {to}")));
        let group = rule.remote_security_group_uuid.map(|id| (Kind::SecurityGroup, id.uuid()));
        let list = rule.remote_address_group_uuid.map(|id| (Kind::AddressGroup, id.uuid()));
        if let Some((kind, id)) = group.or(list) {
            let remote = self.of(kind, id);
            let remote = remote["words"].as_str().unwrap_or_default();
            say(format!("of {remote}"));
        }
        say(rule.action.as_str().to_owned());
        words
    }

    /// The host, for those who may know it.
    pub(super) fn host(&self, host: Id<Host>) -> Value {
        match self.is_admin() {
            true => self.of(Kind::Host, host.uuid()),
            false => Value::Null,
        }
    }

    /// The host on some place of a packet's way, in words.
    pub(super) fn host_at(&self, host: Id<Host>, hop: usize) -> String {
        match self.is_admin() {
            true => self.host_name(host),
            false => format!("host {hop} of the way"),
        }
    }

    /// The host of the NIC, in words.
    pub(super) fn host_of_nic(&self, host: Id<Host>) -> String {
        match self.is_admin() {
            true => self.host_name(host),
            false => "the NIC's host".to_owned(),
        }
    }

    fn host_name(&self, host: Id<Host>) -> String {
        let record = self.read.get(Host::KIND, host.uuid());
        let name = record.as_deref().and_then(name_of);
        name.map_or_else(|| format!("host {host}"), |name| format!("host {name} ({host})"))
    }

    /// What a host says in words, without what the caller may not know.
    pub(super) fn text(&self, text: &str) -> String {
        if self.is_admin() {
            return text.to_owned();
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || ":.-/_%@".contains(c);
        let (mut told, mut rest) = (String::new(), text);
        while !rest.is_empty() {
            let end = rest.find(is_part).unwrap_or(rest.len());
            let (between, from) = rest.split_at(end);
            told.push_str(between);
            let end = from.find(|c| !is_part(c)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            told.push_str(if self.is_secret(word) { LEFT_OUT } else { word });
            rest = after;
        }
        told
    }

    /// What a host says of an object. Of what is somebody else's it is nobody's to hear.
    pub(super) fn about(&self, object: Option<Uuid>, text: &str) -> String {
        let sees = |uuid| self.find(uuid).is_some_and(|found| self.sees(&found));
        match object {
            Some(uuid) if !self.is_admin() && !sees(uuid) => String::new(),
            _ => self.text(text),
        }
    }

    /// Whether a word is, or has in it, an address or an id that is not the caller's to know.
    fn is_secret(&self, word: &str) -> bool {
        let around = ['.', ':', '-', '/', '_', '@', '%'];
        word.split(['/', '@', '%', '_']).any(|piece| {
            let whole = piece.trim_matches(around);
            let parts = whole.split('-').map(|part| part.trim_matches(['.', ':']));
            let is_foreign = |part: &str| self.is_foreign_address(part);
            [piece, whole].into_iter().chain(parts).any(is_foreign)
                || whole.split(':').any(|part| self.is_foreign_id(part))
        })
    }

    fn is_foreign_address(&self, part: &str) -> bool {
        let foreign = |ip: IpAddr| !self.addresses.contains(&ip);
        if let Ok(ip) = part.parse() {
            return foreign(ip);
        }
        if let Ok(socket) = part.parse::<SocketAddr>() {
            return foreign(socket.ip());
        }
        part.parse().is_ok_and(|mac: Mac| !self.macs.contains(&mac))
    }

    fn is_foreign_id(&self, part: &str) -> bool {
        let sees = |uuid| self.find(uuid).is_some_and(|found| self.sees(&found));
        parse_uuid(part).is_some_and(|uuid| !sees(uuid))
    }
}

fn name_of(record: &Record) -> Option<String> {
    match record.field("name") {
        Plain::Text(name) => Some(name.into_owned()),
        _ => None,
    }
}

/// What people call a kind.
fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::VmNic => "NIC",
        Kind::L2Network => "L2 network",
        Kind::L3Network => "L3 network",
        Kind::SecurityGroup => "security group",
        Kind::SecurityGroupRule => "rule of a security group",
        Kind::AddressGroup => "address group",
        Kind::VmInstance => "instance",
        Kind::Host => "host",
        other => other.def().name,
    }
}
