//! What would become of a packet on this host: the programs' own decisions over what the maps hold now,
//! told in words with the objects they are about, and checked against what the objects say.
//!
//! Three voices have to agree about a connection: the objects rule by rule, the maps as the programs
//! read them ([`explain`]), and the programs' verdict. If they do not, or what the host holds is not in
//! effect, a trace says that it is inconclusive.

mod frame;
mod words;

use std::net::IpAddr;

use dataplane::{Finding, Lookup, Traced, trace};
use packet::{Addr, Direction, Drop, DropReason, Entry, Meta, PortKey, Verdict, VtepKey};
use policy::Salt;
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Network, Object, ObjectKey, Port, Table},
    policy::{Action, Way},
    question::{
        Arrival, By, Decision, Delivered, Dropped, End, FromPort, Other, STEPS_MAX, Sent, Served,
        Step, Trace,
    },
    told::Bytes,
};

use crate::{
    explain::{Explained, Opening, explain, seat},
    headers::{self, Headers},
    state::Desired,
    worker::Achieved,
};

/// How often a trace is made anew during which the maps have changed.
const ATTEMPTS: usize = 3;

/// What a host knows.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    /// What it holds.
    pub(crate) desired: &'a Desired,
    /// What it has applied last.
    pub(crate) achieved: Option<&'a Achieved>,
    /// Its maps.
    pub(crate) live: &'a (dyn Lookup + Send),
}

/// A frame at a hook.
struct Journey<'a> {
    entry: Entry,
    meta: Meta,
    frame: Vec<u8>,
    network: &'a Network,
    /// The port that sends it, if one of this host does.
    sender: Option<&'a Port>,
}

/// What would become of a packet that a port sends.
///
/// # Errors
/// It cannot be told, and why.
pub(crate) fn from_port(sight: Sight<'_>, asked: &FromPort) -> Result<Trace, String> {
    let holding = &sight.desired.holding;
    let key = ObjectKey { table: Table::Port, uuid: asked.port };
    let Some(Object::Port(port)) = holding.get(&key) else {
        return Err(format!("NIC {} is not on this host", asked.port.simple()));
    };
    let network = holding.network(port.network);
    let network = network.ok_or("the network of the NIC is not known on this host")?;
    let seat = seat(holding, sight.live, port).map_err(|error| error.to_string())?;
    let Some((place, entry)) = seat else {
        return Ok(shut(sight, port));
    };
    let mut steps = Vec::new();
    let frame = frame::of_guest((sight, network, &entry), port, asked, &mut steps)?;
    let meta = Meta { ifindex: place.ifindex, vlan: place.vlan, ..Meta::default() };
    let way = Journey { entry: Entry::FromPort, meta, frame, network, sender: Some(port) };
    follow(sight, &way, steps)
}

/// What would become of a frame that comes in from another host.
///
/// # Errors
/// It cannot be told, and why.
pub(crate) fn arrival(sight: Sight<'_>, asked: &Arrival) -> Result<Trace, String> {
    let network = sight.desired.holding.network(asked.network);
    let network = network.ok_or("the network is not on this host")?;
    let unread = |error: dataplane::Error| error.to_string();
    let (entry, meta) = match (network.tunnel(), asked.vtep) {
        (Some(tunnel), Some(vtep)) => {
            let vtep = Addr::from(vtep);
            let key = VtepKey { vni: tunnel.id(), addr: vtep };
            // A VTEP that may not send is refused before that address is looked at.
            let found = sight.live.vteps(&key).map_err(unread)?;
            let local = found.map_or(Addr::from(tunnel.local_vtep), |found| found.local);
            let meta = Meta { vni: tunnel.id(), tunnelled: 1, vtep, local, ..Meta::default() };
            (Entry::FromTunnel, meta)
        }
        (None, None) => {
            let net = sight.live.nets(&network.number).map_err(unread)?;
            let PortKey { ifindex, vlan, .. } =
                net.ok_or("the network is not in the maps of this host")?.uplink;
            (Entry::FromUplink, Meta { ifindex, vlan, ..Meta::default() })
        }
        _ => return Err("a physical network has no VTEPs, and any other one has".to_owned()),
    };
    let frame = asked.frame.0.clone();
    follow(sight, &Journey { entry, meta, frame, network, sender: None }, Vec::new())
}

/// The maps do not have the port.
fn shut(sight: Sight<'_>, port: &Port) -> Trace {
    let reason = DropReason::UnknownPort;
    let why = doubts(sight, &[port.uuid]);
    let why = why.unwrap_or_else(|| "the maps do not have the port: it is shut".to_owned());
    Trace {
        revision: sight.achieved.map_or(0, |achieved| achieved.revision),
        steps: Vec::new(),
        decisions: Vec::new(),
        end: End::Dropped(dropped(reason)),
        inconclusive: Some(why),
    }
}

