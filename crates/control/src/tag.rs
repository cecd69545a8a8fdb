//! Tags on resources: put on with what is created or later, changed, taken off. They go with their
//! resource.

use model::{
    AnyId, Code, Error, Id, Kind, Resource, Result,
    resource::tag::{
        CreateSystemTag, CreateSystemTags, CreateUserTag, DeleteTag, SystemTag, TagForm,
        UpdateSystemTag, UserTag,
    },
};
use store::{Key, Read};
use uuid::Uuid;

use crate::{
    Reply, Txn, field_tags, invisible,
    operation::{Operation, job, shared_only},
};

/// Tags of one type on one resource at most: all of them are looked at for each further one.
pub const TAGS_MAX: u64 = 100;
/// Longest tag, in characters.
pub const TAG_MAX: usize = 2048;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(create), job(create_several), job(update), job(create_for_users), job(delete)]
}

fn create(txn: &mut Txn<'_>, message: CreateSystemTag) -> Result<Reply> {
    let resource = resource(txn, &message.resource_type, message.resource_uuid)?;
    let id = put_on(txn, resource, &message.tag, txn.new_id())?;
    Ok(Reply::shows(id))
}

fn create_several(txn: &mut Txn<'_>, message: CreateSystemTags) -> Result<Reply> {
    let resource = resource(txn, &message.resource_type, message.resource_uuid)?;
    for tag in &message.tags {
        check("tags", tag)?;
        let id = Id::new(txn.random_uuid());
        put_on(txn, resource, tag, id)?;
    }
    Ok(Reply::nothing())
}

fn create_for_users(txn: &mut Txn<'_>, message: CreateUserTag) -> Result<Reply> {
    let resource = resource(txn, &message.resource_type, message.resource_uuid)?;
    let id = label(txn, resource, message.tag, txn.new_id())?;
    Ok(Reply::shows(id))
}

fn update(txn: &mut Txn<'_>, message: UpdateSystemTag) -> Result<Reply> {
    let tag = txn.get(message.uuid)?;
    let form = changeable(tag.resource.kind, &message.tag)?;
    if tag.inherent || !form.fits(&tag.tag) {
        let error = Error::field("tag", format!("\"{}\" does not become that", tag.tag));
        return Err(error.hint(format!("a tag keeps its form; this one's is {}", form.form)));
    }
    if form.of_field {
        field_tags::set(txn, tag.resource, &message.tag)?;
        return Ok(Reply::shows(message.uuid));
    }
    txn.update(SystemTag { tag: message.tag, ..tag })?;
    Ok(Reply::shows(message.uuid))
}

/// What is gone, or another's, is taken off already.
fn delete(txn: &mut Txn<'_>, message: DeleteTag) -> Result<Reply> {
    for kind in [Kind::SystemTag, Kind::UserTag] {
        let Some(record) = txn.visible(kind, message.uuid) else { continue };
        if !txn.caller().may_change(&record) {
            return Err(shared_only(kind, message.uuid).on_field("uuid"));
        }
        if let Some(tag) = SystemTag::of(&record) {
            let form = tag.resource.kind.def().tags.iter().find(|form| form.fits(&tag.tag));
            let of_field = form.is_some_and(|form| form.of_field);
            if tag.inherent {
                let error = Error::field("uuid", "says what the resource was made with");
                return Err(error.hint(match of_field {
                    true => "DeleteVmStaticIp takes it off, and SetVmStaticIp changes it",
                    false => "it goes with the resource",
                }));
            }
            if of_field {
                field_tags::take_off(txn, tag.resource, &tag.tag)?;
                continue;
            }
        }
        match kind {
            Kind::SystemTag => txn.delete(Id::<SystemTag>::new(message.uuid))?,
            _ => txn.delete(Id::<UserTag>::new(message.uuid))?,
        }
    }
    Ok(Reply::nothing())
}

/// The resource of this kind, if the caller may change it.
fn resource(txn: &Txn<'_>, kind: &str, uuid: Uuid) -> Result<AnyId> {
    let record = txn.any("resourceUuid", uuid)?;
    let def = record.kind().def();
    if !txn.caller().may_change(&record) {
        return Err(shared_only(record.kind(), uuid).on_field("resourceUuid"));
    }
    if kind != def.vo() && kind != def.name {
        let error = Error::field("resourceType", format!("it is a {}, not a {kind}", def.name));
        return Err(error.hint(format!("send {}", def.vo())));
    }
    check_tagged("resourceUuid", record.kind())?;
    Ok(AnyId { kind: record.kind(), uuid })
}

/// Whether resources of a kind have tags. What is forgotten by itself has none: they would stay.
fn check_tagged(field: &str, kind: Kind) -> Result<()> {
    let has_none = matches!(
        kind,
        Kind::SystemTag | Kind::UserTag | Kind::SharedResource | Kind::Job | Kind::Audit
    );
    if !has_none {
        return Ok(());
    }
    let error = Error::field(field, format!("a {} has no tags", kind.def().name));
    Err(error.hint("put the tag on the resource itself"))
}

