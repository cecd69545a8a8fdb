//! What brings L2 networks to hosts: one realiser for each type of network, and besides them those
//! out of process that administrators have registered.
//!
//! Each has two moments, as in ZStack: when a network comes into a cluster, and just before the first
//! NIC on it is on a host. A realiser says what stands in the way. The built-in ones go by what hosts
//! have reported; what hosts themselves do is in `compile` and the agent. Those out of process are
//! asked beforehand: a call that meets one that was not asked yet changes nothing, is noted as a row
//! ([`L2Realisation`]), and is done once that is realised ([`ask`]).

mod ask;
mod calls;
mod describe;
mod wanted;

use model::{
    Code, Error, Id, Kind, Record, Resource, Result,
    resource::{
        host::Host,
        l2_attachment::L2NetworkClusterRef,
        l2_network::{L2Network, Segment},
        l2_realiser::{L2Realisation, L2Realiser, RealisationState},
    },
};
use store::Read;

use crate::{Txn, l2_network, vtep};

pub(crate) use ask::{ask, note};
pub use calls::{Call, Calls, Refusal, run};

/// A network that is to come into a cluster.
pub(crate) struct Attaching<'a> {
    pub(crate) l2: &'a L2Network,
    pub(crate) presence: &'a L2NetworkClusterRef,
    /// The hosts of the cluster that are connected.
    pub(crate) hosts: &'a [Host],
}

/// What stands in the way of a network.
pub(crate) enum Obstacle {
    /// A host lacks something: what, and the fix.
    Host(String),
    /// A realiser out of process has not said yes.
    Unrealised(L2Realisation),
}

/// What brings networks to where they are needed.
pub(crate) trait Realiser {
    /// What keeps a network from coming into a cluster.
    fn attach(&self, txn: &Txn<'_>, at: &Attaching<'_>) -> Option<Obstacle>;

    /// What keeps the first NIC on a network from coming to a host.
    fn first_nic(&self, txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<Obstacle>;
}

/// Of physical networks: by an interface of each host.
struct Uplinks;

impl Realiser for Uplinks {
    fn attach(&self, txn: &Txn<'_>, at: &Attaching<'_>) -> Option<Obstacle> {
        lacking(at.hosts, |host| l2_network::why_no_uplink(txn, host, at.l2))
    }

    fn first_nic(&self, txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<Obstacle> {
        l2_network::why_no_uplink(txn, host, l2).map(Obstacle::Host)
    }
}

/// Of pools: by an address of each host, at which tunnels end.
struct Vteps;

impl Realiser for Vteps {
    fn attach(&self, txn: &Txn<'_>, at: &Attaching<'_>) -> Option<Obstacle> {
        let cidr = at.presence.vtep_cidr?;
        lacking(at.hosts, |host| vtep::why_none(txn, host, at.l2.uuid, cidr))
    }

    fn first_nic(&self, _: &Txn<'_>, _: &Host, l2: &L2Network) -> Option<Obstacle> {
        Some(Obstacle::Host(format!("{} is a pool, not a network", l2.uuid)))
    }
}

/// Of networks in tunnels, which are where their pool is: they need the tunnel end that it has there.
struct Tunnels;

impl Realiser for Tunnels {
    fn attach(&self, _: &Txn<'_>, _: &Attaching<'_>) -> Option<Obstacle> {
        None
    }

    fn first_nic(&self, txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<Obstacle> {
        let pool = l2.segment.pool()?;
        vtep::why_no_tunnel(txn, host, pool).map(Obstacle::Host)
    }
}

/// One out of process, whose answers are rows.
struct Outside(L2Realiser);

impl Realiser for Outside {
    fn attach(&self, txn: &Txn<'_>, at: &Attaching<'_>) -> Option<Obstacle> {
        let place = (at.presence.cluster_uuid, None);
        self.unless_realised(txn, L2Realisation::new(self.0.uuid, at.l2.uuid, place))
    }

