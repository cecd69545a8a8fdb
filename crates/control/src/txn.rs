//! A transaction, with the rules that hold for every resource: names, ids, references, fences.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::Arc,
};

use model::{
    Code, Error, Id, Kind, Record, Resource, Result, Timestamp, resource::host::Host,
    status::HostStatus,
};
use serde_json::Value;
use store::{Read, Tx};
use uuid::Uuid;

use crate::Call;

/// A store transaction on behalf of a call.
pub struct Txn<'a> {
    tx: &'a mut Tx<Record>,
    call: &'a Call,
    drawn: Cell<u64>,
    /// System tags that somebody asked for, by their position in the call.
    used_tags: RefCell<BTreeSet<usize>>,
}

impl<'a> Txn<'a> {
    /// Runs `call` over `tx`.
    pub fn new(tx: &'a mut Tx<Record>, call: &'a Call) -> Self {
        Self { tx, call, drawn: Cell::new(0), used_tags: RefCell::default() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.call.now
    }

    /// What `host` has reported.
    #[must_use]
    pub fn status(&self, host: Id<Host>) -> &'a HostStatus {
        self.call.board.status(host)
    }

    /// The call's system tags that start with `start`, without it.
    #[must_use]
    pub fn tags(&self, start: &str) -> Vec<&'a str> {
        let mut used = self.used_tags.borrow_mut();
        let tags = self.call.system_tags.iter().enumerate();
        let fitting = tags.filter_map(|(at, tag)| Some((at, tag.strip_prefix(start)?)));
        let (places, rests): (Vec<_>, Vec<_>) = fitting.unzip();
        used.extend(places);
        rests
    }

    /// A system tag that nobody has asked for: nothing came of it.
    #[must_use]
    pub fn unused_tag(&self) -> Option<&'a str> {
        let used = self.used_tags.borrow();
        let mut tags = self.call.system_tags.iter().enumerate();
        tags.find(|(at, _)| !used.contains(at)).map(|(_, tag)| tag.as_str())
    }

    /// The id for what the call creates: the caller's choice, else a new one.
    #[must_use]
    pub fn new_id<R: Resource>(&self) -> Id<R> {
        Id::new(self.call.resource_uuid.unwrap_or_else(|| self.random_uuid()))
    }

    /// A uuid that nobody else has: derived from the call's seed, so that a repeat draws the same.
    #[must_use]
    pub fn random_uuid(&self) -> Uuid {
        self.drawn.set(self.drawn.get() + 1);
        Uuid::new_v5(&self.call.seed, &self.drawn.get().to_be_bytes())
    }

    /// The resource, or [`Code::NotFound`].
    ///
    /// # Errors
    /// When there is none.
    pub fn get<R: Resource>(&self, id: Id<R>) -> Result<R> {
        self.find(id).ok_or_else(|| Error::not_found(R::DEF.name, id))
    }

    /// The resource, if there is one.
    #[must_use]
    pub fn find<R: Resource>(&self, id: Id<R>) -> Option<R> {
        self.record(R::KIND, id.uuid()).and_then(|record| R::from_record(&record).cloned())
    }

    /// The record of any kind, if there is one.
    #[must_use]
    pub fn record(&self, kind: Kind, uuid: Uuid) -> Option<Arc<Record>> {
        self.tx.get(kind, uuid)
    }

    /// Every resource of this kind whose `field` points at `parent`, by uuid.
    #[must_use]
    pub fn children<R: Resource>(&self, field: &str, parent: Uuid) -> Vec<R> {
        let ids: Vec<Uuid> = self.tx.referrers(R::KIND, field, parent).collect();
        ids.into_iter().filter_map(|uuid| self.find(Id::new(uuid))).collect()
    }

    /// How many resources of `kind` point at `parent` with `field`.
    #[must_use]
    pub fn count(&self, kind: Kind, field: &str, parent: Uuid) -> usize {
        self.tx.referrers(kind, field, parent).count()
    }

    /// Makes this transaction conflict with every other one that adds or removes what points at
    /// `parent`. Adding and removing do it for direct parents; a decision that rests on the
    /// members of any other parent must do it itself, or two servers could decide at once.
    pub fn fence<R: Resource>(&mut self, parent: Id<R>) {
        self.tx.fence(&fence(parent.uuid()));
    }

    /// Adds a resource: its uuid and its name must be free; its parents' fences move.
    ///
    /// # Errors
    /// [`Code::UuidTaken`], [`Code::Duplicate`].
    pub fn insert<R: Resource>(&mut self, resource: R) -> Result<Id<R>> {
        let id = resource.id();
        if let Some(other) = self.owner_of_uuid(R::KIND, id.uuid()) {
            let error = Error::new(Code::UuidTaken, format!("a {} {id} exists", other.def().name));
            return Err(error
                .on_field("resourceUuid")
                .hint("choose another uuid, or leave it out"));
        }
        for (_, parent) in resource.references() {
            self.tx.fence(&fence(parent));
        }
        let record = resource.into_record();
        if let Some((claim, name)) = name_claim(&record) {
            self.claim(&claim, id.uuid()).map_err(|owner| {
                let (kind, other) = (R::DEF.name, owner.simple());
                let error = Error::new(
                    Code::Duplicate,
                    format!("the name \"{name}\" belongs to the {kind} {other} already"),
                );
                error.on_field("name").hint("choose another name, or delete the other one first")
            })?;
        }
        self.tx.put(record);
        Ok(id)
    }

    /// Changes a resource that exists. Its name stays.
    pub fn update<R: Resource>(&mut self, resource: R) {
        self.tx.put(resource.into_record());
    }

    /// The kind that has a resource with this uuid. Among what users see, a uuid names one thing:
    /// `DeleteL2Network` takes it without its kind, and hosts report by it alone.
    fn owner_of_uuid(&self, kind: Kind, uuid: Uuid) -> Option<Kind> {
        let shown = |other: &Kind| *other == kind || !other.def().path.is_empty();
        Kind::ALL.iter().copied().filter(shown).find(|other| self.tx.get(*other, uuid).is_some())
    }

    /// Removes a resource and gives up its name; its own and its parents' fences move.
    pub fn remove<R: Resource>(&mut self, id: Id<R>) {
        let Some(record) = self.tx.get(R::KIND, id.uuid()) else { return };
        self.tx.fence(&fence(id.uuid()));
        for (_, parent) in record.references() {
            self.tx.fence(&fence(parent));
        }
        if let Some((claim, _)) = name_claim(&record) {
            self.tx.release_claim(&claim);
        }
        self.tx.delete(R::KIND, id.uuid());
    }

    /// Refuses when any resource still points at this one, `owned` kinds aside.
    ///
    /// # Errors
    /// [`Code::InUse`], naming what and how many.
    pub fn must_be_unused<R: Resource>(&self, id: Id<R>, owned: &[Kind]) -> Result<()> {
        for kind in Kind::ALL.iter().filter(|kind| !owned.contains(kind)) {
            let pointing = kind.def().fields.iter().filter(|field| field.refs == Some(R::KIND));
            for field in pointing.filter(|field| field.name != "uuid") {
                let count = self.count(*kind, field.name, id.uuid());
                if count > 0 {
                    let (this, other) = (R::DEF.name, kind.def().name);
                    let message = format!("{this} {id} is used by {count} {other}");
                    let hint =
                        format!("delete them first: Query{other} {}={id} lists them", field.name);
                    return Err(Error::new(Code::InUse, message).hint(hint));
                }
            }
        }
        Ok(())
    }

    /// Takes a claim key that nobody holds. Stricter than the store's own claim: a caller may
    /// choose a uuid again, so what `owner` seems to hold already may still rest for its namesake
    /// that was deleted.
    ///
    /// # Errors
    /// Its present owner.
    pub fn claim(&mut self, key: &str, owner: Uuid) -> std::result::Result<(), Uuid> {
        match self.tx.claim_owner(key) {
            Some(other) => Err(other),
            None => self.tx.claim(key, owner).map_err(|taken| taken.owner),
        }
    }

    /// Who owns a claim key.
    #[must_use]
    pub fn claim_owner(&self, key: &str) -> Option<Uuid> {
        self.tx.claim_owner(key)
    }

    /// Every claim key with this start, in order.
    pub fn claims_with_prefix(&self, prefix: &str) -> impl Iterator<Item = String> {
        let keys: Vec<String> = self.tx.claims_with_prefix(prefix).map(|(key, _)| key).collect();
        keys.into_iter()
    }

    /// Gives up a claim key.
    pub fn release_claim(&mut self, key: &str) {
        self.tx.release_claim(key);
    }

    /// The next number of a sequence that starts at 1 and never repeats.
    ///
    /// # Errors
    /// [`Code::Internal`] after 2^32 numbers.
    pub fn number(&mut self, sequence: &str) -> Result<u32> {
        let next = self.tx.counter(sequence);
        let spent = || Error::new(Code::Internal, format!("all numbers of {sequence} are spent"));
        u32::try_from(next).map_err(|_| spent())
    }
}

/// The fence of all that points at a resource.
fn fence(parent: Uuid) -> String {
    parent.simple().to_string()
}

/// The claim that keeps a record's name unique, and the name; `None` where names may repeat.
fn name_claim(record: &Record) -> Option<(String, String)> {
    let def = record.kind().def();
    let scope = def.name_scope?;
    let json = record.to_json().ok()?;
    let name = json.get("name").and_then(Value::as_str)?;
    let within = json.get(scope).and_then(Value::as_str).unwrap_or_default();
    Some((format!("name/{}/{within}/{name}", def.name), name.to_owned()))
}
