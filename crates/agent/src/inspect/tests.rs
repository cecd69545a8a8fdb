//! What an operator is shown of a host.

use std::sync::Arc;

use wire::{holding::Holding, policy::Action};

use super::*;
use crate::{kernel::Ties, ledger::Ledger, sample};

fn desired() -> Desired {
    Desired { revision: 7, lineage: None, holding: Arc::new(sample::two_networks()) }
}

fn seen(tables: Tables, counters: Counters) -> Seen {
    let room = ConntrackSize::of_host(0, ConntrackSize::DEFAULT_PER_PORT);
    let connections = BTreeMap::new();
    Seen { tables, counters, room, salt: 0, learned: Vec::new(), connections }
}

fn tables() -> Tables {
    let interfaces = [(sample::PORT_A, 5), (sample::PORT_B, 6)];
    let interfaces = interfaces.map(|(port, ifindex)| (sample::uuid(port), sample::plug(ifindex)));
    let ties = Ties { ports: interfaces.into(), ..Ties::default() };
    Ledger::of(&sample::two_networks(), &ties).tables().clone()
}

#[test]
fn maps_as_wanted_say_so_with_equal_digests() {
    let report = report(Some(&desired()), &seen(tables(), Counters::default()));
    assert!(report.as_desired);
    assert_eq!(report.saved.unwrap().kernel, report.kernel);
    assert_eq!((report.missing, report.unexpected), (vec![], vec![]));
    let ports: Vec<_> = report.ports.iter().map(|port| (port.ifindex, port.nic)).collect();
    let nics = [sample::PORT_A, sample::PORT_B].map(|nic| Some(sample::uuid(nic)));
    assert_eq!(ports, [(5, nics[0]), (6, nics[1])]);
    assert!(report.ports.iter().all(|port| port.instance.as_deref() == Some("vm 20")));
}

#[test]
fn what_differs_is_named() {
    let mut tables = tables();
    let key = *tables.vteps.keys().next().unwrap();
    let vtep = tables.vteps.remove(&key).unwrap();
    tables.vteps.insert(packet::VtepKey { vni: 77, ..key }, vtep);
    let report = report(Some(&desired()), &seen(tables, Counters::default()));
    assert!(!report.as_desired);
    assert_eq!(report.missing, ["VTEP 192.0.2.2 may send VNI 101 into network 1"]);
    assert_eq!(report.unexpected, ["VTEP 192.0.2.2 may send VNI 77 into network 1"]);
    let text = report.to_string();
    assert!(text.contains("not as wanted"), "{text}");
    assert!(text.contains("  missing: VTEP 192.0.2.2 may send VNI 101"), "{text}");
}

#[test]
fn maps_as_wanted_are_not_all_that_is() {
    let report = report(Some(&desired()), &seen(tables(), Counters::default()));
    let text = |agent, in_effect| {
        let report = Inspection { agent, in_effect, ..report.clone() };
        report.to_string()
    };
    let alone = text(None, false);
    assert!(alone.contains("in force the maps are as wanted"), "{alone}");
    assert!(alone.contains("agent    does not run"), "{alone}");
    let well = text(Some(Word { revision: Some(7), ..Word::default() }), true);
    assert!(well.contains("in force as wanted"), "{well}");
    assert!(well.contains("agent    all is in effect"), "{well}");
    let reason = "the host has no tunnel device".to_owned();
    let not_in_effect = [(sample::uuid(sample::PORT_A), reason.clone())].into();
    let word = Word { revision: Some(7), not_in_effect, trouble: vec![reason], ..Word::default() };
    let losses = vec![Loss { device: "nlvx".to_owned(), tx_errors: 3, ..Loss::default() }];
    let ill = text(Some(Word { losses, ..word }), false);
    assert!(ill.contains("           3  dropped by the kernel on nlvx"), "{ill}");
    assert!(ill.contains("agent    not all is in effect"), "{ill}");
    assert!(ill.contains("  this host: the host has no tunnel device"), "{ill}");
    assert!(ill.contains("(NIC of vm 20): the host has no tunnel device"), "{ill}");
}

#[test]
fn policies_are_shown_and_what_the_maps_lack_of_them_is_named() {
    let port = sample::port(sample::PORT_A, sample::INSTANCE, sample::NETWORK_A, 5);
    let mut holding = sample::two_networks();
    holding.upsert(sample::filtered(port, &[101, 102]));
    holding.upsert(sample::group(101, vec![sample::rule(1, Action::Accept, Some(80))]));
    let interfaces = [(sample::PORT_A, 5), (sample::PORT_B, 6)];
    let interfaces = interfaces.map(|(port, ifindex)| (sample::uuid(port), sample::plug(ifindex)));
    let ties = Ties { ports: interfaces.into(), ..Ties::default() };
    let show = |holding: &Holding, tables: &Tables| {
        let holding = Arc::new(holding.clone());
        let desired = Desired { revision: 7, lineage: None, holding };
        report(Some(&desired), &seen(tables.clone(), Counters::default()))
    };
    let tables = Ledger::of(&holding, &ties).tables().clone();
    let closed = show(&holding, &tables);
    assert!(closed.as_desired, "{:?} {:?}", closed.missing, closed.unexpected);
    let policy = closed.ports[0].policy.as_ref().unwrap();
    assert_eq!((policy.ingress, policy.egress), ("DROP", "ACCEPT"));
    assert_eq!(policy.groups.iter().map(|g| g.rules).collect::<Vec<_>>(), [Some(1), None]);
    assert!(policy.closed.as_ref().unwrap().contains("is not known here yet"));
    assert!(
        closed.to_string().contains("port 5: 2 security groups, then DROP in, ACCEPT out; its")
    );
    assert_eq!(closed.ports[1].policy, None);

    holding.upsert(sample::group(102, Vec::new()));
    let before = show(&holding, &tables);
    assert!(!before.as_desired);
    assert!(before.missing.contains(&"port 5 has its policy".to_owned()), "{before:?}");
    let mut tables = Ledger::of(&holding, &ties).tables().clone();
    let open = show(&holding, &tables);
    assert!(open.as_desired && open.ports[0].policy.as_ref().unwrap().closed.is_none());
    tables.chapters.pop_first();
    assert_eq!(show(&holding, &tables).missing, ["1 entries of chapters, for policies"]);
}

#[test]
fn without_a_saved_state_nothing_is_as_wanted() {
    let report = report(None, &seen(Tables::default(), Counters::default()));
    assert!(!report.as_desired);
    assert!(report.to_string().contains("nothing was saved yet"));
}

#[test]
fn drops_come_with_their_meaning() {
    let counters = Counters { drops: [("spoofed_mac", 3)].into(), ..Counters::default() };
    let report = report(Some(&desired()), &seen(tables(), counters));
    let text = report.to_string();
    assert!(text.contains("3  spoofed_mac: The source MAC is not the port's."), "{text}");
}