/// The form of a tag that may be put on a resource of this kind at any time.
fn changeable(kind: Kind, tag: &str) -> Result<&'static TagForm> {
    check("tag", tag)?;
    let form = kind.def().tags.iter().find(|form| form.fits(tag));
    match form {
        Some(form) if form.at_any_time => field_tags::check(form, tag).map(|()| form),
        Some(form) => {
            let error = Error::field("tag", format!("{} is for the making alone", form.form));
            Err(error.hint(form.doc))
        }
        None => Err(unknown("tag", kind, tag)),
    }
}

/// The refusal of a tag that resources of a kind do not know.
pub(crate) fn unknown(field: &str, kind: Kind, tag: &str) -> Error {
    let def = kind.def();
    let forms: Vec<_> = def.tags.iter().map(|form| form.form).collect();
    let hint = match forms.is_empty() {
        true => format!("a {} knows no system tags; a user tag may say anything", def.name),
        false => format!("the forms that a {} knows: {}", def.name, forms.join(", ")),
    };
    Error::field(field, format!("a {} does not know the tag \"{tag}\"", def.name)).hint(hint)
}

/// Checks the text of a tag.
///
/// # Errors
/// [`Code::InvalidArgument`] blaming `field`.
pub(crate) fn check(field: &str, tag: &str) -> Result<()> {
    let wrong = |text: String| Err(Error::field(field, text).hint("give the tag another text"));
    if tag.trim().is_empty() {
        return wrong("a tag may not be blank".into());
    }
    if tag.chars().count() > TAG_MAX {
        return wrong(format!("a tag is over {TAG_MAX} characters long"));
    }
    match invisible::first(tag) {
        Some(hidden) => wrong(format!(
            "a tag has a character in it that cannot be seen: U+{:04X}",
            u32::from(hidden)
        )),
        None => Ok(()),
    }
}

fn put_on(
    txn: &mut Txn<'_>,
    resource: AnyId,
    tag: &str,
    id: Id<SystemTag>,
) -> Result<Id<SystemTag>> {
    if changeable(resource.kind, tag)?.of_field {
        field_tags::put_on(txn, resource, tag)?;
    }
    record(txn, resource, (tag, false), id)
}

fn record(
    txn: &mut Txn<'_>,
    resource: AnyId,
    (tag, inherent): (&str, bool),
    id: Id<SystemTag>,
) -> Result<Id<SystemTag>> {
    if let Some(same) = same::<SystemTag>(txn, resource, |other| other.tag == tag)? {
        return Ok(same);
    }
    txn.insert(SystemTag { uuid: id, resource, tag: tag.to_owned(), inherent })
}

fn label(txn: &mut Txn<'_>, resource: AnyId, tag: String, id: Id<UserTag>) -> Result<Id<UserTag>> {
    check("tag", &tag)?;
    if let Some(same) = same::<UserTag>(txn, resource, |other| other.tag == tag)? {
        return Ok(same);
    }
    txn.insert(UserTag { uuid: id, resource, tag })
}

/// The tag that says the same on the same resource, if there is one; if not, there must be room.
fn same<T: Resource>(
    txn: &Txn<'_>,
    resource: AnyId,
    is_it: impl Fn(&T) -> bool,
) -> Result<Option<Id<T>>> {
    let by = "resourceUuid";
    let found: Vec<Uuid> = txn.tx.referrers(T::KIND, by, resource.uuid).collect();
    let tags = found.into_iter().filter_map(|id| txn.find::<T>(Id::new(id)));
    if let Some(same) = tags.into_iter().find(is_it) {
        return Ok(Some(same.id()));
    }
    if txn.tx.count(T::KIND, by, &Key::Uuid(resource.uuid)) >= TAGS_MAX {
        let text = format!("a resource has {TAGS_MAX} tags of a type at most");
        return Err(Error::new(Code::OperationFailed, text).hint("take others off first"));
    }
    Ok(None)
}

/// Keeps the tags with which something was made: system tags as what its maker asked for.
pub(crate) fn keep(
    txn: &mut Txn<'_>,
    (kind, uuid): (Kind, Uuid),
    system: &[String],
    user: &[String],
) -> Result<()> {
    let resource = AnyId { kind, uuid };
    if !user.is_empty() {
        check_tagged("userTags", kind)?;
    }
    for tag in system {
        let form = kind.def().tags.iter().find(|form| form.fits(tag));
        if form.is_some_and(|form| form.of_field) {
            // It comes of the field, which has rules of its own.
            continue;
        }
        check("systemTags", tag)?;
        let Some(form) = form else { continue };
        let id = Id::new(txn.random_uuid());
        record(txn, resource, (tag, !form.at_any_time), id)?;
    }
    for tag in user {
        let id = Id::new(txn.random_uuid());
        label(txn, resource, tag.clone(), id).map_err(|error| error.on_field("userTags"))?;
    }
    Ok(())
}
