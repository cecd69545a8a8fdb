//! Settings: read where they take effect, changed by administrators.

use ipnet::IpNet;
use model::{
    AnyId, Error, Id, Kind, Meta, Record, Resource, Result, Timestamp,
    resource::config::{
        DeleteResourceConfig, GetGlobalConfigOptions, GetResourceConfig, GlobalConfig,
        ResetGlobalConfig, ResourceConfig, UpdateGlobalConfig, UpdateResourceConfig,
    },
    setting::{
        DeletionPolicy, HOST_MAINTENANCE_POLICY, MaintenancePolicy, Setting, VM_DELETION_POLICY,
        VXLAN_UDP_PORT, Values, WITHOUT_GROUP,
    },
};
use serde_json::{Value, json};
use store::{Read, Store, Tx};
use uuid::Uuid;

use crate::{
    Look, Reply, Txn,
    operation::{Operation, job, look},
    security_group, sharing, vtep,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(update),
        job(reset),
        look(options),
        job(update_of_resource),
        look(of_resource),
        job(delete_of_resource),
    ]
}

/// The number that a setting is.
#[must_use]
pub fn number(read: &impl Read<Record>, setting: &Setting) -> i64 {
    setting.number(global(read, setting).as_deref())
}

/// The number that a setting is for a resource.
#[must_use]
pub fn number_for(read: &impl Read<Record>, setting: &Setting, resource: Uuid) -> i64 {
    let value = own(read, setting, resource).or_else(|| global(read, setting));
    setting.number(value.as_deref())
}

/// The word that a setting is.
pub(crate) fn word(read: &impl Read<Record>, setting: &Setting) -> String {
    global(read, setting).unwrap_or_else(|| setting.of.default())
}

/// The word that a setting is for a resource.
pub(crate) fn word_for(read: &impl Read<Record>, setting: &Setting, resource: Uuid) -> String {
    own(read, setting, resource).unwrap_or_else(|| word(read, setting))
}

/// What becomes of an instance that is destroyed.
#[must_use]
pub fn deletion_policy(read: &impl Read<Record>, instance: Uuid) -> DeletionPolicy {
    let setting = &VM_DELETION_POLICY;
    let word = own(read, setting, instance).or_else(|| global(read, setting));
    let of = |word: &str| DeletionPolicy::ALL.iter().find(|policy| policy.as_str() == word);
    word.as_deref().and_then(of).copied().unwrap_or(DeletionPolicy::Delay)
}

/// What becomes of an instance that no other host can take when its host is to be maintained.
#[must_use]
pub fn maintenance_policy(read: &impl Read<Record>, host: Uuid) -> MaintenancePolicy {
    let setting = &HOST_MAINTENANCE_POLICY;
    let word = own(read, setting, host).or_else(|| global(read, setting));
    let of = |word: &str| MaintenancePolicy::ALL.iter().find(|policy| policy.as_str() == word);
    word.as_deref().and_then(of).copied().unwrap_or(MaintenancePolicy::JustMigrate)
}

/// The networks that a setting names.
#[must_use]
pub fn networks(read: &impl Read<Record>, setting: &Setting) -> Vec<IpNet> {
    let text = global(read, setting).unwrap_or_else(|| setting.of.default());
    model::setting::networks(&text).unwrap_or_default()
}

fn global(read: &impl Read<Record>, setting: &Setting) -> Option<String> {
    let row = read.get(Kind::GlobalConfig, setting.row())?;
    GlobalConfig::of(&row).map(|config| config.value.clone())
}

fn own(read: &impl Read<Record>, setting: &Setting, resource: Uuid) -> Option<String> {
    let row = read.get(Kind::ResourceConfig, setting.row_of(resource))?;
    ResourceConfig::of(&row).map(|config| config.value.clone())
}

/// Makes a row for each setting that has none, and takes away those of settings that are no more.
///
/// # Errors
/// The store's.
pub fn declare(store: &Store<Record>, now: Timestamp) -> Result<()> {
    let make = move |tx: &mut Tx<Record>| {
        let known = |row: &Record| Setting::all().any(|setting| setting.row() == row.uuid());
        let gone: Vec<Uuid> =
            tx.list(Kind::GlobalConfig).filter(|row| !known(row)).map(|row| row.uuid()).collect();
        gone.into_iter().for_each(|uuid| tx.delete(Kind::GlobalConfig, uuid));
        for setting in Setting::all() {
            if tx.get(Kind::GlobalConfig, setting.row()).is_none() {
                let meta = Meta { owner: None, created: now, changed: now };
                tx.put(Record::new(with(&setting, setting.of.default()), meta))
                    .map_err(crate::claim::taken)?;
            }
        }
        Ok(())
    };
    store.transact(make).map(|_| ())
}

fn with(setting: &Setting, value: String) -> GlobalConfig {
    let (category, name) = (setting.category.to_owned(), setting.name.to_owned());
    GlobalConfig { uuid: Id::new(setting.row()), category, name, value }
}

