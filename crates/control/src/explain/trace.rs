//! A packet's way over hosts: each is asked in turn what it would do with what the one before it sends.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use model::{
    Claim, Id, Kind, Mac, Record, Resource, Result,
    resource::{
        host::Host, l2_network::L2Network, nic_looks::GetVmNicTrace, remote_vtep::RemoteVtep,
        security_group_member::VmNicSecurityGroupRef, vm_nic::VmNic, vtep::Vtep,
    },
    status::{Board, Obstacle, Unsettled},
};
use serde_json::Value;
use store::{Read, Snapshot};
use uuid::Uuid;
use wire::question::{Answer, Arrival, End, Question, Sent, Trace};

use super::{
    Names, ask, odd,
    probe::{self, Probe},
    refused, shown, unanswered,
};
use crate::{Caller, Gate};

/// Hosts that one packet is followed over: a NIC that moves is forwarded once or twice.
const HOPS_MAX: usize = 4;

/// What a host did with a packet.
pub(super) struct Hop {
    pub(super) host: Id<Host>,
    pub(super) trace: Trace,
}

/// What is known of a packet's way.
#[derive(Default)]
pub(super) struct Way {
    pub(super) hops: Vec<Hop>,
    /// It leaves what netloom knows: to whom.
    pub(super) leaves: Option<String>,
    /// It was not followed to its end: why.
    pub(super) lost: Option<String>,
    /// Why what is known may be wrong.
    pub(super) doubts: Vec<String>,
}

/// Where a frame that a host sends comes in.
#[derive(Debug, PartialEq)]
enum Next {
    Host(Id<Host>),
    /// With somebody who is no host.
    Outside(String),
    /// Nobody knows.
    Nobody(String),
}

pub(super) async fn trace(
    gate: Arc<Gate>,
    caller: Caller,
    message: GetVmNicTrace,
) -> Result<Value> {
    let before = gate.store().snapshot();
    let probe = probe::probe(&before, &caller, &message)?;
    let _turn = gate.explaining.turn(&caller)?;
    let source = probe::source(&before, &probe.question);
    let asked: Vec<IpAddr> = source.into_iter().chain([probe.question.remote]).collect();
    let names = Names::new(&before, &caller, (&probe.nic, &asked));
    let mut way = walk(&gate, &probe, &names).await?;
    let after = (gate.store().snapshot(), gate.jobs.board());
    doubt(&mut way, &probe, &names, (&before, &after.0, &after.1));
    Ok(shown::way(&way, &probe, &names, &before))
}

/// Asks one host after the other.
async fn walk(gate: &Gate, probe: &Probe, names: &Names<'_>) -> Result<Way> {
    let mut way = Way::default();
    let (mut host, mut question) = (probe.host, Question::FromPort(probe.question.clone()));
    loop {
        let at = way.hops.len() + 1;
        let trace = match (ask(gate, host, question).await, at) {
            (Ok(Answer::Trace(trace)), _) => trace,
            (Ok(Answer::Unanswered(why)), 1) => return Err(refused(names, host, &why.why)),
            (Ok(Answer::Unanswered(why)), _) => {
                let (who, why) = (names.host_at(host, at), names.text(&why.why));
                way.lost = Some(format!("{who} cannot answer: {why}"));
                return Ok(way);
            }
            (Ok(Answer::Drops(_)), _) => return Err(odd()),
            (Err(why), 1) => return Err(unanswered(names, host, &why)),
            (Err(why), _) => {
                way.lost = Some(format!("{} {}", names.host_at(host, at), why.words().0));
                return Ok(way);
            }
        };
        let end = trace.end.clone();
        way.hops.push(Hop { host, trace });
        let End::Sent(sent) = end else { return Ok(way) };
        let read = gate.store().snapshot();
        match next(&read, &sent) {
            Next::Outside(who) => {
                way.leaves = Some(names.text(&who));
                return Ok(way);
            }
            Next::Nobody(why) => {
                way.doubts.push(names.text(&why));
                way.lost = Some("nobody is known to be where it is sent".to_owned());
                return Ok(way);
            }
            Next::Host(_) if at >= HOPS_MAX => {
                way.doubts.push("hosts send it on and on: its receiver moves".to_owned());
                way.lost = Some(format!("after {HOPS_MAX} hosts it has not arrived"));
                return Ok(way);
            }
            Next::Host(next) => {
                way.doubts.extend(disagreement(&read, &sent, (next, at), names));
                host = next;
            }
        }
        question =
            Question::Arrival(Arrival { network: sent.network, vtep: sent.own, frame: sent.frame });
    }
}

