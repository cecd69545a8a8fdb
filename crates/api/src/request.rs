//! Requests: from path, query string and body to a message's fields.
//!
//! ZStack's clients differ in where they put things, and all of them are understood. The Java SDK has
//! the tags among the fields, and below the key `null` when a message has no fields in its body. The
//! Go SDK leaves values of the query string empty. What is not known is passed over and named in the
//! answer, unless the caller wants strict handling.

use std::collections::BTreeMap;

use control::{Request, Unknown, validate};
use model::{
    Error, FieldType, MessageDef,
    declare::{FieldsIn, Method as Verb},
};
use serde_json::{Map, Value};

use crate::params;

/// Why a request is not understood.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// As a request: a text for `400`.
    Request(String),
    /// As a message.
    Message(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Message(error)
    }
}

type Result<T, E = Wrong> = std::result::Result<T, E>;

/// What a request brings along, besides its headers.
pub(crate) struct Parts<'a> {
    /// The variables of its path.
    pub(crate) path: &'a BTreeMap<String, String>,
    /// Its query string.
    pub(crate) pairs: &'a [(String, String)],
    /// Its body.
    pub(crate) body: Map<String, Value>,
    /// What is done about what is not known.
    pub(crate) unknown: Unknown,
}

/// Chooses the message that a body means among those of one path: a PUT is told by its key.
///
/// # Errors
/// A text for `400`: no known action.
pub(crate) fn choose(
    defs: &[&'static MessageDef],
    body: &Map<String, Value>,
) -> Result<&'static MessageDef, String> {
    let fits = |def: &&&MessageDef| match def.fields_in {
        FieldsIn::Below(key) => body.contains_key(key),
        FieldsIn::Path | FieldsIn::Query => true,
    };
    defs.iter().find(fits).copied().ok_or_else(|| {
        let keys = defs.iter().filter_map(|def| match def.fields_in {
            FieldsIn::Below(key) => Some(format!("\"{key}\"")),
            FieldsIn::Path | FieldsIn::Query => None,
        });
        format!("the body needs one of the keys {}", keys.collect::<Vec<_>>().join(", "))
    })
}

/// Reads a message's fields; path variables win over the body.
///
/// # Errors
/// A scalar field with several values; [`model::Code::InvalidArgument`] naming the field.
pub(crate) fn parse(def: &'static MessageDef, parts: Parts<'_>) -> Result<Request> {
    let Parts { path, pairs, mut body, unknown } = parts;
    let (mut params, mut notes) = (fields(def, pairs, &mut body)?, Vec::new());
    let mut system_tags = tags(&mut body, "systemTags")?;
    let mut user_tags = tags(&mut body, "userTags")?;
    for key in body.keys() {
        if unknown == Unknown::Refuse {
            let error = Error::field(key, "is not known beside the message");
            let hint = "systemTags and userTags are; fields go below the message's key";
            return Err(error.hint(hint).into());
        }
        notes.push(Error::field(key, "is not known beside the message; it was ignored").message);
    }
    for (name, text) in path {
        if let Some(field) = def.fields.iter().find(|field| field.name == name) {
            params.insert(name.clone(), field.from_text(text));
        }
    }
    if unknown == Unknown::Name {
        read_texts(def, &mut params);
    }
    system_tags.extend(tags_among(&mut params, def, "systemTags")?);
    user_tags.extend(tags_among(&mut params, def, "userTags")?);
    let request = Request { unknown, notes, ..message(def, params)? };
    let system_tags = system_tags.iter().map(|tag| with_plain_uuids(tag)).collect();
    Ok(Request { system_tags, user_tags, ..request })
}

/// A message of these fields, tags among them, as the old protocol has it.
///
/// # Errors
/// [`model::Code::InvalidArgument`] naming the field.
pub(crate) fn of_fields(
    def: &'static MessageDef,
    mut params: Map<String, Value>,
) -> model::Result<Request> {
    let system_tags = tags_among(&mut params, def, "systemTags")?;
    let system_tags = system_tags.iter().map(|tag| with_plain_uuids(tag)).collect();
    let user_tags = tags_among(&mut params, def, "userTags")?;
    read_texts(def, &mut params);
    // Python's clients send `null` for all that they leave out.
    params.retain(|_, value| !value.is_null());
    let unknown = Unknown::Name;
    Ok(Request { system_tags, user_tags, unknown, ..message(def, params)? })
}

