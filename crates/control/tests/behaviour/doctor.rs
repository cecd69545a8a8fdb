//! The doctor: it names what leaks, each by what does not hold. Leaks are planted past the handlers,
//! straight into the store.

use model::{
    AnyId, Code, Id, Kind, Record, Resource,
    resource::{
        account::Account, host::Host, ip_range::IpRange, l2_network::L2Network, release::Release,
        used_ip::UsedIp, vm_instance::VmInstance, vm_nic::VmNic,
    },
};
use netloom_control::doctor::{self, NAMED_MAX, Rule};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, Fixture};

/// A NIC with an address of an L3 network.
struct Ward {
    cloud: Cloud,
    fixture: Fixture,
    l3: String,
    nic: VmNic,
    used: UsedIp,
}

const NOWHERE: Uuid = Uuid::from_u128(0xbad);

fn ward() -> Ward {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let vm = cloud.made("CreateVmInstance", json!({"name": "vm", "l3NetworkUuids": [l3]}));
    let nic = cloud.nics(&vm).remove(0);
    let used = cloud.addresses(nic.uuid).remove(0);
    Ward { cloud, fixture, l3, nic, used }
}

impl Ward {
    /// Changes a row, as no handler would.
    fn plant<R: Resource + Clone>(&self, id: Id<R>, change: impl Fn(&mut R) + Send + 'static) {
        let plant = move |tx: &mut store::Tx<Record>| {
            let before = store::Read::get(tx, R::KIND, id.uuid()).unwrap();
            let mut row = R::of(&before).unwrap().clone();
            change(&mut row);
            tx.put(Record::new(row, before.meta)).unwrap();
            Ok(())
        };
        self.cloud.store.transact(plant).unwrap();
    }

    /// Takes a row away, and nothing else.
    fn lose(&self, kind: Kind, uuid: Uuid) {
        let lose = move |tx: &mut store::Tx<Record>| {
            tx.delete(kind, uuid);
            Ok(())
        };
        self.cloud.store.transact(lose).unwrap();
    }

    /// That exactly this is found: rule, resource and a part of the text.
    fn finds(&self, expected: &[(Rule, Uuid, &str)]) {
        let found = doctor::examine(&self.cloud.snapshot()).findings;
        for (rule, uuid, part) in expected {
            let is_it = |it: &&doctor::Finding| {
                it.rule == *rule && it.uuid == *uuid && it.text.contains(part)
            };
            assert!(found.iter().any(|it| is_it(&it)), "no {rule:?} {part}: {found:?}");
        }
        assert_eq!(found.len(), expected.len(), "{found:?}");
    }
}

#[test]
fn what_handlers_do_leaves_nothing_to_find() {
    let ward = ward();
    ward.finds(&[]);
    let vm = ward.nic.vm_instance_uuid.unwrap().to_string();
    ward.cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    ward.finds(&[]);
    ward.cloud.call("DeleteL3Network", json!({"uuid": ward.l3})).unwrap();
    ward.finds(&[]);
}

#[test]
fn an_address_whose_nic_is_gone_is_named() {
    let ward = ward();
    ward.lose(Kind::VmNic, ward.nic.uuid.uuid());
    let used = ward.used.uuid.uuid();
    ward.finds(&[
        (Rule::Address, used, "is allocated, and VmNic"),
        (Rule::Reference, used, "its usedBy"),
    ]);
}

#[test]
fn an_address_that_its_nic_does_not_have_is_named_and_so_is_the_nic() {
    let ward = ward();
    ward.plant(ward.nic.uuid, |nic| nic.used_ip_uuid = None);
    ward.finds(&[(Rule::Nic, ward.nic.uuid.uuid(), "has no address")]);
}