/// Has the programs decide, and tells what they did.
fn follow(sight: Sight<'_>, way: &Journey<'_>, mut steps: Vec<Step>) -> Result<Trace, String> {
    let (traced, is_steady) = run(sight, way).map_err(|error| error.to_string())?;
    let holding = &sight.desired.holding;
    let receiver = receiver(sight, &traced).map_err(|error| error.to_string())?;
    let decided = decided(sight, way, &traced, receiver)?;
    let sent_to = way.frame.first_chunk().copied().filter(|_| way.sender.is_some());
    words::tell((holding, way.network), (&traced, sent_to), &decided, &mut steps);
    steps.truncate(STEPS_MAX);
    let uuids: Vec<Uuid> = [way.sender, receiver].into_iter().flatten().map(|p| p.uuid).collect();
    let differs = decided.iter().find_map(|side| side.contradicts(traced.dropped.as_ref()));
    let moves = (!is_steady).then(|| "the maps change all the time: ask again".to_owned());
    let network = way.network;
    Ok(Trace {
        revision: sight.achieved.map_or(0, |achieved| achieved.revision),
        steps,
        decisions: decided.iter().filter_map(Side::decision).collect(),
        inconclusive: doubts(sight, &[&uuids[..], &[network.uuid]].concat()).or(moves).or(differs),
        end: end(network, traced, receiver),
    })
}

/// What the programs do, and whether the maps were the same all the time.
fn run(sight: Sight<'_>, way: &Journey<'_>) -> Result<(Traced, bool), dataplane::Error> {
    let mut attempts = 0;
    loop {
        let before = sight.live.config()?.epoch;
        let traced = trace(sight.live, (way.entry, &way.meta), &way.frame)?;
        let is_steady = sight.live.config()?.epoch == before;
        attempts += 1;
        if is_steady || attempts >= ATTEMPTS {
            return Ok((traced, is_steady));
        }
    }
}

/// The port that it is for, if that is on this host.
fn receiver<'a>(sight: Sight<'a>, traced: &Traced) -> Result<Option<&'a Port>, dataplane::Error> {
    let number = match (traced.verdict, traced.dropped) {
        (Verdict::DeliverLocal { ifindex, via }, _) => {
            let vlan = if let packet::Via::Tagged(vlan) = via { vlan } else { 0 };
            sight.live.ports(&PortKey::tagged(ifindex, vlan))?.map(|port| port.number)
        }
        (Verdict::Copy { ifindex, vlan }, _) => {
            sight.live.ports(&PortKey::tagged(ifindex, vlan))?.map(|port| port.number)
        }
        (_, Some(Drop { reason: DropReason::PolicyIngress, port, .. })) => Some(port.number),
        _ => None,
    };
    let ports = of_table(&sight.desired.holding, Table::Port).filter_map(|object| match object {
        Object::Port(port) => Some(port),
        _ => None,
    });
    Ok(number.and_then(|number| ports.into_iter().find(|port| port.number == number)))
}

/// One end of a connection, and what is decided about it there.
struct Side<'a> {
    port: &'a Port,
    way: Way,
    explained: Explained,
}

/// The ends that were asked: the sender's, then the receiver's.
fn decided<'a>(
    sight: Sight<'a>,
    way: &Journey<'a>,
    traced: &Traced,
    receiver: Option<&'a Port>,
) -> Result<Vec<Side<'a>>, String> {
    let Headers { source, destination, protocol, port_or_type, .. } = headers::read(&traced.frame);
    let (Some(source), Some(destination), Some(protocol)) = (source, destination, protocol) else {
        return Ok(Vec::new());
    };
    let is_passed = |direction| {
        let has =
            |finding: &Finding| matches!(finding, Finding::Passed(_, way) if *way == direction);
        traced.findings.iter().any(has)
    };
    let is_dropped = |reason| traced.dropped.is_some_and(|drop| drop.reason == reason);
    let is_single = matches!(
        traced.verdict,
        Verdict::Flood { .. } | Verdict::HandOff { .. } | Verdict::Reflect
    );
    let is_out = is_passed(Direction::FromPort) && !is_single;
    let sender = way.sender.filter(|_| is_out || is_dropped(DropReason::PolicyEgress));
    let is_in = is_passed(Direction::ToPort) || is_dropped(DropReason::PolicyIngress);
    let receiver = receiver.filter(|_| is_in);
    let salt = Salt(sight.live.config().map_err(|error| error.to_string())?.seed);
    let side = |port: Option<&'a Port>, way, [own, remote]: [IpAddr; 2]| {
        let port = port?;
        let opening = Opening { way, own: Some(own), remote, protocol, port: port_or_type };
        let explained = explain((&sight.desired.holding, sight.live, salt), port, &opening);
        Some(Side { port, way, explained })
    };
    let egress = side(sender, Way::Egress, [source, destination]);
    let ingress = side(receiver, Way::Ingress, [destination, source]);
    Ok([egress, ingress].into_iter().flatten().collect())
}

