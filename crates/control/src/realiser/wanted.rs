//! What realisers out of process are to realise, as the store says.

use model::{
    Id, Kind, Record, Resource, Timestamp,
    resource::{
        cluster::Cluster,
        host::Host,
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        l2_realiser::{L2Realisation, L2Realiser},
        vm_nic::VmNic,
    },
};
use store::{Change, Read, Snapshot};

use crate::l2_attachment;

/// Something to be realised by a realiser, whether there is a row for it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) realiser: Id<L2Realiser>,
    pub(super) l2: Id<L2Network>,
    pub(super) cluster: Id<Cluster>,
    /// On a host; else in the cluster.
    pub(super) host: Option<Id<Host>>,
}

impl Place {
    pub(super) fn of(row: &L2Realisation) -> Self {
        Self {
            realiser: row.realiser_uuid,
            l2: row.l2_network_uuid,
            cluster: row.cluster_uuid,
            host: row.in_use_on_host_uuid,
        }
    }

    pub(super) fn row(&self) -> L2Realisation {
        L2Realisation::new(self.realiser, self.l2, (self.cluster, self.host))
    }

    /// What is fenced by whoever adds to it or takes away from it what makes it wanted.
    pub(super) fn fence(&self) -> String {
        self.host.map_or(self.cluster.uuid(), Id::uuid).simple().to_string()
    }

    /// Whether the network is there.
    pub(super) fn is_there(&self, read: &impl Read<Record>) -> bool {
        let Some(host) = self.host else {
            let attached = l2_attachment::ref_id(self.l2, self.cluster);
            return read.get(Kind::L2NetworkClusterRef, attached.uuid()).is_some();
        };
        let relations = [VmNic::HOST.field, VmNic::PENDING_HOST.field];
        relations.into_iter().any(|field| {
            let mut nics = read.referrers(Kind::VmNic, field, host.uuid());
            nics.any(|nic| {
                let record = read.get(Kind::VmNic, nic);
                record
                    .as_deref()
                    .and_then(VmNic::of)
                    .is_some_and(|it| it.l2_network_uuid == self.l2)
            })
        })
    }

    /// Whether it is to be realised: something is there, or a call waits for it.
    pub(super) fn is_wanted(
        &self,
        read: &impl Read<Record>,
        row: Option<&L2Realisation>,
        now: Timestamp,
    ) -> bool {
        row.is_some_and(|row| row.asked_until > now) || self.is_there(read)
    }
}

/// All places of a realiser: those that have rows, and those where a network of its is.
pub(super) fn of_realiser(snapshot: &Snapshot<Record>, realiser: &L2Realiser) -> Vec<Place> {
    let (field, id) = (L2Realisation::REALISER.field, realiser.uuid);
    let rows = snapshot.referrers(Kind::L2Realisation, field, id.uuid());
    let rows = rows.filter_map(|row| snapshot.get(Kind::L2Realisation, row));
    let mut places: Vec<Place> =
        rows.filter_map(|row| L2Realisation::of(&row).map(Place::of)).collect();
    let l2s = snapshot.list(Kind::L2Network);
    let l2s = l2s.filter_map(|row| L2Network::of(&row).cloned());
    for l2 in l2s.filter(|l2| realiser.realises(l2)).map(|l2| l2.uuid) {
        let of_l2 = |kind, field| {
            let ids: Vec<_> = snapshot.referrers(kind, field, l2.uuid()).collect();
            ids.into_iter().filter_map(move |id| snapshot.get(kind, id))
        };
        for row in of_l2(Kind::L2NetworkClusterRef, L2NetworkClusterRef::L2_NETWORK.field) {
            let attached = L2NetworkClusterRef::of(&row);
            let place = |it: &L2NetworkClusterRef| Place {
                realiser: id,
                l2,
                cluster: it.cluster_uuid,
                host: None,
            };
            places.extend(attached.map(place));
        }
        for row in of_l2(Kind::VmNic, VmNic::L2_NETWORK.field) {
            places.extend(VmNic::of(&row).into_iter().flat_map(|nic| of_nic(snapshot, nic, id)));
        }
    }
    places.sort_unstable();
    places.dedup();
    places
}

