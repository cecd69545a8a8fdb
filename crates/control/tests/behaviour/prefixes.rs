//! Prefixes that NICs route for: who may say so, and that nobody becomes somebody else by it.

use model::{Code, Error, Id, Kind, resource::vm_nic::VmNic};
use netloom_control::Caller;
use serde_json::{Value, json};

use crate::{
    harness::{Cloud, Fixture, range, request, tenant},
    releases::acknowledged,
};

/// An instance on a network, and its NIC.
fn vm(cloud: &Cloud, l3: &str, host: &str) -> (String, Id<VmNic>) {
    let params = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    let vm = cloud.made("CreateVmInstance", params);
    let nic = cloud.nics(&vm).remove(0).uuid;
    (vm, nic)
}

fn wanted(nic: Id<VmNic>, prefixes: &[&str]) -> Value {
    json!({"vmNicUuid": nic, "prefixes": prefixes})
}

fn set(cloud: &Cloud, nic: Id<VmNic>, prefixes: &[&str]) -> Result<(), Error> {
    cloud.call("SetVmNicAllowedPrefixes", wanted(nic, prefixes)).map(|_| ())
}

fn has(cloud: &Cloud, nic: Id<VmNic>) -> Vec<String> {
    let nic = cloud.get(nic).unwrap();
    nic.allowed_prefixes.iter().map(ToString::to_string).collect()
}

fn refused(cloud: &Cloud, nic: Id<VmNic>, prefixes: &[&str]) -> (Code, String) {
    let (code, field, text) = cloud.refusal("SetVmNicAllowedPrefixes", wanted(nic, prefixes));
    assert!(field.is_some_and(|field| field.starts_with("prefixes")), "{text}");
    (code, text)
}

/// Two NICs on one network, on two hosts.
fn two() -> (Cloud, Fixture, String, [Id<VmNic>; 2]) {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let [first, second] = &fixture.hosts;
    let nics = [vm(&cloud, &l3, first).1, vm(&cloud, &l3, second).1];
    (cloud, fixture, l3, nics)
}

#[test]
fn a_nic_has_the_prefixes_that_it_was_given_last_and_its_host_is_waited_for() {
    let (cloud, fixture, _, [nic, _]) = two();
    let given = wanted(nic, &["fd77::/64", "192.168.77.0/24", "0.0.0.0/0", "::/0", "10.9.9.9/32"]);
    let done = cloud.run("SetVmNicAllowedPrefixes", given, &[], None).unwrap();
    let host = fixture.hosts[0].parse().unwrap();
    assert!(done.hosts.contains(&host) && done.objects.contains(&nic.uuid()));
    let sorted = ["0.0.0.0/0", "10.9.9.9/32", "192.168.77.0/24", "::/0", "fd77::/64"];
    assert_eq!(has(&cloud, nic), sorted);
    set(&cloud, nic, &["192.168.77.0/24"]).unwrap();
    assert_eq!(has(&cloud, nic), ["192.168.77.0/24"]);
    cloud.call("SetVmNicAllowedPrefixes", json!({"vmNicUuid": nic})).unwrap();
    assert_eq!(has(&cloud, nic), [""; 0]);
}

#[test]
fn what_is_no_prefix_of_machines_is_refused() {
    let (cloud, _, _, [nic, _]) = two();
    for (prefixes, says) in [
        (&["192.168.77.5/24"][..], "write 192.168.77.0/24"),
        (&["fd77::1/64"], "write fd77::/64"),
        (&["224.0.0.0/4"], "no machine's"),
        (&["0.0.0.0/1"], "no machine's"),
        (&["169.254.169.254/32"], "no machine's"),
        (&["::ffff:0.0.0.0/96"], "no machine's"),
        (&["fe80::/64"], "no machine's"),
        (&["192.168.77.0/24", "192.168.77.0/24"], "is in"),
        (&["192.168.77.128/25", "0.0.0.0/0", "192.168.0.0/16"], "is in"),
        (&["0.0.0.0/0", "0.0.0.0/0"], "is in"),
        (&["192.168.77.0"], "prefixes"),
    ] {
        let (code, text) = refused(&cloud, nic, prefixes);
        assert_eq!(code, Code::InvalidArgument, "{prefixes:?}");
        assert!(text.contains(says), "{prefixes:?}: {text}");
    }
    let prefixes = |count: u32| -> Vec<String> {
        (0..count).map(|number| format!("192.168.{number}.0/24")).collect()
    };
    let given = |count| json!({"vmNicUuid": nic, "prefixes": prefixes(count)});
    assert_eq!(cloud.refusal("SetVmNicAllowedPrefixes", given(33)).0, Code::InvalidArgument);
    cloud.call("SetVmNicAllowedPrefixes", given(32)).unwrap();
}

