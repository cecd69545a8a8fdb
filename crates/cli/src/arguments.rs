//! What a call is given: words become the message's fields, names become uuids, short arguments
//! become system tags.

use model::{FieldDef, FieldType, Kind, MessageDef, id::parse_uuid, resource::tag::TagForm};
use serde_json::{Map, Value};

use crate::{Error, near, noun::field_words, topology::RESOURCE_UUID};

/// Finds the uuid of what people call by a name.
pub(crate) type Resolve<'a> = &'a dyn Fn(Kind, &str) -> Result<String, Error>;

/// A call, ready to be sent.
#[derive(Debug, PartialEq)]
pub struct Call {
    /// The message.
    pub message: &'static str,
    /// Its fields.
    pub params: Map<String, Value>,
    /// Its system tags.
    pub tags: Vec<String>,
}

/// What becomes of keys that a message does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The server says what is wrong with them.
    Sent,
    /// They are refused here, with what was meant.
    Refused,
}

/// What a key stands for.
enum Meaning {
    Field(&'static FieldDef),
    /// The last placeholder of a tag.
    Tag(&'static TagForm),
    Tags,
    /// A list of texts that every creation takes, declared or not.
    List(&'static str),
    /// A text likewise.
    Text(&'static str),
}

/// Makes a call of pairs. Of several messages, that one is meant which takes all that is given and
/// lacks nothing.
pub(crate) fn call(
    messages: &[&'static MessageDef],
    pairs: &[(String, String)],
    unknown: Unknown,
    resolve: Resolve<'_>,
) -> Result<Call, Error> {
    let takes = |def: &&&'static MessageDef| pairs.iter().all(|(key, _)| is_known(def, key));
    let fits = messages.iter().filter(takes).find(|def| lacking(def, pairs).is_empty());
    let def = fits.or_else(|| messages.iter().find(takes)).or_else(|| messages.first());
    let def = *def.ok_or_else(|| Error::Usage("there is no such call".into()))?;
    let (mut params, mut tags, mut short) = (Map::new(), Vec::new(), Vec::new());
    for (key, text) in pairs {
        match meaning(def, key) {
            Some(Meaning::Field(field)) => put(&mut params, field, value(field, text, resolve)?)?,
            Some(Meaning::Tag(form)) => short.push((form, text.as_str())),
            Some(Meaning::Tags) => tags.extend(text.split(',').map(str::to_owned)),
            Some(Meaning::List(name)) => {
                let list = params.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let more = text.split(',').map(|one| Value::from(one.trim()));
                list.as_array_mut().into_iter().for_each(|list| list.extend(more.clone()));
            }
            Some(Meaning::Text(name)) => drop(params.insert(name.to_owned(), text.as_str().into())),
            None if unknown == Unknown::Refused => return Err(unknown_key(def, key)),
            None => drop(params.insert(key.clone(), text.as_str().into())),
        }
    }
    if unknown == Unknown::Refused
        && let lacks = lacking(def, pairs)
        && !lacks.is_empty()
    {
        return Err(Error::Usage(format!("{} is missing", lacks.join(", "))));
    }
    for (form, text) in &short {
        let of_form: Vec<&str> =
            short.iter().filter(|(one, _)| one == form).map(|(_, text)| *text).collect();
        let nth = of_form.iter().position(|one| one == text).unwrap_or_default();
        tags.push(tag(form, text, (nth, of_form.len()), &params)?);
    }
    Ok(Call { message: def.name, params, tags })
}

/// The keys that a message takes, as help and completion show them.
pub(crate) fn keys(def: &MessageDef) -> Vec<(String, &'static str)> {
    let fields = def
        .fields
        .iter()
        .filter_map(|field| Some((field_words(field).into_iter().next()?, field.doc)));
    let tags = forms(def).filter_map(|form| Some((last(form)?.to_owned(), form.doc)));
    fields.chain(tags).collect()
}

/// Whether a message takes this key.
pub(crate) fn is_known(def: &'static MessageDef, key: &str) -> bool {
    meaning(def, key).is_some()
}

fn meaning(def: &'static MessageDef, key: &str) -> Option<Meaning> {
    let named =
        |field: &&FieldDef| field.name == key || field_words(field).iter().any(|w| w == key);
    if let Some(field) = def.fields.iter().find(named) {
        return Some(Meaning::Field(field));
    }
    if let Some(form) = forms(def).find(|form| last(form) == Some(key)) {
        return Some(Meaning::Tag(form));
    }
    let makes = def.creates.is_some();
    match key {
        "systemTags" | "system-tags" => Some(Meaning::Tags),
        "userTags" | "user-tags" if makes => Some(Meaning::List("userTags")),
        "tagUuids" if makes => Some(Meaning::List("tagUuids")),
        RESOURCE_UUID if makes => Some(Meaning::Text(RESOURCE_UUID)),
        _ => None,
    }
}

fn unknown_key(def: &MessageDef, key: &str) -> Error {
    let known = keys(def);
    let meant = near::hint(key, known.iter().map(|(word, _)| word.as_str()));
    Error::Usage(format!("{} does not take \"{key}\"{meant}", def.name))
}

/// What a message needs and is not given.
fn lacking(def: &'static MessageDef, pairs: &[(String, String)]) -> Vec<String> {
    let is_given = |field: &FieldDef| {
        let given = pairs.iter().filter_map(|(key, _)| meaning(def, key));
        given.into_iter().any(|one| matches!(one, Meaning::Field(one) if one.name == field.name))
    };
    let lacks = def.fields.iter().filter(|field| field.required && !is_given(field));
    lacks.filter_map(|field| field_words(field).into_iter().next()).collect()
}

fn put(params: &mut Map<String, Value>, field: &FieldDef, value: Value) -> Result<(), Error> {
    match (params.get_mut(field.name), value) {
        (None, value) => drop(params.insert(field.name.to_owned(), value)),
        (Some(Value::Array(items)), Value::Array(more)) => items.extend(more),
        (Some(_), _) => return Err(Error::Usage(format!("{} is given twice", field.name))),
    }
    Ok(())
}

/// A field's value of a text.
pub(crate) fn value(field: &FieldDef, text: &str, resolve: Resolve<'_>) -> Result<Value, Error> {
    if field.nullable && text.is_empty() {
        return Ok(Value::Null);
    }
    if is_password(field) {
        return Ok(password(text)?.into());
    }
    let uuid = |kind, text: &str| match parse_uuid(text) {
        Some(uuid) => Ok(Value::from(uuid.simple().to_string())),
        None => resolve(kind, text).map(Value::from),
    };
    match (field.refs, field.kind) {
        (Some(kind), FieldType::Uuid) => uuid(kind, text),
        (Some(kind), FieldType::List(FieldType::Uuid)) => {
            text.split(',').map(|one| uuid(kind, one.trim())).collect()
        }
        _ => Ok(field.from_text(text)),
    }
}

/// Whether the server wants a digest of what people give.
pub(crate) fn is_password(field: &FieldDef) -> bool {
    field.secret && field.name.to_ascii_lowercase().ends_with("password")
}

/// A password as it is sent. `@FILE` is what a file has; a digest stays as it is, as ZStack's
/// scripts give one.
fn password(text: &str) -> Result<String, Error> {
    let is_digest = text.len() == 128 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match text.strip_prefix('@') {
        Some(file) => Ok(client::digest(&crate::connection::password(file.as_ref())?)),
        None if is_digest => Ok(text.to_owned()),
        None => Ok(client::digest(text)),
    }
}

/// The forms of tags that a message may carry: those of what it makes, and those that repeat its
/// own fields.
fn forms(def: &MessageDef) -> impl Iterator<Item = &'static TagForm> + use<'_> {
    let kind = def.creates.or_else(|| def.target().and_then(|field| field.refs));
    let forms = kind.map_or(&[][..], |kind| kind.def().tags);
    forms.iter().filter(move |form| {
        let mut others = placeholders(form);
        let _ = others.pop();
        let is_filled = others.iter().all(|name| source(def, name).is_some());
        is_filled && (def.creates.is_some() || !others.is_empty())
    })
}

/// The field that fills in a placeholder: the one of this name, or the list of such.
fn source(def: &MessageDef, placeholder: &str) -> Option<&'static FieldDef> {
    let is_it = |field: &&FieldDef| {
        field.name == placeholder || field.name.strip_suffix('s') == Some(placeholder)
    };
    def.fields.iter().find(is_it)
}

fn placeholders(form: &TagForm) -> Vec<&'static str> {
    let bare = |part: &'static str| Some(part.strip_prefix('{')?.trim_matches(['{', '}']));
    form.form.split("::").filter_map(bare).collect()
}

fn last(form: &TagForm) -> Option<&'static str> {
    placeholders(form).pop()
}

/// A tag of its form: the last placeholder is given, the message's own fields fill in the others.
/// With several networks, the first value is for the first one, and so on.
fn tag(
    form: &TagForm,
    given: &str,
    (nth, of): (usize, usize),
    params: &Map<String, Value>,
) -> Result<String, Error> {
    let own = last(form).unwrap_or_default();
    let part = |part: &str| {
        let Some(name) = part.strip_prefix('{').map(|name| name.trim_matches(['{', '}'])) else {
            return Ok(part.to_owned());
        };
        if name == own {
            // Within a tag IPv6 addresses have -- for their colons: `::` separates its parts.
            let given = given.replace(':', if name == "ip" { "--" } else { ":" });
            return Ok(match part.starts_with("{{") && !given.starts_with('{') {
                true => format!("{{{given}}}"),
                false => given,
            });
        }
        let values = params.get(name).or_else(|| params.get(&format!("{name}s")));
        let values: Vec<&str> = match values {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one],
            _ => Vec::new(),
        };
        match values[..] {
            [one] => Ok(one.to_owned()),
            _ if values.len() == of => Ok(values[nth].to_owned()),
            _ => Err(Error::Usage(format!(
                "give one {own} for each {name}, in their order, or systemTags={}",
                form.form
            ))),
        }
    };
    let parts: Result<Vec<String>, Error> = form.form.split("::").map(part).collect();
    Ok(parts?.join("::"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RED: &str = "00000000000000000000000000000001";

    fn resolve(_: Kind, name: &str) -> Result<String, Error> {
        match name {
            "red" => Ok(RED.to_owned()),
            other => Ok(format!("uuid-of-{other}")),
        }
    }

    fn make(message: &str, words: &[&str]) -> Result<Call, Error> {
        let pair = |word: &&str| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let pairs: Vec<_> = words.iter().filter_map(pair).collect();
        let def = client::message(message).unwrap();
        call(&[def], &pairs, Unknown::Refused, &resolve)
    }

    #[test]
    fn names_stand_for_uuids_and_short_arguments_for_tags() {
        let made = make("CreateVmInstance", &["name=a=b", "l3=red", "ip=10.0.0.13", "ip=fd00::13"]);
        let made = made.unwrap();
        assert_eq!(Value::Object(made.params), json!({"name": "a=b", "l3NetworkUuids": [RED]}));
        let tags = [format!("staticIp::{RED}::10.0.0.13"), format!("staticIp::{RED}::fd00----13")];
        assert_eq!(made.tags, tags);
        let words = ["l2=pool", "cluster=c", "cidr=192.0.2.0/24"];
        let made = make("AttachL2NetworkToCluster", &words).unwrap();
        let expected = "l2NetworkUuid::uuid-of-pool::clusterUuid::uuid-of-c::cidr::{192.0.2.0/24}";
        assert_eq!(made.tags, [expected]);
    }

    #[test]
    fn a_list_of_structures_is_json() {
        let rules = r#"rules=[{"type": "Ingress", "dstPortRange": "80,81"}, {"type": "Egress"}]"#;
        let made = make("AddSecurityGroupRule", &["securityGroupUuid=red", rules]).unwrap();
        let expected = json!([{"type": "Ingress", "dstPortRange": "80,81"}, {"type": "Egress"}]);
        assert_eq!(made.params["rules"], expected);
    }

    #[test]
    fn several_networks_get_their_addresses_in_order() {
        let words = ["name=a", "l3=x,y", "ip=10.0.0.1", "ip=10.0.0.2"];
        let made = make("CreateVmInstance", &words).unwrap();
        assert_eq!(made.tags, ["staticIp::uuid-of-x::10.0.0.1", "staticIp::uuid-of-y::10.0.0.2"]);
        let error = make("CreateVmInstance", &["name=a", "l3=x,y", "ip=10.0.0.1"]).unwrap_err();
        assert!(error.to_string().contains("one ip for each"), "{error}");
    }

    #[test]
    fn what_is_missing_or_unknown_is_named_with_what_was_meant() {
        let error = make("CreateVmInstance", &["name=a"]).unwrap_err();
        assert_eq!(error.to_string(), "l3 is missing");
        let error = make("CreateVmInstance", &["name=a", "l3=x", "clutser=c"]).unwrap_err();
        assert!(error.to_string().contains("did you mean \"cluster\"?"), "{error}");
        let error = make("CreateZone", &["name=a", "name=b"]).unwrap_err();
        assert_eq!(error.to_string(), "name is given twice");
    }

    #[test]
    fn of_several_messages_the_one_that_takes_all_is_meant() {
        let defs = ["AddIpRange", "AddIpRangeByNetworkCidr", "AddIpv6Range"];
        let defs = defs.map(|name| client::message(name).unwrap());
        let chosen = |words: &[(&str, &str)]| {
            let pairs: Vec<_> =
                words.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            call(&defs, &pairs, Unknown::Sent, &resolve).unwrap().message
        };
        assert_eq!(
            chosen(&[("name", "a"), ("l3", "x"), ("network-cidr", "10.0.0.0/8")]),
            defs[1].name
        );
        assert_eq!(chosen(&[("name", "a"), ("l3", "x"), ("prefix-len", "64")]), defs[2].name);
    }

    #[test]
    fn a_password_is_sent_as_its_digest() {
        let digest = client::digest("secret");
        for given in ["secret", &digest] {
            let made = make("CreateAccount", &["name=a", &format!("password={given}")]).unwrap();
            assert_eq!(made.params["password"], digest.as_str());
        }
    }
}
