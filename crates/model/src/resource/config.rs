//! Configuration: the values of settings, of all and of single resources. What can be set is in
//! [`crate::setting`].

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    AnyId, FieldDef, Id, Message, MessageDef, Plain, Record, Resource, declare::Column,
    setting::Setting, shown::Derived,
};

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/global-configurations", derived, messages)]
pub struct GlobalConfig {
    /// Its id: that of the setting.
    pub uuid: Id<GlobalConfig>,
    /// What it is about.
    #[field(index)]
    pub category: String,
    /// Its name there.
    #[field(index)]
    pub name: String,
    /// What it is.
    pub value: String,
}

impl GlobalConfig {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&UpdateGlobalConfig::DEF, &ResetGlobalConfig::DEF, &GetGlobalConfigOptions::DEF];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<Option<String>>(
                "defaultValue",
                "What it is if nobody says otherwise.",
            ),
            read: |record, _| told(setting_of(record), |setting| setting.of.default()),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>("description", "What it does."),
            read: |record, _| told(setting_of(record), |setting| setting.doc.to_owned()),
            found_by: &[],
            only: &[],
        },
    ];
}

fn setting_of(record: &Record) -> Option<Setting> {
    let global = GlobalConfig::of(record).map(|config| (&config.category, &config.name));
    let own = ResourceConfig::of(record).map(|config| (&config.category, &config.name));
    global.or(own).and_then(|(category, name)| Setting::find(category, name))
}

fn told(setting: Option<Setting>, what: impl FnOnce(Setting) -> String) -> Plain<'static> {
    setting.map_or(Plain::Null, |setting| Plain::Text(what(setting).into()))
}

/// The value of a setting for one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/resource-configurations", also, derived, messages)]
pub struct ResourceConfig {
    /// Its id: that of the setting for the resource.
    pub uuid: Id<ResourceConfig>,
    /// The resource.
    #[serde(rename = "resourceUuid")]
    #[field(on_delete = "cascade", part)]
    pub resource: AnyId,
    /// What it is about.
    #[field(index)]
    pub category: String,
    /// Its name there.
    #[field(index)]
    pub name: String,
    /// What it is.
    pub value: String,
}

impl ResourceConfig {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&UpdateResourceConfig::DEF, &GetResourceConfig::DEF, &DeleteResourceConfig::DEF];

    const ALSO: &'static [Column] = &[Column::computed(
        FieldDef::of::<String>("resourceType", "The resource's kind, as ZStack names it."),
        |record| {
            let resource = record.whole();
            resource.map_or(Plain::Null, |id| Plain::Text(id.kind.def().vo().into()))
        },
    )];

    const DERIVED: &'static [Derived] = &[Derived {
        field: FieldDef::of::<Option<String>>("description", "What it does."),
        read: |record, _| told(setting_of(record), |setting| setting.doc.to_owned()),
        found_by: &[],
        only: &[],
    }];
}

/// Changes a setting.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/global-configurations/{category}/{name}/actions",
    action = "updateGlobalConfig",
    access = "admin"
)]
pub struct UpdateGlobalConfig {
    /// What it is about.
    pub category: String,
    /// Its name there.
    pub name: String,
    /// What it is from now on.
    #[field(max_len = 16_384)]
    pub value: String,
}

/// Gives every setting its default.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/global-configurations/actions", action = "resetGlobalConfig", access = "admin")]
pub struct ResetGlobalConfig {}

/// Tells what a setting may be.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/global-configurations/{category}/{name}", answer = "now", access = "admin")]
pub struct GetGlobalConfigOptions {
    /// What it is about.
    pub category: String,
    /// Its name there.
    pub name: String,
}

/// Changes a setting for one resource.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    put = "/resource-configurations/{category}/{name}/{resourceUuid}/actions",
    action = "updateResourceConfig",
    access = "admin"
)]
pub struct UpdateResourceConfig {
    /// What it is about.
    pub category: String,
    /// Its name there.
    pub name: String,
    /// The resource.
    pub resource_uuid: Uuid,
    /// What it is from now on.
    pub value: String,
}

/// Tells the value of a setting for one resource: its own, else that of all.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(
    get = "/resource-configurations/{resourceUuid}/{category}/{name}",
    answer = "now",
    access = "admin"
)]
pub struct GetResourceConfig {
    /// What it is about.
    pub category: String,
    /// Its name there.
    pub name: String,
    /// The resource.
    pub resource_uuid: Uuid,
}

/// Takes the own value of a resource away: that of all counts again.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/resource-configurations/{category}/{name}/{resourceUuid}", access = "admin")]
pub struct DeleteResourceConfig {
    /// What it is about.
    pub category: String,
    /// Its name there.
    pub name: String,
    /// The resource.
    pub resource_uuid: Uuid,
}
