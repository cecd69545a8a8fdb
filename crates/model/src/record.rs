//! A resource as the store keeps it: its fields, and what every resource has.
//!
//! The stored form has the version of its kind in it. A later release reads what any earlier one
//! wrote: each kind lists the steps that bring an old form up to date ([`Upcast`]).

use serde::{Deserialize, Serialize, de::Error as _};
use serde_json::{Map, Value, value::RawValue};
use uuid::Uuid;

use crate::{
    AnyId, FieldDef, Id, Kind, Plain, Resource, Timestamp,
    claim::Claim,
    declare::Column,
    relation::OnDelete,
    resource::{Body, account::Account, host::Host, used_ip::UsedIp},
};

/// A resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What every resource has.
    pub meta: Meta,
    /// Its own fields.
    pub body: Body,
}

/// What every resource has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Whose it is; `None`: the platform's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Id<Account>>,
    /// When it was made.
    pub created: Timestamp,
    /// When it last changed.
    pub changed: Timestamp,
}

/// The field of [`Meta`] that points at the owner. Deleting an account deletes what it owns.
pub const OWNER: &str = "accountUuid";

/// The field of a resource that is not counted against its owner's quota, which names that owner.
pub const UNCOUNTED: &str = "uncountedOf";

/// The field that names the host on which a resource lives.
const HOME: &str = "hostUuid";

/// Columns of every resource that is shown, in the order of the inventory, after its own.
pub const COMMON: &[Column] = &[
    Column::computed(FieldDef::of::<Timestamp>("createDate", "When it was made."), |record| {
        Plain::Time(record.meta.created)
    }),
    Column::computed(FieldDef::of::<Timestamp>("lastOpDate", "When it last changed."), |record| {
        Plain::Time(record.meta.changed)
    }),
];

/// A step from one version of a kind's stored form to the next.
pub type Upcast = fn(&mut Map<String, Value>);

#[derive(Serialize, Deserialize)]
struct Stored<B> {
    kind: Kind,
    version: usize,
    meta: Meta,
    body: B,
}

impl Record {
    /// A resource, made now.
    pub fn new<R: Resource>(resource: R, meta: Meta) -> Self {
        Self { meta, body: resource.into_body() }
    }

    /// Which resource it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// Its uuid.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.body.uuid()
    }

    /// What it holds alone.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        self.body.claims()
    }

    /// The value of a column, which must be one of its kind's.
    #[must_use]
    pub fn read(&self, column: &Column) -> Plain<'_> {
        (column.read)(self)
    }

    /// The value of a field by its name in the API; nothing for one that its kind does not have.
    #[must_use]
    pub fn field(&self, name: &str) -> Plain<'_> {
        let column = self.kind().def().column(name);
        column.map_or(Plain::Null, |column| self.read(column))
    }

    /// What it is found by: each reference and each other indexed field, with every value that it
    /// has.
    #[must_use]
    pub fn index(&self) -> Vec<(&'static str, Plain<'_>)> {
        let mut found = Vec::new();
        for column in self.kind().def().columns().filter(|column| column.is_indexed()) {
            match self.read(column) {
                Plain::Null => {}
                Plain::List(items) => {
                    found.extend(items.into_iter().map(|item| (column.field.name, item)));
                }
                one => found.push((column.field.name, one)),
            }
        }
        found.extend(self.meta.owner.map(|owner| (OWNER, Plain::Uuid(owner.uuid()))));
        found
    }

    /// The host on which it lives.
    #[must_use]
    pub fn home(&self) -> Option<Id<Host>> {
        match self.kind().def().home.then(|| self.field(HOME)) {
            Some(Plain::Uuid(host)) => Some(Id::new(host)),
            _ => None,
        }
    }

    /// What it is a part of.
    #[must_use]
    pub fn whole(&self) -> Option<AnyId> {
        let part = self.kind().def().part()?.part?;
        part(self)
    }

    /// The uuid by which hosts know it. An address has none of its own there: it is part of its
    /// NIC, and that of DHCP of its L3 network.
    #[must_use]
    pub fn object(&self) -> Uuid {
        match UsedIp::of(self) {
            Some(used) if used.used_by.kind == Kind::DhcpServer => used.l3_network_uuid.uuid(),
            Some(used) => used.used_by.uuid,
            None => self.uuid(),
        }
    }

    /// What becomes of it when what its `field` points at is deleted.
    #[must_use]
    pub fn on_delete(&self, field: &str) -> OnDelete {
        match (field, self.kind()) {
            // An account may have more of them than one deletion takes. They are forgotten soon.
            (OWNER, Kind::Job) => return OnDelete::Keep,
            (OWNER, _) => return OnDelete::Cascade,
            _ => {}
        }
        let column = self.kind().def().column(field);
        column.and_then(|column| column.on_delete).unwrap_or(OnDelete::Keep)
    }

    /// The same resource whose `field` no longer points at `gone`; `None` when the field cannot be
    /// empty.
    #[must_use]
    pub fn detached(&self, field: &str, gone: Uuid) -> Option<Self> {
        let column = self.kind().def().column(field)?;
        let mut changed = self.clone();
        (column.detach)(&mut changed, gone).then_some(changed)
    }

    /// The stored form.
    ///
    /// # Errors
    /// Never for the resources of this crate: all their keys are strings.
    pub fn encode(&self) -> serde_json::Result<Box<RawValue>> {
        let (kind, body) = (self.kind(), self.body.encode()?);
        let version = kind.def().version();
        serde_json::value::to_raw_value(&Stored { kind, version, meta: self.meta, body })
    }

    /// Reads the stored form of this release or of an earlier one.
    ///
    /// # Errors
    /// When it is damaged, or was written by a later release.
    pub fn decode(json: &RawValue) -> serde_json::Result<Self> {
        let stored: Stored<Box<RawValue>> = serde_json::from_str(json.get())?;
        let (kind, def) = (stored.kind, stored.kind.def());
        let body = match stored.version {
            version if version == def.version() => Body::decode(kind, &stored.body)?,
            version if version == 0 || version > def.version() => {
                let (name, known) = (def.name, def.version());
                let text = format!("{name} has version {version}, this release knows {known}");
                return Err(serde_json::Error::custom(text));
            }
            version => Body::decode(kind, &upcast(def.upcasts, version, &stored.body)?)?,
        };
        Ok(Self { meta: stored.meta, body })
    }
}