fn find(category: &str, name: &str) -> Result<Setting> {
    Setting::find(category, name).ok_or_else(|| {
        let error = Error::field("name", format!("there is no setting {name} of {category}"));
        error.hint("QueryGlobalConfig lists what there is")
    })
}

fn check(setting: &Setting, value: &str) -> Result<()> {
    let checked = setting.of.check(value);
    checked.map_err(|rule| Error::field("value", rule).hint(setting.doc))
}

fn update(txn: &mut Txn<'_>, message: UpdateGlobalConfig) -> Result<Reply> {
    let setting = find(&message.category, &message.name)?;
    check(&setting, &message.value)?;
    let reply = set(txn, with(&setting, message.value))?;
    if setting == VXLAN_UDP_PORT {
        vtep::change_port(txn)?;
    }
    Ok(reply)
}

fn set(txn: &mut Txn<'_>, config: GlobalConfig) -> Result<Reply> {
    let id = config.uuid;
    match txn.find(id) {
        Some(_) => txn.update(config)?,
        None => txn.insert_for_platform(config)?,
    }
    Ok(Reply::shows(id))
}

fn reset(txn: &mut Txn<'_>, _message: ResetGlobalConfig) -> Result<Reply> {
    for setting in Setting::all() {
        set(txn, with(&setting, setting.of.default()))?;
    }
    vtep::change_port(txn)?;
    Ok(Reply::nothing())
}

fn options(_look: &Look<'_>, message: GetGlobalConfigOptions) -> Result<Value> {
    let options = match find(&message.category, &message.name)?.of {
        Values::Number { low, high, .. } => {
            json!({"numberGreaterThanOrEqual": low, "numberLessThanOrEqual": high})
        }
        Values::Word { one_of, .. } => json!({"validValue": one_of}),
        Values::Networks | Values::Text { .. } => json!({}),
    };
    Ok(json!({"options": options}))
}

fn update_of_resource(txn: &mut Txn<'_>, message: UpdateResourceConfig) -> Result<Reply> {
    let setting = find(&message.category, &message.name)?;
    let record = txn.any("resourceUuid", message.resource_uuid)?;
    check_per(&setting, record.kind())?;
    check(&setting, &message.value)?;
    let resource = AnyId { kind: record.kind(), uuid: record.uuid() };
    let id = Id::new(setting.row_of(resource.uuid));
    let (category, name) = (message.category, message.name);
    let config = ResourceConfig { uuid: id, resource, category, name, value: message.value };
    match txn.find(id) {
        Some(_) => txn.update(config)?,
        None => txn.insert(config).map(|_| ())?,
    }
    waits(txn, &setting, resource.uuid);
    Ok(Reply::shows(id))
}

/// Success waits for what a setting of one resource changes on hosts.
fn waits(txn: &mut Txn<'_>, setting: &Setting, resource: Uuid) {
    if *setting == WITHOUT_GROUP {
        security_group::waits_for_ungrouped(txn, Id::new(resource));
    }
}

fn check_per(setting: &Setting, kind: Kind) -> Result<()> {
    if setting.per.contains(&kind) {
        return Ok(());
    }
    let (name, this) = (setting.name, kind.def().name);
    let error = Error::field("resourceUuid", format!("{name} is not set for one {this}"));
    let kinds: Vec<_> = setting.per.iter().map(|kind| kind.def().name).collect();
    Err(error.hint(match kinds.is_empty() {
        true => "it is set for all: UpdateGlobalConfig".to_owned(),
        false => format!("it is set for all, or for one of {}", kinds.join(", ")),
    }))
}

fn of_resource(look: &Look<'_>, message: GetResourceConfig) -> Result<Value> {
    let setting = find(&message.category, &message.name)?;
    let uuid = message.resource_uuid;
    let record = sharing::shown()
        .find_map(|kind| look.visible(kind, uuid))
        .ok_or_else(|| Error::not_found("resource", uuid.simple()).on_field("resourceUuid"))?;
    check_per(&setting, record.kind())?;
    let snapshot = look.snapshot();
    let row = look.visible(Kind::ResourceConfig, setting.row_of(uuid));
    let value = own(snapshot, &setting, uuid).or_else(|| global(snapshot, &setting));
    let value = value.unwrap_or_else(|| setting.of.default());
    let effective: Vec<_> = row.iter().map(|row| look.show(row)).collect();
    Ok(json!({"value": value, "effectiveConfigs": effective}))
}

/// Taking away what is not there succeeds.
fn delete_of_resource(txn: &mut Txn<'_>, message: DeleteResourceConfig) -> Result<Reply> {
    let setting = find(&message.category, &message.name)?;
    txn.delete(Id::<ResourceConfig>::new(setting.row_of(message.resource_uuid)))?;
    waits(txn, &setting, message.resource_uuid);
    Ok(Reply::nothing())
}