#[test]
fn an_address_that_is_allocated_for_a_nic_of_another_network_is_named() {
    let ward = ward();
    let blue = ward.cloud.l3(&ward.fixture, "blue");
    let vm = json!({"name": "vm", "l3NetworkUuids": [blue]});
    let vm = ward.cloud.made("CreateVmInstance", vm);
    let other = ward.cloud.nics(&vm).remove(0).uuid;
    ward.plant(ward.used.uuid, move |used| used.used_by = AnyId::of(other));
    ward.finds(&[
        (Rule::Address, ward.used.uuid.uuid(), "which knows nothing of it"),
        (Rule::Nic, ward.nic.uuid.uuid(), "which is not allocated for it"),
    ]);
}

#[test]
fn a_nic_whose_address_is_gone_is_named() {
    let ward = ward();
    ward.lose(Kind::UsedIp, ward.used.uuid.uuid());
    let nic = ward.nic.uuid.uuid();
    ward.finds(&[
        (Rule::Nic, nic, "which is not allocated for it"),
        (Rule::Reference, nic, "its usedIpUuid"),
    ]);
}

#[test]
fn an_address_outside_of_its_range_is_named() {
    let ward = ward();
    ward.plant(ward.used.uuid, |used| used.ip = "10.0.0.99".parse().unwrap());
    ward.finds(&[(Rule::Address, ward.used.uuid.uuid(), "10.0.0.99 is not in range")]);
}

#[test]
fn an_address_that_rests_and_that_no_release_holds_is_named() {
    let mut ward = ward();
    let vm = ward.nic.vm_instance_uuid.unwrap().to_string();
    ward.cloud.acked(&ward.fixture.hosts[0].clone(), 0);
    ward.cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    let snapshot = ward.cloud.snapshot();
    let is_of_ip = |release: &Release| release.claims.iter().any(|it| it.network().is_some());
    let releases = store::Read::list(&snapshot, Kind::Release);
    let mut releases = releases.map(|row| Release::of(&row).unwrap().clone());
    let release = releases.find(is_of_ip).unwrap().uuid;
    let rests = store::Read::list(&snapshot, Kind::UsedIp);
    let mut rests = rests.map(|row| UsedIp::of(&row).unwrap().clone());
    let rests = rests.find(|used| used.used_by == AnyId::of(release)).unwrap();
    ward.plant(release, |release| release.claims.clear());
    ward.finds(&[(Rule::Address, rests.uuid.uuid(), "which knows nothing of it")]);
}

#[test]
fn a_nic_on_another_host_than_its_instance_is_named() {
    let ward = ward();
    let hosts: Vec<Id<Host>> = ward.fixture.hosts.iter().map(|it| it.parse().unwrap()).collect();
    let other = hosts.into_iter().find(|host| Some(*host) != ward.nic.host_uuid);
    ward.plant(ward.nic.uuid, move |nic| nic.host_uuid = other);
    ward.finds(&[(Rule::Nic, ward.nic.uuid.uuid(), "is on host")]);
}

#[test]
fn an_instance_that_two_rows_have_on_two_hosts_is_named() {
    let ward = ward();
    let instance = ward.nic.vm_instance_uuid.unwrap();
    let hosts: Vec<Id<Host>> = ward.fixture.hosts.iter().map(|it| it.parse().unwrap()).collect();
    let on = ward.cloud.get::<VmInstance>(instance).unwrap().host_uuid;
    let other = hosts.into_iter().find(|host| Some(*host) != on).unwrap();
    let uuid = Id::new(Uuid::from_u128(7));
    let release = Release {
        uuid,
        objects: vec![instance.uuid()],
        claims: vec![model::Claim::Running(other, instance)],
        hosts: None,
        create_date: model::Timestamp(0),
    };
    let (now, owner) = (model::Timestamp(0), None);
    let row = Record::new(release, model::Meta { owner, created: now, changed: now });
    let put = move |tx: &mut store::Tx<Record>| {
        tx.put(row.clone()).unwrap();
        Ok(())
    };
    ward.cloud.store.transact(put).unwrap();
    let report = doctor::examine(&ward.cloud.snapshot());
    assert_eq!(report.total, 1, "{report:?}");
    assert!(report.findings[0].rule == Rule::Place, "{report:?}");
    assert!(report.findings[0].text.contains(&other.to_string()), "{report:?}");
}