    fn first_nic(&self, txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<Obstacle> {
        let place = (host.cluster_uuid, Some(host.uuid));
        self.unless_realised(txn, L2Realisation::new(self.0.uuid, l2.uuid, place))
    }
}

impl Outside {
    fn unless_realised(&self, txn: &Txn<'_>, needed: L2Realisation) -> Option<Obstacle> {
        let known = txn.find(needed.uuid).unwrap_or(needed);
        (!holds(&known)).then_some(Obstacle::Unrealised(known))
    }
}

/// Whether a realiser has said yes to the place, be it to what it was before some change there.
fn holds(row: &L2Realisation) -> bool {
    match row.state {
        RealisationState::Realised => true,
        RealisationState::Realising | RealisationState::Refused => row.told_sha256.is_some(),
        RealisationState::Releasing => false,
    }
}

/// The built-in realiser of a type of networks.
fn built_in(segment: &Segment) -> &'static dyn Realiser {
    match segment {
        Segment::NoVlan | Segment::Vlan { .. } => &Uplinks,
        Segment::VxlanPool | Segment::GrePool => &Vteps,
        Segment::Vxlan { .. } | Segment::Gre { .. } => &Tunnels,
    }
}

/// The realisers out of process that are responsible for a network.
fn outside(read: &impl Read<Record>, l2: &L2Network) -> Vec<L2Realiser> {
    let all = read.list(Kind::L2Realiser);
    let all = all.filter_map(|record| L2Realiser::of(&record).cloned());
    all.filter(|realiser| realiser.realises(l2)).collect()
}

/// What the host itself lacks for NICs on a network, and the fix.
pub(crate) fn why_host_cannot(txn: &Txn<'_>, host: &Host, l2: &L2Network) -> Option<String> {
    match built_in(&l2.segment).first_nic(txn, host, l2)? {
        Obstacle::Host(why) => Some(why),
        Obstacle::Unrealised(_) => None,
    }
}

/// Refuses to bring a network into a cluster where something stands in the way.
pub(crate) fn attach(txn: &Txn<'_>, at: &Attaching<'_>) -> Result<()> {
    if let Some(Obstacle::Host(text)) = built_in(&at.l2.segment).attach(txn, at) {
        let hint = "nothing is attached; QueryHost shows the devices of each host";
        return Err(Error::new(Code::OperationFailed, text).on_field("clusterUuid").hint(hint));
    }
    let realisers = outside(&*txn.tx, at.l2).into_iter().map(Outside);
    unrealised(txn, realisers.filter_map(|realiser| realiser.attach(txn, at)))
}

/// Refuses NICs on these networks on a host for which a realiser out of process has not said yes.
pub(crate) fn first_nics(txn: &Txn<'_>, host: &Host, l2s: &[L2Network]) -> Result<()> {
    let of_network = |l2: &L2Network| -> Vec<Obstacle> {
        let realisers = outside(&*txn.tx, l2).into_iter().map(Outside);
        realisers.filter_map(|realiser| realiser.first_nic(txn, host, l2)).collect()
    };
    unrealised(txn, l2s.iter().flat_map(of_network))
}

/// The same for one network on a host that is known by its id.
pub(crate) fn first_nic(txn: &Txn<'_>, host: Id<Host>, l2: Id<L2Network>) -> Result<()> {
    first_nics(txn, &txn.get(host)?, &[txn.get(l2)?])
}

fn unrealised(txn: &Txn<'_>, obstacles: impl Iterator<Item = Obstacle>) -> Result<()> {
    let rows = obstacles.filter_map(|obstacle| match obstacle {
        Obstacle::Unrealised(row) => Some(row),
        Obstacle::Host(_) => None,
    });
    let rows: Vec<L2Realisation> = rows.collect();
    let Some(first) = rows.first() else { return Ok(()) };
    let mut error = refusal(&*txn.tx, first, txn.caller().is_admin());
    error.unrealised = Some(rows.into_boxed_slice());
    Err(error)
}

/// The error of a call that needs something that is not realised.
fn refusal(read: &impl Read<Record>, row: &L2Realisation, is_admin: bool) -> Error {
    let l2 = row.l2_network_uuid;
    if !is_admin {
        // Hosts, and what stands around them, are the administrators'.
        let error = Error::new(Code::NotRealised, format!("L2 network {l2} is not ready there"));
        return error
            .hint("call again later, or ask an administrator: QueryL2Realisation says why");
    }
    let found = read.get(Kind::L2Realiser, row.realiser_uuid.uuid());
    let realiser = found.as_deref().and_then(L2Realiser::of);
    let (name, url) = realiser.map_or(("", ""), |it| (it.name.as_str(), it.url.as_str()));
    let text = format!(
        "L2 network {l2} is not realised {} by realiser {name} ({url}): {}",
        place(row),
        row.error.as_deref().unwrap_or("it has not answered yet")
    );
    let hint = format!(
        "nothing was changed; have it say yes and call again, UpdateL2Realiser with another url, or \
         DeleteL2Realiser {} to do without it",
        row.realiser_uuid
    );
    Error::new(Code::NotRealised, text).hint(hint)
}

/// Where something is to be realised, in words.
fn place(row: &L2Realisation) -> String {
    match row.in_use_on_host_uuid {
        None => format!("in cluster {}", row.cluster_uuid),
        Some(host) => format!("on host {host}"),
    }
}

/// What the first of these hosts lacks, and how many more lack something.
fn lacking(hosts: &[Host], why_not: impl Fn(&Host) -> Option<String>) -> Option<Obstacle> {
    let mut lacking = hosts.iter().filter_map(|host| Some((host, why_not(host)?)));
    let (host, why) = lacking.next()?;
    let others = match lacking.count() {
        0 => String::new(),
        others => format!(" (and {others} more hosts are lacking something)"),
    };
    Some(Obstacle::Host(format!("host {} ({}) {why}{others}", host.name, host.uuid)))
}
