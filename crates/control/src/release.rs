//! Releases: what hosts may still hold is not given out again.

use std::collections::BTreeSet;

use model::{
    Id, Result,
    resource::{host::Host, l2_vxlan_network::L2VxlanNetwork, release::Release, vm_nic::VmNic},
};

use crate::Txn;

/// Gives up `claims` of a network once every host that holds the network has let go of what is
/// removed now; at once, when no host holds it. Call it before the removal.
pub(crate) fn when_let_go(
    txn: &mut Txn<'_>,
    l2: Id<L2VxlanNetwork>,
    claims: Vec<String>,
) -> Result<()> {
    let hosts = holders(txn, l2);
    if hosts.is_empty() {
        claims.iter().for_each(|claim| txn.release_claim(claim));
        return Ok(());
    }
    let release = Release {
        uuid: Id::new(txn.random_uuid()),
        l2_network_uuid: l2,
        claims,
        hosts: hosts.into_iter().collect(),
        create_date: txn.now(),
    };
    txn.insert(release).map(|_| ())
}

/// The hosts that hold a network: those on which it has NICs, and those that have not yet
/// acknowledged that it has none there any more.
fn holders(txn: &Txn<'_>, l2: Id<L2VxlanNetwork>) -> BTreeSet<Id<Host>> {
    let nics = txn.children::<VmNic>("l2NetworkUuid", l2.uuid());
    let releases = txn.children::<Release>("l2NetworkUuid", l2.uuid());
    let leaving = releases.into_iter().flat_map(|release| release.hosts);
    nics.into_iter().filter_map(|nic| nic.host_uuid).chain(leaving).collect()
}