fn upcast(steps: &[Upcast], version: usize, body: &RawValue) -> serde_json::Result<Box<RawValue>> {
    let mut fields: Map<String, Value> = serde_json::from_str(body.get())?;
    // Step 0 leads from version 1 to version 2.
    steps.iter().skip(version.saturating_sub(1)).for_each(|step| step(&mut fields));
    serde_json::value::to_raw_value(&fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::zone::{EnableState, Zone, ZoneType};

    fn zone() -> Record {
        let zone = Zone {
            uuid: Id::new(Uuid::from_u128(1)),
            name: "z".into(),
            description: None,
            state: EnableState::Enabled,
            zone_type: ZoneType::Zstack,
            is_default: false,
        };
        let owner = Some(Id::new(Uuid::from_u128(2)));
        Record::new(zone, Meta { owner, created: Timestamp(3), changed: Timestamp(4) })
    }

    #[test]
    fn the_stored_form_is_read_back_and_names_its_version() {
        let json = zone().encode().unwrap();
        assert!(json.get().contains("\"version\":1"), "{json}");
        assert_eq!(Record::decode(&json).unwrap(), zone());
    }

    #[test]
    fn what_a_later_release_wrote_is_refused() {
        let json = zone().encode().unwrap().get().replace("\"version\":1", "\"version\":9");
        let error = Record::decode(&RawValue::from_string(json).unwrap()).unwrap_err();
        assert!(error.to_string().contains("Zone has version 9"), "{error}");
    }

    #[test]
    fn old_forms_take_every_step_from_their_version_on() {
        fn first(fields: &mut Map<String, Value>) {
            fields.insert("one".into(), fields.len().into());
        }
        fn second(fields: &mut Map<String, Value>) {
            fields.insert("two".into(), fields.len().into());
        }
        let body = RawValue::from_string("{}".into()).unwrap();
        let steps: &[Upcast] = &[first, second];
        assert_eq!(upcast(steps, 1, &body).unwrap().get(), r#"{"one":0,"two":1}"#);
        assert_eq!(upcast(steps, 2, &body).unwrap().get(), r#"{"two":0}"#);
    }

    #[test]
    fn it_is_found_by_its_owner() {
        let owner = Uuid::from_u128(2);
        let record = zone();
        assert!(record.index().contains(&(OWNER, Plain::Uuid(owner))));
        assert_eq!(record.on_delete(OWNER), OnDelete::Cascade);
    }
}