/// A message of these fields: what every message takes beside its own is taken out of them.
///
/// # Errors
/// [`model::Code::InvalidArgument`] naming the field.
pub(crate) fn message(
    def: &'static MessageDef,
    mut params: Map<String, Value>,
) -> model::Result<Request> {
    let mut parsed = Request { message: def.name.to_owned(), ..Request::default() };
    // A tag has a field of this name: the resource that it is put on.
    let is_own = def.fields.iter().any(|field| field.name == "resourceUuid");
    if def.creates.is_some()
        && !is_own
        && let Some(wanted) = params.remove("resourceUuid")
        && !wanted.is_null()
    {
        let uuid = wanted.as_str().and_then(model::id::parse_uuid);
        let hint = "32 hex digits, with or without dashes; or leave it out";
        let wrong = || Error::field("resourceUuid", format!("{wanted} is not a uuid")).hint(hint);
        parsed.resource_uuid = Some(uuid.ok_or_else(wrong)?);
    }
    if def.creates.is_some() {
        // Labels for people, as user tags are: only their form counts.
        let tags = tags(&mut params, "tagUuids")?;
        if let Some(tag) = tags.iter().find(|tag| model::id::parse_uuid(tag).is_none()) {
            let error = Error::field("tagUuids", format!("\"{tag}\" is not a uuid"));
            return Err(error.hint("32 hex digits each, with or without dashes; or leave it out"));
        }
    }
    let declares_mode = def.fields.iter().any(|field| field.name == "deleteMode");
    if def.method == Verb::Delete && !declares_mode {
        delete_mode(params.remove("deleteMode").as_ref())?;
    }
    Ok(Request { params, ..parsed })
}

/// Reads numbers and truths that are written as text, as ZStack does: some clients send everything
/// as text. What does not fit stays, to be refused.
pub(crate) fn read_texts(def: &MessageDef, params: &mut Map<String, Value>) {
    for field in def.fields {
        if let (FieldType::Integer | FieldType::Bool, Some(value)) =
            (field.kind, params.get_mut(field.name))
            && let Some(text) = value.as_str()
        {
            *value = field.from_text(text.trim());
        }
    }
}

fn fields(
    def: &MessageDef,
    pairs: &[(String, String)],
    body: &mut Map<String, Value>,
) -> Result<Map<String, Value>> {
    let key = match def.fields_in {
        FieldsIn::Query => return params::read(def, pairs),
        FieldsIn::Below(key) => key,
        FieldsIn::Path => {
            // The one key beside the tags, whatever its name: ZStack's documentation has `params`,
            // its Java SDK sends `null`.
            let is_wrapper = |(key, value): &(&String, &Value)| {
                !["systemTags", "userTags"].contains(&key.as_str()) && value.is_object()
            };
            let wrapper = body.iter().find(is_wrapper).map(|(key, _)| key.clone());
            let mut params = params::read(def, pairs)?;
            if let Some(Value::Object(more)) = wrapper.and_then(|key| body.remove(&key)) {
                params.extend(more);
            }
            return Ok(params);
        }
    };
    match body.remove(key) {
        Some(Value::Object(params)) => Ok(params),
        Some(Value::Null) => Ok(Map::new()),
        _ => Err(Error::field(key, "must be a JSON object").hint(validate::usage(def)).into()),
    }
}

/// A system tag whose uuids have the form in which handlers look for them.
fn with_plain_uuids(tag: &str) -> String {
    let plain = |part: &str| match model::id::parse_uuid(part) {
        Some(uuid) => uuid.simple().to_string(),
        None => part.to_owned(),
    };
    tag.split("::").map(plain).collect::<Vec<_>>().join("::")
}

/// Tags that a client has put among the fields, unless the message has a field of that name.
fn tags_among(
    params: &mut Map<String, Value>,
    def: &MessageDef,
    name: &str,
) -> model::Result<Vec<String>> {
    match def.fields.iter().any(|field| field.name == name) {
        true => Ok(Vec::new()),
        false => tags(params, name),
    }
}

fn tags(body: &mut Map<String, Value>, name: &str) -> model::Result<Vec<String>> {
    let wrong = || {
        let error = Error::field(name, "must be a list of texts");
        error.hint(format!("such as \"{name}\": [\"a\", \"b\"]; or leave it out"))
    };
    match body.remove(name) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(tags)) => {
            let text = |tag: &Value| tag.as_str().map(str::to_owned).ok_or_else(wrong);
            tags.iter().map(text).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Both of ZStack's modes mean the same for a message that does not declare them: what is deleted
/// along, and what refuses, is declared.
fn delete_mode(mode: Option<&Value>) -> model::Result<()> {
    match mode.map(Value::as_str) {
        None | Some(Some("Permissive" | "Enforcing" | "")) => Ok(()),
        Some(_) => {
            let error = Error::field("deleteMode", "is not one of Permissive, Enforcing");
            Err(error.hint("leave it out"))
        }
    }
}
