//! What histories find of VIPs, and what holds of what uses them.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Record,
    resource::{
        eip::Eip,
        port_forwarding::PortForwardingRule,
        used_ip::UsedIp,
        vip::Vip,
        vm_instance::{Phase, VmInstance},
        vm_nic::VmNic,
    },
};
use serde_json::json;
use store::Snapshot;

use super::rows;
use crate::harness::{Cloud, Fixture};

/// A public network with VIPs: one that is free, one with an EIP, one with rules; and where these could lead.
pub(super) fn put(cloud: &Cloud, fixture: &Fixture, guest: &str) {
    let l2 = json!({"name": "public", "zoneUuid": fixture.zone, "physicalInterface": "eth7"});
    let l2 = cloud.made("CreateL2NoVlanNetwork", l2);
    let l3 = json!({"name": "public", "l2NetworkUuid": l2, "category": "Public"});
    let l3 = cloud.made("CreateL3Network", l3);
    let range = json!({
        "l3NetworkUuid": l3, "name": "public", "startIp": "198.51.100.10",
        "endIp": "198.51.100.15", "netmask": "255.255.255.0", "gateway": "198.51.100.1",
    });
    cloud.made("AddIpRange", range);
    let vip = || cloud.made("CreateVip", json!({"name": "v", "l3NetworkUuid": l3}));
    vip();
    cloud.made("CreateEip", json!({"name": "e", "vipUuid": vip()}));
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": guest}));
    let vip = vip();
    for (port, nic) in [(2, Some(nic)), (9, None)] {
        let rule = json!({"name": "r", "vipUuid": vip, "vipPortStart": port, "vmNicUuid": nic,
            "protocolType": "TCP"});
        cloud.made("CreatePortForwardingRule", rule);
    }
}

/// Uses of VIPs are as the rules say, whatever happened to VIPs, NICs and instances.
pub(super) fn go_together(snapshot: &Snapshot<Record>) {
    let (eips, rules) = (rows::<Eip>(snapshot), rows::<PortForwardingRule>(snapshot));
    let whole: BTreeSet<_> = eips.iter().map(|eip| eip.vip_uuid).collect();
    assert_eq!(whole.len(), eips.len(), "a VIP has two EIPs");
    assert!(rules.iter().all(|rule| !whole.contains(&rule.vip_uuid)), "{rules:?}");
    for (at, one) in rules.iter().enumerate() {
        let meets = |other: &&PortForwardingRule| {
            other.vip_uuid == one.vip_uuid
                && other.protocol_type == one.protocol_type
                && other.vip_port_start <= one.vip_port_end
                && one.vip_port_start <= other.vip_port_end
        };
        assert_eq!(rules[at + 1..].iter().find(meets), None, "{one:?}");
    }
    let nics: BTreeMap<_, _> =
        rows::<VmNic>(snapshot).into_iter().map(|nic| (nic.uuid, nic)).collect();
    let phases: BTreeMap<_, _> =
        rows::<VmInstance>(snapshot).into_iter().map(|vm| (vm.uuid, vm.phase)).collect();
    let addresses = rows::<UsedIp>(snapshot);
    let of_eips = eips.iter().map(|it| (it.vm_nic_uuid, it.guest_l3_network_uuid, it.ip_version));
    let of_rules = rules.iter().map(|it| (it.vm_nic_uuid, it.guest_l3_network_uuid, 4));
    for (nic, l3, version) in of_eips.chain(of_rules) {
        let Some(nic) = nic.map(|nic| &nics[&nic]) else { continue };
        let phase = nic.vm_instance_uuid.map(|vm| phases[&vm]);
        assert_ne!(phase, Some(Phase::Destroyed), "{nic:?}");
        let is_its = |used: &&UsedIp| used.used_by.id() == Some(nic.uuid);
        let mut its = addresses.iter().filter(is_its).filter(|used| used.ip_version == version);
        assert_eq!(its.next().map(|used| used.l3_network_uuid), l3, "{nic:?}");
    }
    let mut vips: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for rule in &rules {
        let vm = rule.vm_nic_uuid.and_then(|nic| nics[&nic].vm_instance_uuid);
        vm.map(|vm| vips.entry(vm).or_default().insert(rule.vip_uuid));
    }
    assert!(vips.values().all(|of_vm| of_vm.len() == 1), "{vips:?}");
    let known: BTreeSet<_> = addresses.iter().map(|used| used.uuid).collect();
    assert!(rows::<Vip>(snapshot).iter().all(|vip| known.contains(&vip.used_ip_uuid)));
}