#[test]
fn no_prefix_has_addresses_of_a_range_a_gateway_or_a_router() {
    let (cloud, fixture, l3, [nic, _]) = two();
    let router = json!({"l3NetworkUuid": l3, "routerInterfaceIp": "10.0.0.99"});
    cloud.call("SetL3NetworkRouterInterfaceIp", router).unwrap();
    for prefix in ["10.0.0.12/30", "10.0.0.10/32", "10.0.0.13/32", "10.0.0.0/8", "10.0.0.0/28"] {
        assert!(refused(&cloud, nic, &[prefix]).1.contains("of range"), "{prefix}");
    }
    assert!(refused(&cloud, nic, &["10.0.0.1/32"]).1.contains("the gateway"));
    assert!(refused(&cloud, nic, &["10.0.0.96/30"]).1.contains("the router"));
    set(&cloud, nic, &["10.0.0.128/25", "10.0.0.32/27", "0.0.0.0/0"]).unwrap();

    // And the reverse.
    for (start, end) in
        [("10.0.0.200", "10.0.0.210"), ("10.0.0.20", "10.0.0.32"), ("10.0.0.20", "10.0.0.80")]
    {
        let (_, _, text) = cloud.refusal("AddIpRange", range(&l3, start, end));
        assert!(text.contains("a NIC routes for it"), "{text}");
    }
    let router = json!({"l3NetworkUuid": l3, "routerInterfaceIp": "10.0.0.130"});
    let (_, _, text) = cloud.refusal("SetL3NetworkRouterInterfaceIp", router);
    assert!(text.contains("which a NIC routes for"), "{text}");
    cloud.made("AddIpRange", range(&l3, "10.0.0.20", "10.0.0.31"));
    // Another L2 network has other addresses.
    let blue = cloud.l3(&fixture, "blue");
    cloud.made("AddIpRange", range(&blue, "10.0.0.200", "10.0.0.210"));
}

#[tokio::test]
async fn a_prefix_is_of_one_nic_until_every_host_has_let_go_of_it() {
    let (mut cloud, fixture, _, [first, second]) = two();
    set(&cloud, first, &["192.168.64.0/20", "192.168.128.0/24", "0.0.0.0/0"]).unwrap();
    for prefix in
        ["192.168.64.0/20", "192.168.77.0/24", "192.168.0.0/16", "192.168.128.0/25", "192.0.0.0/8"]
    {
        let (code, text) = refused(&cloud, second, &[prefix]);
        assert_eq!(code, Code::InUse, "{prefix}");
        assert!(text.contains(&first.to_string()), "{text}");
    }
    assert_eq!(refused(&cloud, second, &["0.0.0.0/0"]).0, Code::InUse);
    set(&cloud, second, &["192.168.80.0/20", "192.168.129.0/24", "::/0"]).unwrap();

    // A NIC may take in what it has.
    set(&cloud, first, &["192.168.64.0/21"]).unwrap();
    let [one, other] = fixture.hosts.each_ref();
    cloud.tell(one);
    cloud.tell(other);
    let (code, text) = refused(&cloud, second, &["192.168.72.0/24"]);
    assert!(code == Code::InUse && text.contains("still being released"), "{text}");
    acknowledged(&mut cloud, &[one, other], 0).await;
    set(&cloud, second, &["192.168.72.0/24", "0.0.0.0/0"]).unwrap();
}

/// As keepalived has it: both may answer for the address, one of them does.
#[tokio::test]
async fn one_address_may_be_had_by_several_nics_and_by_nothing_else() {
    let (mut cloud, fixture, l3, [first, second]) = two();
    set(&cloud, first, &["10.0.0.77/32", "fd00::77/128"]).unwrap();
    set(&cloud, second, &["10.0.0.77/32"]).unwrap();
    let (code, text) = refused(&cloud, second, &["10.0.0.72/29"]);
    assert!(code == Code::InUse && text.contains("10.0.0.77/32"), "{text}");
    let (code, ..) = cloud.refusal("AddIpRange", range(&l3, "10.0.0.70", "10.0.0.80"));
    assert_eq!(code, Code::InvalidArgument);
    // It is told to both hosts as a prefix of both.
    let [one, other] = fixture.hosts.each_ref();
    cloud.tell(one);
    cloud.tell(other);
    set(&cloud, first, &[]).unwrap();
    let (code, ..) = cloud.refusal("AddIpRange", range(&l3, "10.0.0.70", "10.0.0.80"));
    assert_eq!(code, Code::InvalidArgument, "the other one has it");
    set(&cloud, second, &[]).unwrap();
    let (code, text) = refused(&cloud, second, &["10.0.0.72/29"]);
    assert!(code == Code::InUse && text.contains("still being released"), "{text}");
    acknowledged(&mut cloud, &[one, other], 0).await;
    set(&cloud, second, &["10.0.0.72/29"]).unwrap();
    assert_eq!(refused(&cloud, first, &["10.0.0.77/32"]).0, Code::InUse);
}

