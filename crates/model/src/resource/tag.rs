//! Tags: words on resources. A system tag means something to netloom, a user tag to people.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    AnyId, FieldDef, Id, Kind, Message, MessageDef, Plain, Record, Resource,
    declare::Column,
    member_query::{self, Anchor},
    shown::{Child, Shown},
    words,
};

words! {
    /// Whom a tag means something to.
    TagType {
        /// Netloom.
        System = "System",
        /// People.
        User = "User",
    }
}

/// A word on a resource that means something to netloom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/system-tags", also, messages)]
pub struct SystemTag {
    /// Its id.
    pub uuid: Id<SystemTag>,
    /// The resource.
    #[serde(rename = "resourceUuid")]
    #[field(on_delete = "cascade", part)]
    pub resource: AnyId,
    /// What it says.
    #[field(index)]
    pub tag: String,
    /// It says what the resource was made with, and stays.
    pub inherent: bool,
}

/// A word on a resource that means something to people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/user-tags", also, messages)]
pub struct UserTag {
    /// Its id.
    pub uuid: Id<UserTag>,
    /// The resource.
    #[serde(rename = "resourceUuid")]
    #[field(on_delete = "cascade", part)]
    pub resource: AnyId,
    /// What it says.
    #[field(index)]
    pub tag: String,
}

impl SystemTag {
    const MESSAGES: &'static [&'static MessageDef] =
        &[&CreateSystemTag::DEF, &CreateSystemTags::DEF, &UpdateSystemTag::DEF, &DeleteTag::DEF];

    const ALSO: &'static [Column] = &[
        Column::computed(RESOURCE_TYPE, resource_type),
        Column::computed(TAG_TYPE, |_| Plain::word(TagType::System.as_str())),
    ];
}

impl UserTag {
    const MESSAGES: &'static [&'static MessageDef] = &[&CreateUserTag::DEF];

    const ALSO: &'static [Column] = &[
        Column::computed(RESOURCE_TYPE, resource_type),
        Column::computed(TAG_TYPE, |_| Plain::word(TagType::User.as_str())),
        Column::computed(
            FieldDef::of::<Option<String>>(Self::ANCHOR, "What queries for members find."),
            |record| match (UserTag::of(record), record.meta.owner) {
                (Some(tag), Some(owner)) if tag.resource.kind == Kind::VmInstance => {
                    let anchor = Anchor { account: owner, tag: Some(member_query::said(&tag.tag)) };
                    Plain::Text(anchor.key().into())
                }
                _ => Plain::Null,
            },
        )
        .indexed()
        .unseen(),
    ];

    /// The hidden field by which an account's instances are found that have a tag.
    pub const ANCHOR: &'static str = "anchor";
}

/// The pseudo-fields of every resource by which queries find what has a tag, as ZStack has them.
pub const PSEUDO_FIELDS: [&Child; 2] = [
    &Child {
        name: "__systemTag__",
        kind: Kind::SystemTag,
        by: "resourceUuid",
        order: None,
        shown: Shown::No,
        only: &[],
    },
    &Child {
        name: "__userTag__",
        kind: Kind::UserTag,
        by: "resourceUuid",
        order: None,
        shown: Shown::No,
        only: &[],
    },
];

/// The forms of the tags that a resource knows, with `{placeholders}` between `::`. A value that
/// stands in braces itself has a placeholder in two: `{{cidr}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagForm {
    /// The form, such as `staticIp::{l3NetworkUuid}::{ip}`.
    pub form: &'static str,
    /// It may be put on a resource and taken off at any time. Otherwise it says how one is made.
    pub at_any_time: bool,
    /// It says what a field says, and follows it.
    pub of_field: bool,
    /// What it means, in a sentence.
    pub doc: &'static str,
}

impl TagForm {
    /// Whether a tag has this form.
    #[must_use]
    pub fn fits(&self, tag: &str) -> bool {
        let (mut form, mut parts) = (self.form.split("::"), tag.split("::"));
        loop {
            match (form.next(), parts.next()) {
                (None, None) => return true,
                (Some(wanted), Some(part)) if wanted == part => {}
                (Some(wanted), Some(part)) if wanted.starts_with('{') && !part.is_empty() => {}
                _ => return false,
            }
        }
    }
}

/// Puts a system tag on a resource.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/system-tags", creates = "SystemTag")]
pub struct CreateSystemTag {
    /// The resource's kind, as ZStack names it: `VmInstanceVO`.
    pub resource_type: String,
    /// The resource.
    pub resource_uuid: Uuid,
    /// What it says: one of the forms that the resource knows.
    #[field(max_len = 2048)]
    pub tag: String,
}

/// Puts several system tags on a resource.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/system-tags/{resourceUuid}/tags")]
pub struct CreateSystemTags {
    /// The resource's kind, as ZStack names it: `VmInstanceVO`.
    pub resource_type: String,
    /// The resource.
    pub resource_uuid: Uuid,
    /// What they say.
    #[field(required, max_len = 100)]
    pub tags: Vec<String>,
}

/// Changes what a system tag says, to something of the same form.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/system-tags/{uuid}/actions", action = "updateSystemTag")]
pub struct UpdateSystemTag {
    /// The tag.
    pub uuid: Id<SystemTag>,
    /// What it says.
    #[field(max_len = 2048)]
    pub tag: String,
}

/// Puts a user tag on a resource.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/user-tags", creates = "UserTag")]
pub struct CreateUserTag {
    /// The resource's kind, as ZStack names it: `VmInstanceVO`.
    pub resource_type: String,
    /// The resource.
    pub resource_uuid: Uuid,
    /// What it says.
    #[field(max_len = 2048)]
    pub tag: String,
}

/// Takes a tag of either type off.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/tags/{uuid}")]
pub struct DeleteTag {
    /// The tag.
    pub uuid: Uuid,
}

const RESOURCE_TYPE: FieldDef =
    FieldDef::of::<String>("resourceType", "The resource's kind, as ZStack names it.");

const TAG_TYPE: FieldDef = FieldDef::of::<TagType>("type", "Whom it means something to.");

fn resource_type(record: &Record) -> Plain<'_> {
    let resource = record.whole();
    resource.map_or(Plain::Null, |id| Plain::Text(id.kind.def().vo().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_a_form_part_by_part() {
        let form =
            TagForm { form: "staticIp::{l3}::{ip}", at_any_time: false, of_field: false, doc: "" };
        for (tag, fits) in [
            ("staticIp::a::10.0.0.1", true),
            ("staticIp::a", false),
            ("staticIp::a::", false),
            ("staticIp::a::b::c", false),
            ("staticip::a::b", false),
            ("", false),
        ] {
            assert_eq!(form.fits(tag), fits, "{tag}");
        }
    }
}