#[test]
fn ranges_that_overlap_and_a_vni_outside_of_all_are_named() {
    let ward = ward();
    let more = crate::harness::range(&ward.l3, "10.0.0.20", "10.0.0.30");
    let more: Id<IpRange> = ward.cloud.made("AddIpRange", more).parse().unwrap();
    // Inside of the other one, so that no two claims are the same.
    ward.plant(more, |range| {
        (range.start_ip, range.end_ip) =
            ("10.0.0.11".parse().unwrap(), "10.0.0.12".parse().unwrap());
    });
    ward.finds(&[(Rule::Range, more.uuid(), "overlaps range")]);
    ward.plant(more, |range| {
        (range.start_ip, range.end_ip) =
            ("10.0.0.20".parse().unwrap(), "10.0.0.30".parse().unwrap());
    });
    let network: Id<L2Network> = ward.nic.l2_network_uuid;
    let found = store::Read::list(&ward.cloud.snapshot(), Kind::VniRange).next().unwrap();
    ward.lose(Kind::VniRange, found.uuid());
    ward.finds(&[(Rule::Range, network.uuid(), "is in no range of pool")]);
}

#[test]
fn a_prefix_that_somebody_else_is_or_has_is_named() {
    let ward = ward();
    let vm = json!({"name": "vm", "l3NetworkUuids": [ward.l3]});
    let vm = ward.cloud.made("CreateVmInstance", vm);
    let (nic, other) = (ward.nic.uuid, ward.cloud.nics(&vm).remove(0).uuid);
    let set = |nic: Id<VmNic>, prefixes: &[&str]| {
        let params = json!({"vmNicUuid": nic, "prefixes": prefixes});
        ward.cloud.call("SetVmNicAllowedPrefixes", params).unwrap();
    };
    let router = json!({"l3NetworkUuid": ward.l3, "routerInterfaceIp": "10.0.0.99"});
    ward.cloud.call("SetL3NetworkRouterInterfaceIp", router).unwrap();
    ward.cloud.made("AddIpRange", crate::harness::range(&ward.l3, "10.0.0.40", "10.0.0.42"));
    set(nic, &["192.168.64.0/20", "0.0.0.0/0"]);
    set(other, &["192.168.80.0/20", "fd77::/64", "::/0"]);
    ward.finds(&[]);
    let uuid = other.uuid();
    for (prefix, text) in [
        ("192.168.77.0/24", &format!("192.168.77.0/24 is in 192.168.64.0/20 of VmNic {nic}")[..]),
        ("192.168.77.7/32", "is in 192.168.64.0/20"),
        ("10.0.0.41/32", "addresses of range"),
        ("10.0.0.42/31", "addresses of range"),
        ("10.0.0.32/28", "addresses of range"),
        ("10.0.0.1/32", "has 10.0.0.1, the gateway of IpRange"),
        ("10.0.0.96/27", "has 10.0.0.99, the router of L3Network"),
        (&format!("{}/32", ward.used.ip), "the address of UsedIp"),
        ("192.168.80.1/20", "192.168.80.1/20 is no prefix"),
    ] {
        let net: ipnet::IpNet = prefix.parse().unwrap();
        ward.plant(other, move |nic| nic.allowed_prefixes = vec![net]);
        ward.finds(&[(Rule::Prefix, uuid, text)]);
    }
    for prefix in ["10.0.0.14/32", "10.0.0.43/32", "10.0.0.128/25", "fd77::/64"] {
        let net: ipnet::IpNet = prefix.parse().unwrap();
        ward.plant(other, move |nic| nic.allowed_prefixes = vec![net]);
        ward.finds(&[]);
    }
    ward.plant(other, |nic| nic.allowed_prefixes = vec!["192.168.0.0/16".parse().unwrap()]);
    ward.finds(&[(Rule::Prefix, nic.uuid(), "192.168.64.0/20 is in 192.168.0.0/16 of VmNic")]);
}