/// A host that has not let go of the deleted NIC still takes its address for that one's.
#[tokio::test]
async fn no_prefix_has_an_address_that_rests_though_its_range_is_gone() {
    let (mut cloud, fixture, l3, [first, second]) = two();
    let more = cloud.made("AddIpRange", range(&l3, "10.0.0.20", "10.0.0.20"));
    let extra = json!({"l3NetworkUuid": l3, "ip": "10.0.0.20"});
    cloud.made("CreateVmNic", extra);
    let [one, other] = fixture.hosts.each_ref();
    cloud.call("DeleteIpRange", json!({"uuid": more})).unwrap();
    cloud.tell(one);
    cloud.tell(other);
    let (code, text) = refused(&cloud, first, &["10.0.0.16/28"]);
    assert!(code == Code::InUse && text.contains("10.0.0.20, which is still being"), "{text}");
    set(&cloud, second, &["10.0.0.24/29"]).unwrap();
    acknowledged(&mut cloud, &[one, other], 0).await;
    set(&cloud, first, &["10.0.0.16/29"]).unwrap();
}

#[test]
fn a_nic_that_goes_to_another_network_leaves_its_prefixes_behind() {
    let (cloud, fixture, _, [nic, other]) = two();
    let blue = cloud.l3(&fixture, "blue");
    set(&cloud, nic, &["192.168.77.0/24"]).unwrap();
    cloud.call("ChangeVmNicNetwork", json!({"vmNicUuid": nic, "destL3NetworkUuid": blue})).unwrap();
    assert_eq!(has(&cloud, nic), [""; 0]);
    assert!(refused(&cloud, other, &["192.168.77.0/24"]).1.contains("still being released"));
    set(&cloud, nic, &["192.168.77.0/24"]).unwrap();
}

#[test]
fn only_who_owns_the_network_says_what_a_nic_of_it_routes_for() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (owner, guest) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let l3 = cloud.l3(&fixture, "red");
    cloud.give(Kind::L3Network, &l3, owner.account().unwrap());
    let share = json!({"resourceUuids": [l3], "accountUuids": [guest.account().unwrap()]});
    cloud.call("ShareResource", share).unwrap();
    let nic_of = |caller: Caller| -> Id<VmNic> {
        let params = json!({"l3NetworkUuid": l3});
        let done = cloud.send(caller, vec![request("CreateVmNic", params)]).unwrap();
        Id::new(done.reply.subject.unwrap().1)
    };
    let set = |caller: Caller, nic, prefixes: &[&str]| {
        let sent = request("SetVmNicAllowedPrefixes", wanted(nic, prefixes));
        cloud.send(caller, vec![sent]).map(|_| ()).map_err(|error| (error.code, error.message))
    };
    let (own, foreign) = (nic_of(owner), nic_of(guest));
    set(owner, own, &["192.168.77.0/24"]).unwrap();
    let (code, text) = set(owner, own, &["0.0.0.0/0"]).unwrap_err();
    assert!(code == Code::AccessDenied && text.contains("for administrators"), "{text}");
    let (code, text) = set(guest, foreign, &["192.168.88.0/24"]).unwrap_err();
    assert!(code == Code::AccessDenied && text.contains("another account's"), "{text}");
    let (code, _) = set(guest, own, &[]).unwrap_err();
    assert_eq!(code, Code::NotFound, "a NIC of somebody else");
    set(crate::harness::ADMINISTRATOR, foreign, &["192.168.88.0/24"]).unwrap();
    set(guest, foreign, &[]).unwrap();

    // What is another's is refused without a name.
    set(crate::harness::ADMINISTRATOR, foreign, &["192.168.99.0/24"]).unwrap();
    let (code, text) = set(owner, own, &["192.168.99.0/25"]).unwrap_err();
    assert!(code == Code::InUse && !text.contains(&foreign.to_string()), "{text}");
}
