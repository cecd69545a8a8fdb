//! What an instance may read about itself: from the rows about it to the [`About`] that its host holds.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    Id, Record,
    resource::{
        Body, account::Account, host::Host, instance_offering::InstanceOffering,
        vm_instance::VmInstance, zone::Zone,
    },
    setting::{self, Setting, TokenNeed},
};
use uuid::Uuid;
use wire::{
    object::{About, Object},
    told::{Bytes, SshKey},
};

use crate::settings::{self, Value};

/// What a row says of an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fact {
    /// What it is itself.
    Itself(Itself),
    /// The name of its zone.
    Zone(String),
    /// The name of its offering.
    Offering(String),
    /// The name of a NIC, with its domain; whether it is another one than the default one.
    Name(bool, String),
    /// What its owner says of it.
    Tag(String),
    /// Its user data, in base64, and its key.
    Data(Option<Arc<str>>, Option<String>),
    /// A setting of its own.
    Setting(Value),
}

/// An instance, without what other rows say of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Itself {
    uuid: Id<VmInstance>,
    name: String,
    owner: Option<Id<Account>>,
    cpus: u32,
    memory_mib: u64,
}

/// What a row says of an instance.
pub(crate) fn fact(row: &Record) -> Option<(Id<VmInstance>, Fact)> {
    match &row.body {
        Body::VmInstance(it) => {
            let itself = Itself {
                uuid: it.uuid,
                name: it.name.clone(),
                owner: row.meta.owner,
                cpus: it.cpu_num.unwrap_or(1),
                memory_mib: it.memory_size.unwrap_or_default() >> 20,
            };
            Some((it.uuid, Fact::Itself(itself)))
        }
        Body::UserTag(tag) => Some((tag.resource.id()?, Fact::Tag(tag.tag.clone()))),
        Body::GuestData(data) => {
            let user_data = data.user_data.as_deref().map(Arc::from);
            Some((data.vm_instance_uuid, Fact::Data(user_data, data.ssh_key.clone())))
        }
        Body::ResourceConfig(config) => {
            Some((config.resource.id()?, Fact::Setting(settings::own(config)?)))
        }
        _ => None,
    }
}

/// The zone that an instance is in.
pub(crate) fn zone(row: &VmInstance) -> (Id<Zone>, Id<VmInstance>) {
    (row.zone_uuid, row.uuid)
}

/// The offering that an instance was made from.
pub(crate) fn offering(row: &VmInstance) -> Option<(Id<InstanceOffering>, Id<VmInstance>)> {
    Some((row.instance_offering_uuid?, row.uuid))
}

/// What its host holds for it. `facts` are sorted.
pub(crate) fn about(
    host: Id<Host>,
    facts: &[Fact],
    globals: &[Value],
) -> Option<(Id<Host>, Object)> {
    let itself = facts.iter().find_map(|fact| match fact {
        Fact::Itself(itself) => Some(itself),
        _ => None,
    })?;
    let texts = |of: fn(&Fact) -> Option<&String>| facts.iter().filter_map(of);
    let own = || {
        facts.iter().filter_map(|fact| match fact {
            Fact::Setting(value) => Some(value),
            _ => None,
        })
    };
    let setting = |setting: &Setting| settings::value(setting, own(), globals);
    let (user_data, key) = facts
        .iter()
        .find_map(|fact| match fact {
            Fact::Data(user_data, key) => Some((user_data.clone(), key.clone())),
            _ => None,
        })
        .unwrap_or_default();
    let mut names = texts(|fact| match fact {
        Fact::Name(_, name) => Some(name),
        _ => None,
    });
    let mut zones = texts(|fact| match fact {
        Fact::Zone(name) => Some(name),
        _ => None,
    });
    let mut offerings = texts(|fact| match fact {
        Fact::Offering(name) => Some(name),
        _ => None,
    });
    let tags = texts(|fact| match fact {
        Fact::Tag(tag) => Some(tag),
        _ => None,
    });
    let size = || format!("{} CPUs, {} MiB", itself.cpus, itself.memory_mib);
    let vendor_data = setting(&setting::VENDOR_DATA).filter(|text| !text.is_empty());
    Some((
        host,
        Object::About(About {
            uuid: itself.uuid.uuid(),
            name: itself.name.clone(),
            hostname: names.next().cloned().unwrap_or_else(|| itself.uuid.to_string()),
            // Checked as it was set.
            user_data: user_data.and_then(|text| STANDARD.decode(&*text).ok()).map(Bytes),
            vendor_data: vendor_data.map(|text| Bytes(text.as_bytes().to_vec())),
            ssh_keys: key.into_iter().map(|key| SshKey { name: "default".into(), key }).collect(),
            account: itself.owner.map_or_else(Uuid::nil, Id::uuid),
            zone: zones.next().cloned().unwrap_or_default(),
            offering: offerings.next().cloned().unwrap_or_else(size),
            tags: tags.cloned().collect(),
            needs_token: setting(&setting::METADATA_TOKEN) == Some(TokenNeed::Required.as_str()),
        }),
    ))
}
