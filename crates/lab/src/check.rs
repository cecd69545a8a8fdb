//! Who reaches whom, by packets, against what the topology expects.
//!
//! Which addresses VMs must have was written down by `up`. So a check works when the server is dead,
//! and notices a VM that has lost an address.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use model::Kind;

use crate::{
    CheckReport, Error, Pair, exec, names,
    probe::{self, Case, Probes, Seen, Vm},
    state::Place,
    topology::Topology,
    wait,
};

/// How long pairs that must reach each other may take until they do.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// How long a probe may be on its way before another one is sent.
const PROBE_LIMIT: Duration = Duration::from_millis(250);
/// Probes for each pair that must not reach; a bridge that floods, or a neighbour that is not
/// known yet, shows at the second at the latest.
const FORBIDDEN_PROBES: usize = 3;

/// See [`crate::check`].
pub(crate) fn check(lab: &str, root: &Path) -> Result<CheckReport, Error> {
    let place = Place::new(lab, root)?;
    let topology = exec::applied_topology(&place)?;
    let ports: BTreeSet<u16> = topology.ports().into_iter().chain([probe::PORT]).collect();
    let vms = open(&place, &topology, &ports)?;
    let named: Vec<(String, Vec<_>)> =
        vms.iter().map(|vm| (vm.name.clone(), vm.addresses.clone())).collect();
    let cases = cases(&named, &topology, &ports);
    let seen = probe(vms, cases.clone())?;
    let vm_names: Vec<&str> = named.iter().map(|(name, _)| name.as_str()).collect();
    Ok(judge(&vm_names, &cases, &seen))
}

fn open(place: &Place, topology: &Topology, ports: &BTreeSet<u16>) -> Result<Vec<Vm>, Error> {
    let missing = |vm: &str| Error::NoNode {
        lab: place.lab.clone(),
        node: vm.to_owned(),
        known: topology.vms().join(", "),
    };
    let mut addresses = place.addresses()?;
    let mut vms = Vec::new();
    for name in topology.vms() {
        let namespace =
            names::vm_namespace(&place.lab, names::uuid(&place.lab, Kind::VmInstance, name))?;
        let namespace = namespace.ok_or_else(|| missing(name))?;
        let wanted = addresses.remove(name).ok_or_else(|| missing(name))?;
        vms.push(Vm::open(name, wanted, &namespace, ports)?);
    }
    Ok(vms)
}

/// Each VM towards each address of each other VM, at each port.
fn cases(vms: &[(String, Vec<IpAddr>)], topology: &Topology, ports: &BTreeSet<u16>) -> Vec<Case> {
    let mut cases = Vec::new();
    for (from, (from_name, _)) in vms.iter().enumerate() {
        for (to, (to_name, addresses)) in vms.iter().enumerate().filter(|(to, _)| *to != from) {
            for address in addresses.iter().copied() {
                cases.extend(ports.iter().copied().map(|port| {
                    let expected = topology.reaches(from_name, to_name, port);
                    Case { from, to, address, port, expected }
                }));
            }
        }
    }
    cases
}

/// First those who must reach each other, until they do; then the others, while the first prove
/// again and again that packets still pass.
fn probe(vms: Vec<Vm>, cases: Vec<Case>) -> Result<Vec<Seen>, Error> {
    let expected = |at: usize| cases[at].expected;
    let mut probes = Probes::new(vms, cases.clone());
    wait::until(REACH_LIMIT, || {
        let nonces = probes.send(|probes, at| expected(at) && !probes.is_reached(at));
        listen(&mut probes, &nonces)?;
        Ok::<_, Error>(nonces.is_empty().then_some(()))
    })?;
    for _ in 0..FORBIDDEN_PROBES {
        let mut nonces = probes.send(|_, at| !expected(at));
        nonces.extend(probes.send(|_, at| expected(at)));
        listen(&mut probes, &nonces)?;
    }
    Ok(probes.seen)
}

/// Receives until all of these probes are answered, or their time is over.
fn listen(probes: &mut Probes, nonces: &[u64]) -> Result<(), Error> {
    wait::until(PROBE_LIMIT, || {
        probes.receive()?;
        Ok::<_, Error>(probes.are_answered(nonces).then_some(()))
    })?;
    Ok(())
}