impl Side<'_> {
    /// In what the programs and it do not agree.
    fn contradicts(&self, dropped: Option<&Drop>) -> Option<String> {
        let (way, reason) = match self.way {
            Way::Egress => ("egress", DropReason::PolicyEgress),
            Way::Ingress => ("ingress", DropReason::PolicyIngress),
        };
        let drop = dropped.filter(|drop| drop.reason == reason);
        let verdict = if drop.is_some() { "drop it" } else { "let it pass" };
        let (expected, rule) = match &self.explained {
            Explained::Inconclusive(why) => return Some(why.clone()),
            Explained::Unfiltered => (Action::Accept, None),
            Explained::Closed => (Action::Drop, None),
            Explained::Decided(named) => (named.action, Some(named.number)),
        };
        let agrees = (expected == Action::Drop) == drop.is_some();
        let is_same_rule = drop.zip(rule).is_none_or(|(drop, rule)| drop.rule == rule);
        (!agrees || !is_same_rule).then(|| {
            let by = rule.map_or("no rule".to_owned(), |rule| format!("rule {rule}"));
            format!(
                "by its objects {by} decides about the port's {way}, and the programs {verdict}"
            )
        })
    }

    fn decision(&self) -> Option<Decision> {
        let (port, way) = (self.port.uuid, self.way);
        let plain = |by, action| Decision {
            port,
            way,
            by,
            action,
            rule: None,
            group: None,
            is_stateless: false,
        };
        match &self.explained {
            Explained::Inconclusive(_) => None,
            Explained::Unfiltered => Some(plain(By::Nothing, Action::Accept)),
            Explained::Closed => Some(plain(By::Closed, Action::Drop)),
            Explained::Decided(named) => {
                let by = if named.rule.is_some() { By::Rule } else { By::Policy };
                let (rule, group, is_stateless) = (named.rule, named.group, named.is_stateless);
                Some(Decision { rule, group, is_stateless, ..plain(by, named.action) })
            }
        }
    }
}

/// Why nothing certain can be said of these objects.
fn doubts(sight: Sight<'_>, objects: &[Uuid]) -> Option<String> {
    let Some(achieved) = sight.achieved else {
        return Some("the agent has just started and has not looked at the host yet".to_owned());
    };
    if achieved.digests != sight.desired.holding.digests() {
        return Some("the host is about to change: not all that it holds is in effect".to_owned());
    }
    let outcome = &achieved.outcome;
    let failed = objects.iter().find_map(|uuid| Some((uuid, outcome.failed.get(uuid)?)));
    if let Some((uuid, why)) = failed {
        return Some(format!("{} is not in effect: {why}", uuid.simple()));
    }
    (!outcome.processed).then(|| format!("the host is in trouble: {}", outcome.trouble.join("; ")))
}

fn dropped(reason: DropReason) -> Dropped {
    let info = DropReason::ALL.iter().find(|info| info.reason == reason);
    let meaning = info.map_or("", |info| info.doc.trim()).to_owned();
    Dropped { reason: reason.name().to_owned(), meaning }
}

fn end(network: &Network, traced: Traced, receiver: Option<&Port>) -> End {
    let sent = |vtep: Option<Addr>, own: Option<Addr>| Sent {
        network: network.uuid,
        vtep: vtep.map(IpAddr::from),
        own: own.filter(|own| !own.is_unspecified()).map(IpAddr::from),
        frame: Bytes(traced.frame.clone()),
    };
    let other = |what: &str| End::Other(Other { what: what.to_owned() });
    let served = |by: &str| End::Served(Served { by: by.to_owned() });
    match traced.verdict {
        Verdict::Drop(reason) => End::Dropped(dropped(reason)),
        Verdict::DeliverLocal { .. } | Verdict::Copy { .. } => match receiver {
            Some(port) => End::Delivered(Delivered { port: port.uuid }),
            None => other("it comes out of a port that the host does not know any more"),
        },
        Verdict::Tunnel { vtep, local, .. } => End::Sent(sent(Some(vtep), Some(local))),
        Verdict::Underlay { vtep, local, .. } => {
            End::Sent(sent(Some(Addr::v4_word(vtep)), Some(Addr::v4_word(local))))
        }
        Verdict::Uplink { .. } => End::Sent(sent(None, None)),
        Verdict::Host { .. } => other("it goes to the host itself, which is in that network"),
        Verdict::Flood { .. } => other("it goes to all of the network"),
        Verdict::Strangers { .. } => {
            other("nobody knows where the address is: it goes to all VTEPs that are no hosts'")
        }
        Verdict::Reflect => served("the host, in the frame itself"),
        Verdict::HandOff { question: packet::Question::Lease, .. } => {
            served("the host's agent, which tells guests their addresses")
        }
        Verdict::HandOff { question: packet::Question::Request, .. } => {
            served("the host's agent, which knows metadata and names")
        }
        Verdict::Pass => {
            other("it is no matter of netloom's and goes on as if that were not there")
        }
    }
}

/// The objects of a table.
pub(crate) fn of_table(holding: &Holding, table: Table) -> impl Iterator<Item = &Object> {
    let [first, last] = [Uuid::nil(), Uuid::max()].map(|uuid| ObjectKey { table, uuid });
    holding.objects().range(first..=last).map(|(_, object)| &**object)
}

#[cfg(test)]
#[path = "trace/tests.rs"]
mod tests;