/// Where a frame comes in. Costs a look-up or two, however many hosts and NICs there are.
fn next(read: &Snapshot<Record>, sent: &Sent) -> Next {
    let l2 = Id::<L2Network>::new(sent.network);
    let pool = read.get(Kind::L2Network, sent.network);
    let pool = pool.as_deref().and_then(L2Network::of).and_then(|l2| l2.segment.pool());
    match (sent.vtep, pool) {
        (Some(vtep), Some(pool)) => behind(read, pool, vtep),
        (Some(vtep), None) => Next::Nobody(format!("the network of {vtep} is gone")),
        (None, _) => match receiver(read, l2, &sent.frame.0) {
            Some(nic) => match nic.host_uuid {
                Some(host) => Next::Host(host),
                None => Next::Nobody("the NIC that it is for is on no host".to_owned()),
            },
            None => Next::Outside(
                "a machine in the physical network that is none of netloom's".to_owned(),
            ),
        },
    }
}

/// Whose a tunnel end of a pool is.
fn behind(read: &Snapshot<Record>, pool: Id<L2Network>, ip: IpAddr) -> Next {
    let row = read.holder(&Claim::VtepIp(pool, ip)).and_then(|(kind, id)| read.get(kind, id));
    if let Some(vtep) = row.as_deref().and_then(Vtep::of) {
        return Next::Host(vtep.host_uuid);
    }
    let at = ip_key(ip);
    let is_of_pool = |id| {
        let row = read.get(Kind::RemoteVtep, id);
        row.as_deref().and_then(RemoteVtep::of).is_some_and(|found| found.pool_uuid == pool)
    };
    match read.find(Kind::RemoteVtep, "vtepIp", &at).any(is_of_pool) {
        true => Next::Outside(format!("the tunnel end {ip}, which is no host's")),
        false => Next::Nobody(format!("no host has the tunnel end {ip} any more")),
    }
}

/// How indexes have an address.
fn ip_key(ip: IpAddr) -> store::Key {
    let v6 = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    store::Key::Ip(v6.into())
}

/// The NIC that a frame is for.
fn receiver(read: &Snapshot<Record>, l2: Id<L2Network>, frame: &[u8]) -> Option<VmNic> {
    let mac = Mac(*frame.first_chunk::<6>()?);
    let (kind, id) = read.holder(&Claim::Mac(l2, mac))?;
    let row = read.get(kind, id)?;
    VmNic::of(&row).cloned()
}

/// Whether a host sends a frame elsewhere than its receiver is.
fn disagreement(
    read: &Snapshot<Record>,
    sent: &Sent,
    (next, at): (Id<Host>, usize),
    names: &Names<'_>,
) -> Option<String> {
    let nic = receiver(read, Id::new(sent.network), &sent.frame.0)?;
    let is_there = [nic.host_uuid, nic.pending_host_uuid].contains(&Some(next));
    (!is_there).then(|| {
        let to = names.host_at(next, at + 1);
        format!("it is sent to {to}, where the NIC that it is for is not any more, or not yet")
    })
}