fn of_nic(snapshot: &Snapshot<Record>, nic: &VmNic, realiser: Id<L2Realiser>) -> Vec<Place> {
    let hosts = [nic.host_uuid, nic.pending_host_uuid].into_iter().flatten();
    let place = |host: Id<Host>| {
        let l2 = nic.l2_network_uuid;
        let cluster = match snapshot.get(Kind::Host, host.uuid()) {
            Some(record) => Host::of(&record)?.cluster_uuid,
            None => {
                let nowhere = Id::new(uuid::Uuid::nil());
                let id = L2Realisation::id_of(realiser, l2, (nowhere, Some(host)));
                let row = snapshot.get(Kind::L2Realisation, id.uuid())?;
                L2Realisation::of(&row)?.cluster_uuid
            }
        };
        Some(Place { realiser, l2, cluster, host: Some(host) })
    };
    hosts.filter_map(place).collect()
}

/// The places that these changes may concern. Without realisers it costs a look-up.
pub(super) fn concerned(snapshot: &Snapshot<Record>, changes: &[Change<Record>]) -> Vec<Place> {
    if snapshot.total(Kind::L2Realiser) == 0 {
        return Vec::new();
    }
    let all = snapshot.list(Kind::L2Realiser);
    let realisers: Vec<L2Realiser> =
        all.filter_map(|record| L2Realiser::of(&record).cloned()).collect();
    let mut places = Vec::new();
    for change in changes {
        let both = [change.before.as_deref(), change.after.as_deref()];
        match change.kind {
            Kind::L2Realisation => {
                let [before, after] = both.map(|row| row.and_then(L2Realisation::of));
                // What the last try has come to is nothing new.
                let asked = |row: Option<&L2Realisation>| row.map(|row| row.asked_until);
                if asked(before) != asked(after) {
                    places.extend(after.map(Place::of));
                }
            }
            Kind::L2Realiser => {
                let changed = realisers.iter().filter(|it| it.uuid.uuid() == change.id);
                places.extend(changed.flat_map(|realiser| of_realiser(snapshot, realiser)));
            }
            Kind::L2NetworkClusterRef => {
                for row in both.into_iter().flatten().filter_map(L2NetworkClusterRef::of) {
                    let (l2, cluster) = (row.l2_network_uuid, row.cluster_uuid);
                    let place =
                        |it: &L2Realiser| Place { realiser: it.uuid, l2, cluster, host: None };
                    places.extend(realisers.iter().map(place));
                }
            }
            Kind::VmNic => {
                for nic in both.into_iter().flatten().filter_map(VmNic::of) {
                    places.extend(realisers.iter().flat_map(|it| of_nic(snapshot, nic, it.uuid)));
                }
            }
            Kind::Host | Kind::Cluster | Kind::L2Network | Kind::Vtep => {
                places.extend(around(snapshot, change, &realisers));
            }
            _ => {}
        }
    }
    places
}

/// The rows that show something of what has changed: of its cluster, or of the network itself. Looks
/// at all rows: hosts, clusters and VTEPs change seldom, and networks by administrators.
fn around(
    snapshot: &Snapshot<Record>,
    change: &Change<Record>,
    realisers: &[L2Realiser],
) -> Vec<Place> {
    let mut concerned: Vec<uuid::Uuid> = vec![change.id];
    for record in [&change.before, &change.after].into_iter().flatten() {
        concerned.extend(Host::of(record).map(|host| host.cluster_uuid.uuid()));
        let vtep = model::resource::vtep::Vtep::of(record);
        let host = vtep.and_then(|vtep| snapshot.get(Kind::Host, vtep.host_uuid.uuid()));
        let host = host.as_deref().and_then(Host::of);
        concerned.extend(host.map(|host| host.cluster_uuid.uuid()));
    }
    let is_it = |place: &Place| {
        concerned.contains(&place.cluster.uuid()) || concerned.contains(&place.l2.uuid())
    };
    let field = L2Realisation::REALISER.field;
    let rows = realisers.iter().flat_map(|realiser| {
        let ids = snapshot.referrers(Kind::L2Realisation, field, realiser.uuid.uuid());
        ids.collect::<Vec<_>>()
    });
    let rows = rows.filter_map(|id| snapshot.get(Kind::L2Realisation, id));
    rows.filter_map(|row| L2Realisation::of(&row).map(Place::of)).filter(is_it).collect()
}