/// Of a pair that must not reach, a packet on either side counts, also one that was meant for
/// somebody else: with equal addresses, isolation fails exactly there.
fn judge(vms: &[&str], cases: &[Case], seen: &[Seen]) -> CheckReport {
    let mut reached: Vec<bool> = Vec::with_capacity(cases.len());
    for (case, seen) in cases.iter().zip(seen) {
        let (arrived, answered) =
            (seen.arrived.contains(&case.to), seen.answered.contains(&case.to));
        reached.push(if case.expected { arrived && answered } else { arrived || answered });
    }
    for (case, seen) in cases.iter().zip(seen) {
        for other in seen.arrived.union(&seen.answered).filter(|vm| **vm != case.to) {
            let is_stray = |at: &usize| {
                let at = &cases[*at];
                (at.from, at.to, at.port) == (case.from, *other, case.port) && !at.expected
            };
            (0..cases.len()).filter(is_stray).for_each(|at| reached[at] = true);
        }
    }
    let pairs: Vec<Pair> = cases
        .iter()
        .zip(seen)
        .zip(&reached)
        .map(|((case, seen), reached)| Pair {
            from: vms[case.from].to_owned(),
            to: vms[case.to].to_owned(),
            address: case.address,
            port: case.port,
            expected: case.expected,
            seen: *reached,
            answered_by: seen.answered.iter().map(|vm| vms[*vm].to_owned()).collect(),
        })
        .collect();
    let as_expected = pairs.iter().filter(|pair| pair.expected == pair.seen).count();
    CheckReport { expected: pairs.len(), as_expected, pairs }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMS: [&str; 4] = ["red-1", "red-2", "blue-1", "blue-2"];

    /// What `judge` makes of one case, and of how many cases it disapproves.
    fn check(case: (usize, usize), arrived: &[usize], answered: &[usize]) -> (bool, usize) {
        let address = "10.0.0.12".parse().unwrap();
        let same = |a: usize, b: usize| a / 2 == b / 2;
        let pairs = (0..4).flat_map(|from| (0..4).map(move |to| (from, to)));
        let pairs = pairs.filter(|(from, to)| from != to);
        let cases: Vec<Case> = pairs
            .map(|(from, to)| Case { from, to, address, port: 1, expected: same(from, to) })
            .collect();
        let fine = |case: &Case| match case.expected {
            true => Seen { arrived: [case.to].into(), answered: [case.to].into() },
            false => Seen::default(),
        };
        let mut seen: Vec<Seen> = cases.iter().map(fine).collect();
        let at = cases.iter().position(|c| (c.from, c.to) == case).unwrap();
        seen[at] = Seen {
            arrived: arrived.iter().copied().collect(),
            answered: answered.iter().copied().collect(),
        };
        let report = judge(&VMS, &cases, &seen);
        (report.pairs[at].seen, report.expected - report.as_expected)
    }

    #[test]
    fn a_pair_reaches_only_when_the_probe_arrived_and_the_answer_came_back() {
        assert_eq!(check((0, 1), &[1], &[1]), (true, 0));
        assert_eq!(check((0, 1), &[1], &[]), (false, 1));
        assert_eq!(check((0, 1), &[], &[]), (false, 1));
    }

    #[test]
    fn a_forbidden_probe_counts_on_either_side() {
        assert_eq!(check((0, 3), &[], &[]), (false, 0));
        assert_eq!(check((0, 3), &[3], &[]), (true, 1));
        assert_eq!(check((0, 3), &[], &[3]), (true, 1));
    }

    #[test]
    fn the_own_tenant_at_the_same_address_may_answer() {
        assert_eq!(check((0, 3), &[1], &[1]), (false, 0));
        assert_eq!(check((0, 2), &[0], &[0]), (false, 0));
    }

    #[test]
    fn a_probe_at_the_wrong_vm_is_a_failure_though_the_right_one_answered() {
        assert_eq!(check((0, 1), &[1, 3], &[1]), (true, 1));
    }
}