#[test]
fn a_prefix_whose_nic_is_gone_and_that_nobody_waits_for_is_named() {
    let mut ward = ward();
    let params = json!({"vmNicUuid": ward.nic.uuid, "prefixes": ["192.168.64.0/20"]});
    ward.cloud.call("SetVmNicAllowedPrefixes", params).unwrap();
    ward.cloud.acked(&ward.fixture.hosts[0].clone(), 0);
    let vm = ward.nic.vm_instance_uuid.unwrap().to_string();
    ward.cloud.call("DestroyVmInstance", json!({"uuid": vm})).unwrap();
    ward.cloud.call("ExpungeVmInstance", json!({"uuid": vm})).unwrap();
    assert_eq!(ward.cloud.get(ward.nic.uuid), None);
    ward.finds(&[]);
    let snapshot = ward.cloud.snapshot();
    let is_prefix = |claim: &model::Claim| matches!(claim, model::Claim::Prefix(..));
    let releases = store::Read::list(&snapshot, Kind::Release);
    let mut releases = releases.map(|row| Release::of(&row).unwrap().clone());
    let release = releases.find(|release| release.claims.iter().any(is_prefix)).unwrap().uuid;
    ward.plant(release, |release| release.objects.clear());
    ward.finds(&[(Rule::Prefix, release.uuid(), "192.168.64.0/20 rests, and nobody waits")]);
}

#[test]
fn what_nobody_owns_is_named() {
    let ward = ward();
    let owner = |owner: Option<Id<Account>>| {
        let own = move |tx: &mut store::Tx<Record>| {
            let found = store::Read::get(tx, Kind::Zone, ward_zone(tx)).unwrap();
            let mut row = (*found).clone();
            row.meta.owner = owner;
            tx.put(row).unwrap();
            Ok(found.uuid())
        };
        ward.cloud.store.transact(own).unwrap().value
    };
    let zone = owner(None);
    ward.finds(&[(Rule::Owner, zone, "nobody owns it")]);
    owner(Some(Id::new(NOWHERE)));
    ward.finds(&[(Rule::Owner, zone, "does not exist")]);
}

fn ward_zone(read: &impl store::Read<Record>) -> Uuid {
    read.list(Kind::Zone).next().unwrap().uuid()
}

#[test]
fn a_report_counts_all_and_names_some() {
    let ward = ward();
    let used = ward.used.clone();
    let plant = move |tx: &mut store::Tx<Record>| {
        let before = store::Read::get(tx, Kind::UsedIp, used.uuid.uuid()).unwrap();
        for n in 0..600_u32 {
            let uuid = Id::new(Uuid::from_u128(n.into()));
            let ip = std::net::Ipv4Addr::from(0x0a07_0000 + n).into();
            let used_by = AnyId { kind: Kind::VmNic, uuid: NOWHERE };
            tx.put(Record::new(UsedIp { uuid, ip, used_by, ..used.clone() }, before.meta)).unwrap();
        }
        Ok(())
    };
    ward.cloud.store.transact(plant).unwrap();
    let report = doctor::examine(&ward.cloud.snapshot());
    // Each is in no range, and has nobody, and points at nobody.
    assert_eq!((report.total, report.findings.len()), (1800, NAMED_MAX));
}

#[test]
fn an_administrator_asks_and_nobody_else() {
    let ward = ward();
    let tenant = crate::harness::tenant(&ward.cloud, 0xa);
    let refused = ward.cloud.look(tenant, "GetDoctorReport", json!({})).unwrap_err();
    assert_eq!(refused.code, Code::AccessDenied);
    ward.lose(Kind::VmNic, ward.nic.uuid.uuid());
    let answer = ward.cloud.look(ADMINISTRATOR, "GetDoctorReport", json!({})).unwrap();
    assert_eq!((&answer["sound"], &answer["total"]), (&json!(false), &json!(2)));
    assert_eq!(answer["findings"][1]["resourceType"], "UsedIpVO");
    assert_eq!(answer["findings"][1]["rule"], "Address");
}
