//! The sampler: one in so many of the programs' own verdicts is asked for again of the objects that the
//! host holds, rule by rule, and compared.
//!
//! Only what was decided under what is held now is compared: the maps had it before the event, and
//! nothing else is wanted since. A connection whose opening the table has lost, and messages of ICMP other
//! than echo, are not: the event does not say what was asked. It takes time that grows with what the
//! host holds, so there is a limit for each second.

use std::{collections::HashMap, net::IpAddr};

use packet::{Addr, Direction, DropReason, FlowEvent};
use policy::{Named, Probe, Said, Salt, first_match};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Object, ObjectKey, Port, SecurityGroup, Table},
    policy::{Action, LINK_LOCAL_DOMAIN, Way},
};

use crate::{explain, plan};

/// Events that are looked at in a second, in billionths of it.
const EACH_NS: u64 = 1_000_000_000 / 64;

/// ICMP and ICMPv6 echo requests, by protocol: type * 256.
const ECHOES: [(u8, u16); 2] = [(1, 8 << 8), (58, 128 << 8)];

/// What it has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sampled {
    /// Verdicts that were asked for again.
    pub compared: u64,
    /// Those that were others.
    pub differed: u64,
}

/// The sampler; it does nothing where it was not asked to.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// One in so many events is compared; 0: none.
    every: u32,
    passed: u32,
    /// Ports by number.
    ports: HashMap<u32, Uuid>,
    /// Since when the maps have what is wanted, on the clock of events.
    settled_ns: Option<u64>,
    /// When the next event may be looked at.
    next_ns: u64,
    found: Sampled,
}

impl Sampler {
    pub(crate) fn new(every: u32) -> Self {
        Self { every, ..Self::default() }
    }

    pub(crate) const fn found(&self) -> Sampled {
        self.found
    }

    /// Something else is wanted, which the maps do not have yet.
    pub(crate) fn follow(&mut self, desired: &Holding) {
        if self.every == 0 {
            return;
        }
        self.settled_ns = None;
        let ports = plan::of_table(desired, Table::Port).filter_map(|object| match object {
            Object::Port(port) => Some((port.number, port.uuid)),
            _ => None,
        });
        self.ports = ports.collect();
    }

    /// Whether the maps have what is wanted, now.
    pub(crate) fn settle(&mut self, is_settled: bool, now_ns: u64) {
        let since = self.settled_ns.unwrap_or(now_ns);
        self.settled_ns = is_settled.then_some(since);
    }

    /// Compares an event, if it is its turn. What differs is said.
    pub(crate) fn sample(&mut self, desired: &Holding, event: &FlowEvent) -> Option<String> {
        let is_settled = self.settled_ns.is_some_and(|since| event.time_ns > since);
        if self.every == 0 || !is_settled || event.time_ns < self.next_ns {
            return None;
        }
        let nic = *self.ports.get(&event.port)?;
        let port = port(desired, nic)?;
        let asked = asked(event)?;
        self.passed += 1;
        if self.passed < self.every {
            return None;
        }
        (self.passed, self.next_ns) = (0, event.time_ns + EACH_NS);
        self.found.compared += 1;
        let expected = expected(desired, port, &asked)?;
        if expected.is_stateless {
            // It opens nothing, and the next one may.
            return None;
        }
        let accepts = expected.action == Action::Accept;
        if (expected.number, accepts) == (event.rule, asked.accepted) {
            return None;
        }
        self.found.differed += 1;
        let did = |accepts| if accepts { "accepts" } else { "drops" };
        let Asked { way, remote, protocol, at, .. } = asked;
        Some(format!(
            "NIC {}: {way:?} with {remote}, protocol {protocol}, {at}: rule {} {} it in the programs, \
             rule {} {} it by the objects",
            nic.simple(),
            event.rule,
            did(asked.accepted),
            expected.number,
            did(accepts),
        ))
    }
}

/// What the programs were asked, and said.
struct Asked {
    way: Way,
    own: IpAddr,
    remote: IpAddr,
    protocol: u8,
    at: u16,
    accepted: bool,
}

fn asked(event: &FlowEvent) -> Option<Asked> {
    let is_out = event.direction == Direction::FromPort as u8;
    let way = if is_out { Way::Egress } else { Way::Ingress };
    let denied = match way {
        Way::Ingress => DropReason::PolicyIngress,
        Way::Egress => DropReason::PolicyEgress,
    };
    let accepted = event.reason == 0;
    if !accepted && event.reason != denied.number() {
        return None;
    }
    let at = match event.protocol {
        6 | 17 if is_out => event.remote_port,
        6 | 17 => event.local_port,
        1 | 58 if !accepted => return None,
        protocol => {
            let echo = ECHOES.iter().find(|(of, _)| *of == protocol);
            echo.map_or_else(|| u16::from(protocol), |(_, at)| *at)
        }
    };
    let (own, remote) = (event.local.into(), event.remote.into());
    Some(Asked { way, own, remote, protocol: event.protocol, at, accepted })
}