/// Notes why what hosts said may be wrong: by what they say themselves, and by what the server knows
/// that they have not confirmed.
fn doubt(
    way: &mut Way,
    probe: &Probe,
    names: &Names<'_>,
    (before, after, board): (&Snapshot<Record>, &Snapshot<Record>, &Board),
) {
    let (nic, l2) = (probe.nic.uuid, probe.nic.l2_network_uuid);
    let to = probe::holder(before, l2, probe.question.remote).and_then(|who| who.id::<VmNic>());
    let nics: Vec<Id<VmNic>> = [nic].into_iter().chain(to).collect();
    let mut objects = vec![l2.uuid()];
    for nic in &nics {
        objects.push(nic.uuid());
        objects.extend(groups(before, *nic));
    }
    for (at, hop) in way.hops.iter().enumerate() {
        let who = names.host_at(hop.host, at + 1);
        let own = hop.trace.inconclusive.as_deref().map(|why| names.text(why));
        way.doubts.extend(own.map(|why| format!("{who}: {why}")));
        let known = obstacle(board, hop.host, (&objects, before.revision()), names);
        way.doubts.extend(known.map(|why| format!("{who}: {why}")));
    }
    let place = |read: &Snapshot<Record>, nic: Id<VmNic>| {
        let row = read.get(Kind::VmNic, nic.uuid());
        row.as_deref().and_then(VmNic::of).map(|nic| (nic.host_uuid, nic.moves_to()))
    };
    for nic in nics {
        let (then, now) = (place(before, nic), place(after, nic));
        let moves = now.is_some_and(|(_, moves_to)| moves_to.is_some());
        if then != now || moves {
            let who = names.of(Kind::VmNic, nic.uuid());
            let who = who["words"].as_str().unwrap_or("a NIC").to_owned();
            way.doubts.push(format!("{who} moves, or has moved meanwhile"));
        }
    }
    let mut seen = BTreeSet::new();
    way.doubts.retain(|doubt| seen.insert(doubt.clone()));
}

/// The groups of a NIC.
fn groups(read: &Snapshot<Record>, nic: Id<VmNic>) -> Vec<Uuid> {
    let refs = read.referrers(Kind::VmNicSecurityGroupRef, "vmNicUuid", nic.uuid());
    let refs = refs.filter_map(|id| read.get(Kind::VmNicSecurityGroupRef, id));
    let group =
        |row: Arc<Record>| Some(VmNicSecurityGroupRef::of(&row)?.security_group_uuid.uuid());
    refs.filter_map(group).collect()
}

/// What a host has not confirmed, or could not do, of what a packet meets.
fn obstacle(
    board: &Board,
    host: Id<Host>,
    (objects, revision): (&[Uuid], u64),
    names: &Names<'_>,
) -> Option<String> {
    let status = board.status(host);
    if let Some(trouble) = status.trouble(host) {
        return Some(names.text(trouble));
    }
    Some(match board.obstacle(host, objects, revision)? {
        Obstacle::Uncompiled => "it has not been told of the newest change yet".to_owned(),
        Obstacle::Forgotten => {
            "it has not confirmed what it holds since the server started".to_owned()
        }
        Obstacle::Object(object, why) => {
            let what = names.object(object);
            let what = what["words"].as_str().unwrap_or("something").to_owned();
            match why {
                Unsettled::Pending => format!("it has not confirmed a change of {what} yet"),
                Unsettled::Failed(reason) => {
                    format!("{what} is not in effect there: {}", names.text(reason))
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use store::Store;
    use wire::told::Bytes;

    use super::*;

    #[test]
    fn addresses_are_found_in_the_form_that_indexes_have() {
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(ip_key(ip), store::Key::Ip(0xffff_c000_0201));
    }

    #[test]
    fn a_frame_for_nobody_and_one_that_is_too_short_are_of_machines_outside() {
        let store: Store<Record> = Store::in_memory().unwrap();
        let network = Uuid::from_u128(1);
        for frame in [vec![], vec![2; 60]] {
            let sent = Sent { network, vtep: None, own: None, frame: Bytes(frame) };
            assert!(matches!(next(&store.snapshot(), &sent), Next::Outside(_)));
        }
    }
}
