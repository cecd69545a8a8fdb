//! What holds for rows of every kind: claims, references, owners.

use std::collections::BTreeMap;

use model::{Claim, Kind, Plain, Record, record::OWNER, relation::OnDelete};
use store::{Key, Read, Snapshot};
use uuid::Uuid;

use super::{Report, Rule};

/// A claim, and a row that has it or holds it.
type Held = (Claim, (Kind, Uuid));

/// What rows claim.
pub(super) fn claimed(snapshot: &Snapshot<Record>) -> impl Iterator<Item = Held> {
    let rows = Kind::ALL.iter().flat_map(|kind| snapshot.list(*kind));
    rows.flat_map(|row| {
        let holder = (row.kind(), row.uuid());
        row.claims().into_iter().map(move |claim| (claim, holder))
    })
}

/// A claim is held by the one row that has it, and by no other.
pub(super) fn claims(
    claimed: impl Iterator<Item = Held>,
    held: impl Iterator<Item = Held>,
    report: &mut Report,
) {
    let mut open: BTreeMap<Claim, (Kind, Uuid)> = BTreeMap::new();
    for (claim, holder) in claimed {
        let name = claim.to_string();
        if let Some(other) = open.insert(claim, holder) {
            report.add(Rule::Claim, holder, format!("{name} is also claimed by {}", the(other)));
        }
    }
    for (claim, holder) in held {
        match open.remove(&claim) {
            Some(row) if row == holder => {}
            Some(row) => {
                let text = format!("claims {claim}, which is held for {}", the(holder));
                report.add(Rule::Claim, row, text);
            }
            None => report.add(Rule::Claim, holder, format!("{claim} is held for it in vain")),
        }
    }
    for (claim, row) in open {
        report.add(Rule::Claim, row, format!("claims {claim}, which is not held for it"));
    }
}

/// Every reference leads somewhere, is found from there, and nothing else is.
pub(super) fn references(snapshot: &Snapshot<Record>, report: &mut Report) {
    let exists = |uuid| Kind::ALL.iter().any(|kind| snapshot.get(*kind, uuid).is_some());
    for row in Kind::ALL.iter().flat_map(|kind| snapshot.list(*kind)) {
        let own = (row.kind(), row.uuid());
        for (field, value) in row.index() {
            let Plain::Uuid(to) = value else { continue };
            // Whose owner is missing, another rule tells.
            let must_exist = field != OWNER && row.on_delete(field) != OnDelete::Keep;
            if must_exist && !exists(to) {
                let text = format!("its {field} {} does not exist", to.simple());
                report.add(Rule::Reference, own, text);
            }
            let key = Key::Uuid(to);
            if !snapshot.find(own.0, field, &key).any(|from| from == own.1) {
                let text = format!("is not found as {field} of {}", to.simple());
                report.add(Rule::Index, own, text);
            }
        }
        for (kind, field, uuid) in snapshot.pointing(own.1) {
            let from = snapshot.get(kind, uuid);
            let entry = (field, Plain::Uuid(own.1));
            if !from.is_some_and(|from| from.index().contains(&entry)) {
                let text = format!("{} is found as {field} of it, and is not", the((kind, uuid)));
                report.add(Rule::Index, own, text);
            }
        }
    }
}

/// What users see is somebody's.
pub(super) fn owners(snapshot: &Snapshot<Record>, report: &mut Report) {
    let of_accounts = |kind: &&Kind| {
        let is_the_platforms = matches!(kind, Kind::Account | Kind::GlobalConfig | Kind::Audit);
        kind.def().is_shown() && !is_the_platforms
    };
    let rows = Kind::ALL.iter().filter(of_accounts).flat_map(|kind| snapshot.list(*kind));
    for row in rows {
        let text = match row.meta.owner {
            None => "nobody owns it".to_owned(),
            Some(owner) if snapshot.get(Kind::Account, owner.uuid()).is_none() => {
                format!("its owner {owner} does not exist")
            }
            Some(_) => continue,
        };
        report.add(Rule::Owner, (row.kind(), row.uuid()), text);
    }
}

/// An instance is on one host, and no other one may still have it.
pub(super) fn places(snapshot: &Snapshot<Record>, report: &mut Report) {
    let mut places = BTreeMap::new();
    for (claim, holder) in claimed(snapshot) {
        let Claim::Running(host, instance) = claim else { continue };
        if let Some(other) = places.insert(instance, host) {
            let text = format!("instance {instance} may be on host {host} and on host {other}");
            report.add(Rule::Place, holder, text);
        }
    }
}

/// A row, for people.
pub(super) fn the((kind, uuid): (Kind, Uuid)) -> String {
    format!("{} {}", kind.def().name, uuid.simple())
}

#[cfg(test)]
mod tests {
    use model::Id;

    use super::*;

    #[test]
    fn what_the_store_holds_and_no_row_has_is_named_and_the_reverse() {
        let (a, b) = ((Kind::Zone, Uuid::from_u128(1)), (Kind::Zone, Uuid::from_u128(2)));
        let nowhere = (Id::new(Uuid::nil()), Id::new(Uuid::nil()));
        let vni = |n| Claim::PoolVni(nowhere.0, nowhere.1, n);
        let found = |claimed: &[Held], held: &[Held]| {
            let mut report = Report::default();
            claims(claimed.iter().cloned(), held.iter().cloned(), &mut report);
            report.findings.into_iter().map(|it| (it.uuid, it.text)).collect::<Vec<_>>()
        };
        assert_eq!(found(&[(vni(7), a)], &[(vni(7), a)]), []);
        let leak = "VNI 7 is held for it in vain".to_owned();
        assert_eq!(found(&[], &[(vni(7), a)]), [(a.1, leak)]);
        let loss = "claims VNI 7, which is not held for it".to_owned();
        assert_eq!(found(&[(vni(7), a)], &[]), [(a.1, loss)]);
        let wrong = format!("claims VNI 7, which is held for {}", the(b));
        assert_eq!(found(&[(vni(7), a)], &[(vni(7), b)]), [(a.1, wrong)]);
        let twice = format!("VNI 7 is also claimed by {}", the(a));
        assert_eq!(found(&[(vni(7), a), (vni(7), b)], &[(vni(7), b)]), [(b.1, twice)]);
    }
}
