//! What security groups decide, said as plainly as their documentation says it: from the objects that a
//! host holds, and slowly. It is the reference that the data plane is compared with, so it shares no
//! code with whatever compiles rules into tables, and never will.
//!
//! A port has a [`Policy`]: its groups in order, and what becomes of what no group decides. For a
//! connection that is opened towards the port (*ingress*) or from it (*egress*):
//!
//! 1. The groups are asked in the policy's order, and in each its rules in theirs.
//! 2. A rule is passed over unless it is for this way and for the family of the other end's address.
//! 3. A rule matches if protocol, ports and other end match. An absent one matches everything.
//!    - Ports are those of the destination: of TCP and UDP. ICMP has type * 256 + code instead.
//!      What shows neither, such as a later fragment, matches no rule that names some.
//!    - The other end is in one of the rule's spans of addresses; or it is a member of the rule's
//!      group: a NIC in that group has exactly this address, in the routing domain of the port's own
//!      address.
//! 4. The first rule that matches decides, whether it accepts or drops.
//! 5. Without one, the policy says what becomes of it.
//!
//! Packets of a connection that was accepted are not judged again. A rule of a stateless group decides
//! about the packet alone: it is forgotten, and what answers it is judged as what it is, a packet the
//! other way.
//!
//! Between two ports the egress of the sender and the ingress of the receiver both have to accept
//! ([`judge_pair`]). A port without a policy accepts everything.

use std::net::IpAddr;

use wire::{
    object::{Member, SecurityGroup},
    policy::{Action, Policy, Rule, Way},
};

/// What a host knows of groups and of who is in them.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The groups. One that is not among them has no rules.
    pub groups: &'a [SecurityGroup],
    /// The NICs that are in groups.
    pub members: &'a [Member],
}

/// A packet that opens something, as one port sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Number of the routing domain of the port's own address in it; 0: none, so nobody is a member.
    pub domain: u32,
    /// The other end's address.
    pub remote: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// What else it shows.
    pub shows: Shows,
}

/// What a packet shows of whom it is for, beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Ports. That of the source decides nothing.
    Ports {
        /// Of the sender.
        source: u16,
        /// Of the receiver.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// Neither.
    Nothing,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub action: Action,
    /// Number of the rule that decided; 0 if none did.
    pub rule: u32,
    /// It is about this packet alone.
    pub is_stateless: bool,
}

/// One end of a packet's way from port to port.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The port's policy, if it has one.
    pub policy: Option<&'a Policy>,
    /// What its host knows.
    pub known: Known<'a>,
    /// Its address.
    pub address: IpAddr,
    /// Number of the routing domain of that.
    pub domain: u32,
}

/// What becomes of a packet on its way between two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// What the sender's policy says.
    pub egress: Verdict,
    /// What the receiver's policy says, which is asked only for what leaves the sender.
    pub ingress: Option<Verdict>,
}

/// What a port's policy says of a packet that opens something in this way.
#[must_use]
pub fn judge(policy: &Policy, known: Known<'_>, way: Way, probe: &Probe) -> Verdict {
    for uuid in &policy.groups {
        for group in known.groups.iter().filter(|group| group.uuid == *uuid) {
            for rule in &group.rules {
                if is_for(rule, way, probe) && matches(rule, known.members, probe) {
                    let is_stateless = group.is_stateless;
                    return Verdict { action: rule.action, rule: rule.number, is_stateless };
                }
            }
        }
    }
    let action = match way {
        Way::Ingress => policy.ingress,
        Way::Egress => policy.egress,
    };
    Verdict { action, rule: 0, is_stateless: false }
}

/// What becomes of a packet from one port to another that opens something.
#[must_use]
pub fn judge_pair(sender: &End<'_>, receiver: &End<'_>, protocol: u8, shows: Shows) -> Passage {
    let ask = |asked: &End<'_>, other: &End<'_>, way| {
        let probe = Probe { domain: asked.domain, remote: other.address, protocol, shows };
        match asked.policy {
            Some(policy) => judge(policy, asked.known, way, &probe),
            None => Verdict { action: Action::Accept, rule: 0, is_stateless: false },
        }
    };
    let egress = ask(sender, receiver, Way::Egress);
    let leaves = egress.action == Action::Accept;
    let ingress = leaves.then(|| ask(receiver, sender, Way::Ingress));
    Passage { egress, ingress }
}

impl Passage {
    /// Whether it arrives.
    #[must_use]
    pub fn arrives(&self) -> bool {
        self.ingress.is_some_and(|ingress| ingress.action == Action::Accept)
    }
}

fn is_for(rule: &Rule, way: Way, probe: &Probe) -> bool {
    rule.way == way && rule.is_v6 == probe.remote.is_ipv6()
}

fn matches(rule: &Rule, members: &[Member], probe: &Probe) -> bool {
    matches_protocol(rule, probe)
        && matches_ports(rule, probe)
        && matches_other_end(rule, members, probe)
}

fn matches_protocol(rule: &Rule, probe: &Probe) -> bool {
    match rule.protocol {
        None => true,
        Some(protocol) => protocol == probe.protocol,
    }
}

fn matches_ports(rule: &Rule, probe: &Probe) -> bool {
    if rule.ports.is_empty() {
        return true;
    }
    let shown = match probe.shows {
        Shows::Ports { destination, .. } => destination,
        Shows::Icmp { kind, code } => u16::from(kind) * 256 + u16::from(code),
        Shows::Nothing => return false,
    };
    rule.ports.iter().any(|span| span.first <= shown && shown <= span.last)
}

fn matches_other_end(rule: &Rule, members: &[Member], probe: &Probe) -> bool {
    if let Some(group) = rule.group {
        return members.iter().any(|member| is_member(member, group, probe));
    }
    if rule.addresses.is_empty() {
        return true;
    }
    rule.addresses.iter().any(|span| span.first <= probe.remote && probe.remote <= span.last)
}

fn is_member(member: &Member, group: u32, probe: &Probe) -> bool {
    let has = |ip, domain| ip == probe.remote && domain == probe.domain && domain != 0;
    member.groups.contains(&group) && member.addresses.iter().any(|at| has(at.ip, at.domain))
}
