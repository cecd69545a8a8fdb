//! The doctor: whether everything that is allocated is referenced, and everything that is
//! referenced is allocated.
//!
//! Its rules hold after every message, whatever is sent; random histories check that. So a finding
//! is a defect of netloom's, or a damaged database. It only looks.

mod addresses;
mod prefixes;
mod rows;

use model::{Kind, Record, Result, resource::doctor::GetDoctorReport};
use serde_json::{Value, json};
use store::{Read, Snapshot};
use uuid::Uuid;

use crate::{
    Look,
    operation::{Operation, look},
};

/// Most findings that a report names; it counts them all.
pub const NAMED_MAX: usize = 1000;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![look(report)]
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What a row claims, the store holds for it, and for nobody else.
    Claim,
    /// What a row points at is there.
    Reference,
    /// What points at a row is found from there, and nothing else is.
    Index,
    /// What users see is somebody's.
    Owner,
    /// An address lies in its range, and belongs to what has it.
    Address,
    /// A NIC has the addresses that say so, and is where its instance is.
    Nic,
    /// Ranges do not overlap where they must not, and what was taken from one lies in one.
    Range,
    /// An instance is on one host, and no other one may still have it.
    Place,
    /// What a NIC routes for nobody else is, or has.
    Prefix,
}

impl Rule {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Rule::Claim => "Claim",
            Rule::Reference => "Reference",
            Rule::Index => "Index",
            Rule::Owner => "Owner",
            Rule::Address => "Address",
            Rule::Nic => "Nic",
            Rule::Range => "Range",
            Rule::Place => "Place",
            Rule::Prefix => "Prefix",
        }
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What does not hold.
    pub rule: Rule,
    /// The resource's kind.
    pub kind: Kind,
    /// The resource.
    pub uuid: Uuid,
    /// What is wrong with it.
    pub text: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The revision that was looked at.
    pub revision: u64,
    /// How many rows were looked at.
    pub rows: u64,
    /// The findings, [`NAMED_MAX`] at most.
    pub findings: Vec<Finding>,
    /// How many there are.
    pub total: usize,
}

impl Report {
    /// Whether everything is as it must be.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.total == 0
    }

    /// As the API shows it.
    #[must_use]
    pub fn show(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "rule": finding.rule.as_str(),
                "resourceType": finding.kind.def().vo(),
                "resourceUuid": finding.uuid.simple().to_string(),
                "text": finding.text,
            })
        });
        json!({
            "sound": self.is_sound(),
            "revision": self.revision,
            "rows": self.rows,
            "total": self.total,
            "findings": findings.collect::<Vec<_>>(),
        })
    }

    fn add(&mut self, rule: Rule, (kind, uuid): (Kind, Uuid), text: String) {
        self.total += 1;
        if self.findings.len() < NAMED_MAX {
            self.findings.push(Finding { rule, kind, uuid, text });
        }
    }
}

/// Looks at everything.
#[must_use]
pub fn examine(snapshot: &Snapshot<Record>) -> Report {
    let rows = Kind::ALL.iter().map(|kind| snapshot.total(*kind)).sum();
    let mut report = Report { revision: snapshot.revision(), rows, ..Report::default() };
    rows::claims(rows::claimed(snapshot), snapshot.held(), &mut report);
    rows::references(snapshot, &mut report);
    rows::owners(snapshot, &mut report);
    rows::places(snapshot, &mut report);
    addresses::used(snapshot, &mut report);
    addresses::nics(snapshot, &mut report);
    addresses::ranges(snapshot, &mut report);
    addresses::vnis(snapshot, &mut report);
    addresses::tunnel_ends(snapshot, &mut report);
    prefixes::prefixes(snapshot, &mut report);
    report
}

fn report(look: &Look<'_>, _: GetDoctorReport) -> Result<Value> {
    Ok(examine(look.snapshot()).show())
}
