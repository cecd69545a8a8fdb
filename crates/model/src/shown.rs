//! What the API shows of a resource beside its own fields: the paths under which it is found, what
//! is computed for an inventory, and the resources that hang on it.

use std::sync::Arc;

use uuid::Uuid;

use crate::{Claim, FieldDef, Kind, Plain, Record, Timestamp, status::Board};

/// What a computed field may look at.
pub trait View {
    /// The resource, if there is one.
    fn get(&self, kind: Kind, uuid: Uuid) -> Option<Arc<Record>>;

    /// Some resources of `kind` whose `field` points at `parent`, by uuid: `max` at most.
    fn pointing(&self, kind: Kind, field: &str, parent: Uuid, max: usize) -> Vec<Arc<Record>>;

    /// The same, of those alone that whoever looks may see.
    fn hanging(&self, kind: Kind, field: &str, parent: Uuid, max: usize) -> Vec<Arc<Record>>;

    /// Whether somebody holds this.
    fn is_claimed(&self, claim: &Claim) -> bool {
        self.holder(claim).is_some()
    }

    /// Who holds a claim.
    fn holder(&self, claim: &Claim) -> Option<(Kind, Uuid)>;

    /// The first claim from `low` to `high` that somebody holds, and who.
    fn first_held(&self, low: &Claim, high: &Claim) -> Option<(Claim, (Kind, Uuid))>;

    /// The store's revision.
    fn revision(&self) -> u64;

    /// What hosts report.
    fn board(&self) -> &Board;

    /// Now; the beginning of time for whoever looks without a clock.
    fn now(&self) -> Timestamp;
}

/// A name and a path under which a resource is queried. A resource has several when ZStack has a
/// message for each of its types: `QueryL2Network`, `QueryL2VxlanNetwork`.
#[derive(Debug)]
pub struct Face {
    /// ZStack's name, such as `L2VxlanNetwork`: `QueryL2VxlanNetwork`.
    pub name: &'static str,
    /// Where it is queried, such as `/l2-networks/vxlan`.
    pub path: &'static str,
    /// A field, and the value of it that a resource must have to be found here.
    pub only: Option<(&'static str, &'static str)>,
}

/// A field of the inventory that no record holds.
#[derive(Debug)]
pub struct Derived {
    /// Its name, type and meaning.
    pub field: FieldDef,
    /// Computes it.
    pub read: fn(&Record, &dyn View) -> Plain<'static>,
    /// Paths, such as `usedIps.ip`, that end in indexed columns. A resource with some value here
    /// has that value at the end of one of the paths. Queries use this to find candidates instead
    /// of looking at every resource.
    pub found_by: &'static [&'static str],
    /// The types (values of the field `type`) that have it; none: every one.
    pub only: &'static [&'static str],
}

impl Derived {
    /// What its host says of a resource that cannot be what it should; `null` if nothing.
    pub const NOT_IN_EFFECT: Self = Self {
        field: FieldDef::of::<Option<String>>(
            "notInEffect",
            "Why it is not on its host as it should be, if the host says so.",
        ),
        read: |record, view| {
            let reason = record
                .home()
                .and_then(|host| view.board().status(host).not_in_effect(host, record.uuid()));
            reason.map_or(Plain::Null, |reason| Plain::Text(reason.into()))
        },
        found_by: &[],
        only: &[],
    };

    /// A list that ZStack's clients expect and that is always empty.
    #[must_use]
    pub const fn nothing(name: &'static str, doc: &'static str) -> Self {
        let field = FieldDef::of::<Vec<String>>(name, doc);
        Self { field, read: |_, _| Plain::List(Vec::new()), found_by: &[], only: &[] }
    }
}

/// Resources that hang on another one: a list in its inventory, or only a name in the paths of
/// queries (`vmNics.ip`).
#[derive(Debug)]
pub struct Child {
    /// Its name, such as `vmNics`.
    pub name: &'static str,
    /// What hangs there.
    pub kind: Kind,
    /// Their field that points here.
    pub by: &'static str,
    /// The field of theirs that orders the list; `None`: the uuid does.
    pub order: Option<&'static str>,
    /// How the inventory shows them.
    pub shown: Shown,
    /// The types that have it; none: every one.
    pub only: &'static [&'static str],
}

impl Child {
    /// Only a name in the paths of queries.
    #[must_use]
    pub const fn unseen(name: &'static str, kind: Kind, by: &'static str) -> Self {
        Self { name, kind, by, order: None, shown: Shown::No, only: &[] }
    }
}

/// How an inventory shows the resources that hang on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// With all that they show themselves.
    Whole,
    /// With the fields that are in their records.
    Fields,
    /// Not at all: only queries name them.
    No,
}

/// Most resources that one list of an inventory shows; longer ones are cut, and the inventory says
/// so in `truncated`. They can be queried by themselves, page by page.
pub const LIST_MAX: usize = 1000;