/// What decides by the objects.
fn expected(desired: &Holding, port: &Port, asked: &Asked) -> Option<Named> {
    let Some(policy) = &port.policy else {
        let action = Action::Accept;
        return Some(Named { number: 0, rule: None, group: None, action, is_stateless: false });
    };
    let groups: Vec<&SecurityGroup> =
        policy.groups.iter().map(|uuid| group(desired, *uuid)).collect::<Option<_>>()?;
    let default = match asked.way {
        Way::Ingress => policy.ingress,
        Way::Egress => policy.egress,
    };
    let domain = match Addr::from(asked.remote).is_link_local() {
        true => LINK_LOCAL_DOMAIN | desired.network(port.network)?.number,
        false => {
            let own = port.addresses.iter().find(|address| address.ip == asked.own);
            own.or(port.addresses.first()).map_or(0, |address| address.domain)
        }
    };
    let known = explain::groups_of(desired, Salt(0), (domain, asked.remote));
    let probe =
        Probe { remote: asked.remote, groups: &known, protocol: asked.protocol, port: asked.at };
    Some(first_match(&Said { groups: &groups, way: asked.way, default }, &probe))
}

fn port(desired: &Holding, uuid: Uuid) -> Option<&Port> {
    match desired.get(&ObjectKey { table: Table::Port, uuid }) {
        Some(Object::Port(port)) => Some(port),
        _ => None,
    }
}

fn group(desired: &Holding, uuid: Uuid) -> Option<&SecurityGroup> {
    match desired.get(&ObjectKey { table: Table::SecurityGroup, uuid }) {
        Some(Object::SecurityGroup(group)) => Some(group),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    const GROUP: u32 = 9;
    const RULE: u32 = 77;

    /// Port 5, of which TCP port 22 is open.
    fn holding() -> Holding {
        let mut holding = sample::two_networks();
        let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
        holding.upsert(sample::filtered(port, &[GROUP]));
        holding.upsert(sample::group(GROUP, vec![sample::rule(RULE, Action::Accept, Some(22))]));
        holding
    }

    fn event((to, reason, rule): (u16, Option<DropReason>, u32), time_ns: u64) -> FlowEvent {
        FlowEvent {
            time_ns,
            port: 5,
            reason: reason.map_or(0, DropReason::number),
            rule,
            missed: 0,
            local: Addr::v4([10, 0, 0, 5]),
            remote: Addr::v4([10, 0, 0, 9]),
            local_port: to,
            remote_port: 4_000,
            protocol: 6,
            direction: Direction::ToPort as u8,
            pad: [0; 2],
        }
    }

    const OPENED: (u16, Option<DropReason>, u32) = (22, None, RULE);
    const DENIED: (u16, Option<DropReason>, u32) = (23, Some(DropReason::PolicyIngress), 0);
    /// As programs would say it that had another rule.
    const PLANTED: [(u16, Option<DropReason>, u32); 4] = [
        (22, None, 78),
        (23, None, RULE),
        (22, Some(DropReason::PolicyIngress), 0),
        (23, Some(DropReason::PolicyIngress), RULE),
    ];

    fn sampler(every: u32) -> (Sampler, Holding) {
        let (mut sampler, holding) = (Sampler::new(every), holding());
        sampler.follow(&holding);
        (sampler, holding)
    }

    #[test]
    fn what_another_rule_has_decided_is_found() {
        let (mut sampler, holding) = sampler(1);
        sampler.settle(true, 10);
        let mut at = (1_u64..).map(|number| number * EACH_NS);
        let mut sample = |told| sampler.sample(&holding, &event(told, at.next().unwrap()));
        for told in [OPENED, DENIED, (7, Some(DropReason::ConntrackFull), 0)] {
            assert_eq!(sample(told), None);
        }
        for told in PLANTED {
            assert!(sample(told).is_some(), "{told:?}");
        }
        assert_eq!(sampler.found(), Sampled { compared: 6, differed: 4 });
    }

    #[test]
    fn what_was_decided_while_something_changed_is_not_compared() {
        let (mut sampler, holding) = sampler(1);
        let [planted, ..] = PLANTED;
        assert_eq!(sampler.sample(&holding, &event(planted, 5)), None, "nothing is settled");
        sampler.settle(true, 10);
        assert_eq!(sampler.sample(&holding, &event(planted, 5)), None, "before it was");
        sampler.follow(&holding);
        assert_eq!(sampler.sample(&holding, &event(planted, 15)), None, "something else is wanted");
        sampler.settle(true, 20);
        sampler.settle(true, 30);
        assert!(sampler.sample(&holding, &event(planted, 25)).is_some());
    }

    #[test]
    fn one_in_so_many_is_compared_and_so_many_a_second() {
        let (mut rare, holding) = sampler(10);
        rare.settle(true, 0);
        (1..=100).for_each(|number| drop(rare.sample(&holding, &event(OPENED, number * EACH_NS))));
        assert_eq!(rare.found().compared, 10);
        let (mut all, holding) = sampler(1);
        all.settle(true, 0);
        (0..1_000_000_000)
            .step_by(1_000_000)
            .for_each(|at| drop(all.sample(&holding, &event(OPENED, at + 1))));
        assert!((63..=65).contains(&all.found().compared), "{:?}", all.found());
        let (mut off, holding) = sampler(0);
        off.settle(true, 0);
        assert_eq!(off.sample(&holding, &event(PLANTED[0], 5)), None);
    }
}
