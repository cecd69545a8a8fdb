//! What a case is, and the words for writing one down.

use wire::policy::{Action, Way};

use crate::describe::{
    ICMP, ICMPV6, NAMES, Otherwise, Probe, Remote, Rule, S, T, TCP, UDP, What, World, rule,
};

/// Groups, rules and members with a name, and what is tried beside what every case tries.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub name: String,
    pub world: World,
    pub also: Vec<What>,
}

/// What is tried between all instances in every case.
const USUAL: [What; 5] =
    [What::Tcp(80), What::Tcp(81), What::Udp(80), What::Udp(81), What::Echo(0)];

/// A case in which there is nothing yet.
pub(crate) fn case(name: impl Into<String>) -> Case {
    Case { name: name.into(), world: World::default(), also: Vec::new() }
}

impl Case {
    /// The same under another name, to be changed.
    pub(crate) fn then(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// A group has these rules, and no others.
    pub(crate) fn rules(mut self, group: usize, rules: &[&[Rule]]) -> Self {
        self.world.groups[group].rules = rules.concat();
        self
    }

    /// NICs are in these groups, in this order.
    pub(crate) fn member(mut self, nics: &[usize], groups: &[usize]) -> Self {
        for nic in nics {
            self.world.nics[*nic].groups = groups.to_vec();
        }
        self
    }

    pub(crate) fn ingress(mut self, nic: usize, otherwise: Otherwise) -> Self {
        self.world.nics[nic].ingress = otherwise;
        self
    }

    pub(crate) fn egress(mut self, nic: usize, otherwise: Otherwise) -> Self {
        self.world.nics[nic].egress = otherwise;
        self
    }

    pub(crate) fn tagged(mut self, nics: &[usize]) -> Self {
        for (number, nic) in self.world.nics.iter_mut().enumerate() {
            nic.is_tagged = nics.contains(&number);
        }
        self
    }

    /// Groups are disabled.
    pub(crate) fn off(mut self, groups: &[usize]) -> Self {
        groups.iter().for_each(|group| self.world.groups[*group].is_enabled = false);
        self
    }

    /// The default rules of groups are disabled.
    pub(crate) fn bare(mut self, groups: &[usize]) -> Self {
        groups.iter().for_each(|group| self.world.groups[*group].has_defaults = false);
        self
    }

    /// What the address group has.
    pub(crate) fn listed(mut self, items: &[&str]) -> Self {
        self.world.listed = items.iter().map(|&item| item.to_owned()).collect();
        self
    }

    /// NICs in no group are closed.
    pub(crate) fn closed(mut self) -> Self {
        self.world.is_closed = true;
        self
    }

    /// This is tried, too.
    pub(crate) fn also(mut self, what: &[What]) -> Self {
        self.also.extend(what.iter().filter(|what| !USUAL.contains(what)));
        self
    }

    /// Whether a stateless rule may decide.
    pub(crate) fn is_stateless(&self) -> bool {
        let mut groups = self.world.nics.iter().flat_map(|nic| &nic.groups);
        groups.any(|group| [S, T].contains(group))
    }

    /// All that is tried: between all instances in both families.
    pub(crate) fn probes(&self) -> Vec<Probe> {
        let all = 0..NAMES.len();
        let pairs = all.clone().flat_map(|from| all.clone().map(move |to| (from, to)));
        let mut probes = Vec::new();
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            for what in USUAL.iter().chain(&self.also) {
                // Such are told apart by their addresses alone: the way back would be an answer.
                if matches!(what, What::Other(_)) && from > to {
                    continue;
                }
                probes.extend([false, true].map(|is_v6| Probe {
                    from,
                    to,
                    is_v6,
                    what: *what,
                    is_answer: false,
                }));
            }
        }
        probes
    }
}

/// A rule for each family.
pub(crate) fn both(way: Way) -> Vec<Rule> {
    [false, true].map(|is_v6| rule(way, is_v6)).to_vec()
}

/// Everything that others open, in both families.
pub(crate) fn inward() -> Vec<Rule> {
    both(Way::Ingress)
}

/// Everything that a NIC opens.
pub(crate) fn outward() -> Vec<Rule> {
    both(Way::Egress)
}

/// What can be said of rules, one thing after the other.
pub(crate) trait Said: Sized {
    fn each(self, change: impl Fn(&mut Rule)) -> Self;

    fn tcp(self, ports: &str) -> Self {
        self.each(|rule| (rule.protocol, rule.ports) = (Some(TCP), ports.to_owned()))
    }

    fn udp(self, ports: &str) -> Self {
        self.each(|rule| (rule.protocol, rule.ports) = (Some(UDP), ports.to_owned()))
    }

    fn icmp(self) -> Self {
        self.each(|rule| rule.protocol = Some(if rule.is_v6 { ICMPV6 } else { ICMP }))
    }

    /// ICMP of a type, in IPv4 and in IPv6, and of a code if one is given.
    fn kind(self, kinds: [u8; 2], code: Option<u8>) -> Self {
        self.icmp().each(|rule| rule.icmp = Some((kinds[usize::from(rule.is_v6)], code)))
    }

    fn protocol(self, number: u8) -> Self {
        self.each(|rule| rule.protocol = Some(number))
    }

    fn drop(self) -> Self {
        self.each(|rule| rule.action = Action::Drop)
    }

    fn disabled(self) -> Self {
        self.each(|rule| rule.is_enabled = false)
    }

    fn of(self, group: usize) -> Self {
        self.each(|rule| rule.remote = Remote::Group(group))
    }

    fn in_list(self) -> Self {
        self.each(|rule| rule.remote = Remote::Listed)
    }

    /// Addresses, in IPv4 and in IPv6.
    fn at(self, lists: [&str; 2]) -> Self {
        self.each(|rule| rule.remote = Remote::Addresses(lists[usize::from(rule.is_v6)].to_owned()))
    }

    fn v4(self) -> Self;
    fn v6(self) -> Self;
}

impl Said for Vec<Rule> {
    fn each(mut self, change: impl Fn(&mut Rule)) -> Self {
        self.iter_mut().for_each(change);
        self
    }

    fn v4(mut self) -> Self {
        self.retain(|rule| !rule.is_v6);
        self
    }

    fn v6(mut self) -> Self {
        self.retain(|rule| rule.is_v6);
        self
    }
}
