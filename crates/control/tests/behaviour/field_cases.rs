//! Cases that users of other clouds ran into in the field, by the numbers that they have there.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    thread,
};

use model::{Code, Error, Id, Kind, resource::used_ip::UsedIp};
use netloom_control::operation::Done;
use serde_json::{Value, json};
use store::Read;
use uuid::Uuid;

use crate::{
    harness::{Cloud, Fixture, range},
    releases::acknowledged,
};

const CLIENTS: usize = 24;

/// Calls a message with each of `wishes`, by [`CLIENTS`] clients at once.
fn at_once(cloud: &Cloud, message: &str, wishes: Vec<Value>) -> Vec<Result<Done, Error>> {
    let (wishes, results) = (Mutex::new(wishes), Mutex::new(Vec::new()));
    let next = || wishes.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let client = || {
        while let Some(params) = next() {
            let result = cloud.run(message, params, &[], None);
            results.lock().unwrap().push(result);
        }
    };
    thread::scope(|scope| (0..CLIENTS).for_each(|_| drop(scope.spawn(client))));
    results.into_inner().unwrap()
}

/// Field case F31: more wishes than addresses.
#[tokio::test]
async fn of_forty_at_once_for_twenty_addresses_twenty_get_one_each_round_after_round() {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    // With the four that are there, these are twenty.
    cloud.made("AddIpRange", range(&l3, "10.0.0.20", "10.0.0.35"));
    for round in 0..3 {
        let wishes = vec![json!({"l3NetworkUuid": l3}); 40];
        let (made, refused): (Vec<_>, Vec<_>) =
            at_once(&cloud, "CreateVmNic", wishes).into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (20, 20), "round {round}");
        for error in refused.into_iter().map(Result::unwrap_err) {
            let told = (error.code, error.field.as_deref());
            assert_eq!(told, (Code::IpExhausted, Some("l3NetworkUuid")), "{error}");
        }
        let snapshot = cloud.snapshot();
        let used = snapshot.list(Kind::UsedIp).map(|used| used.uuid());
        let used = used.map(|uuid| cloud.get(Id::<UsedIp>::new(uuid)).unwrap().ip);
        assert_eq!(used.collect::<BTreeSet<IpAddr>>().len(), 20, "round {round}");

        let nics = snapshot.list(Kind::VmNic).map(|nic| json!({"uuid": nic.uuid().simple()}));
        let twice = nics.flat_map(|nic| [nic.clone(), nic]).collect();
        let deleted = at_once(&cloud, "DeleteVmNic", twice);
        assert_eq!(deleted.iter().filter(|result| result.is_ok()).count(), 40, "round {round}");
        acknowledged(&mut cloud, &[], 0).await;
        assert_eq!(cloud.snapshot().total(Kind::UsedIp), 0, "round {round}");
    }
}

/// A range of IPv6 addresses, as whoever asks spells it.
fn range6(l3: &str, start: &str, end: &str, gateway: &str) -> Value {
    json!({
        "l3NetworkUuid": l3, "name": "six", "startIp": start, "endIp": end, "gateway": gateway,
        "prefixLen": 64, "addressMode": "Stateful-DHCP",
    })
}

/// Field case F32: one IPv6 address, many spellings.
#[test]
fn an_ipv6_address_is_one_however_it_is_spelt() {
    let spellings = [
        "fd00----70",
        "FD00----70",
        "fd00::70",
        "fd00----0070",
        "fd00:0000:0000:0000:0000:0000:0000:0070",
        "fd00--0--0--0--0--0--0--70",
        "fd00----0.0.0.112",
    ];
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    cloud.made("AddIpv6Range", range6(&l3, "fd00::10", "fd00::ff", "fd00::1"));
    let vm = json!({"name": "a", "l3NetworkUuids": [l3]});
    let tags = |spelling: &str| [format!("staticIp::{l3}::{spelling}")];
    for (at, spelling) in spellings.into_iter().enumerate() {
        let first = cloud.call_tagged("CreateVmInstance", vm.clone(), &tags(spelling)).unwrap();
        let first = first.subject.unwrap().1.simple().to_string();
        let nic = cloud.nics(&first).remove(0);
        assert_eq!(cloud.addresses(nic.uuid)[1].ip.to_string(), "fd00::70", "{spelling}");
        let other = spellings[(at + 1) % spellings.len()];
        let second = cloud.call_tagged("CreateVmInstance", vm.clone(), &tags(other)).unwrap_err();
        let told = (second.code, second.field.as_deref());
        assert_eq!(told, (Code::IpExhausted, Some("systemTags")), "{spelling}, {other}: {second}");
        assert!(second.message.contains("fd00::70"), "{second}");
        let nic = json!({"l3NetworkUuid": l3, "ip": other.replace("--", ":")});
        assert_eq!(cloud.refusal("CreateVmNic", nic).0, Code::IpExhausted, "{spelling}, {other}");
        cloud.call("DestroyVmInstance", json!({"uuid": first})).unwrap();
        cloud.give_up_releases();
    }
    for odd in ["fd00----70%eth0", "fd00----70%1", "[fd00----70]", "fd00----70/64", " fd00----70"] {
        let error = cloud.call_tagged("CreateVmInstance", vm.clone(), &tags(odd)).unwrap_err();
        let told = (error.code, error.field.as_deref());
        assert_eq!(told, (Code::InvalidArgument, Some("systemTags")), "{odd}: {error}");
    }
}

/// Field case F32, ranges.
#[test]
fn an_ipv6_range_is_one_however_it_is_spelt() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    for [start, end, gateway] in [
        ["FD00::A0", "FD00::AF", "FD00::1"],
        ["fd00:0:0:0:0:0:0:00a0", "fd00:0000::00af", "fd00::0001"],
        ["fd00::0.0.0.160", "fd00::0.0.0.175", "fd00::0.0.0.1"],
    ] {
        let id = cloud.made("AddIpv6Range", range6(&l3, start, end, gateway));
        let kept = cloud.get::<model::resource::ip_range::IpRange>(id.parse().unwrap()).unwrap();
        let kept = [kept.start_ip, kept.end_ip, kept.gateway].map(|ip| ip.to_string());
        assert_eq!(kept, ["fd00::a0", "fd00::af", "fd00::1"], "{start}");
        let again = cloud.refusal("AddIpv6Range", range6(&l3, "fd00::af", "fd00::b0", "fd00::1"));
        assert_eq!((again.0, again.1.as_deref()), (Code::InvalidArgument, Some("startIp")));
        cloud.call("DeleteIpRange", json!({"uuid": id})).unwrap();
    }
    for (field, value) in
        [("startIp", "fd00::a0%eth0"), ("endIp", "fd00::af%2"), ("gateway", "fd00::1%eth0")]
    {
        let mut params = range6(&l3, "fd00::a0", "fd00::af", "fd00::1");
        params[field] = value.into();
        let (code, seen, text) = cloud.refusal("AddIpv6Range", params);
        assert_eq!((code, seen.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
    }
}

/// Adds an IPv4 range: start, end, mask, gateway.
fn add(cloud: &Cloud, l3: &str, [start, end, netmask, gateway]: [&str; 4]) -> Result<(), Error> {
    let params = json!({
        "l3NetworkUuid": l3, "name": "edge", "startIp": start, "endIp": end, "netmask": netmask,
        "gateway": gateway,
    });
    cloud.call("AddIpRange", params).map(drop)
}

/// A NIC that asks for this address gets it.
fn gives(cloud: &Cloud, l3: &str, ip: &str) {
    let nic = cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": ip}));
    let used = cloud.addresses(nic.parse().unwrap());
    assert!(used.iter().any(|used| used.ip.to_string() == ip), "{ip}: {used:?}");
}

/// Field case F33: what is taken. What is refused at the edges is in
/// `refusals::ranges_at_the_edges_of_the_address_space_are_refused`.
#[test]
fn ranges_may_reach_to_the_edges_of_their_subnets() {
    let cases: [([&str; 4], &[&str]); 6] = [
        (["10.0.0.2", "10.0.0.2", "255.255.255.252", "10.0.0.1"], &["10.0.0.2"]),
        (["10.0.0.250", "10.0.0.255", "255.255.254.0", "10.0.0.1"], &["10.0.0.255"]),
        (["10.0.1.0", "10.0.1.9", "255.255.254.0", "10.0.0.1"], &["10.0.1.0"]),
        // The last address of one half of the subnet, and the first of the other.
        (
            ["10.0.0.2", "10.0.1.254", "255.255.254.0", "10.0.0.1"],
            &["10.0.0.255", "10.0.1.0", "10.0.1.254"],
        ),
        (
            ["10.0.0.2", "10.255.255.254", "255.0.0.0", "10.0.0.1"],
            &["10.0.0.2", "10.255.255.254", "10.1.0.0"],
        ),
        (["10.0.0.1", "10.0.0.253", "255.255.255.0", "10.0.0.254"], &["10.0.0.1", "10.0.0.253"]),
    ];
    for (given, addresses) in cases {
        let (cloud, fixture) = Cloud::with_two_hosts();
        let l3 = empty_l3(&cloud, &fixture);
        add(&cloud, &l3, given).unwrap_or_else(|error| panic!("{given:?}: {error}"));
        addresses.iter().for_each(|ip| gives(&cloud, &l3, ip));
        if given[0] == given[1] {
            let (code, ..) = cloud.refusal("CreateVmNic", json!({"l3NetworkUuid": l3}));
            assert_eq!(code, Code::IpExhausted);
        }
    }
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let last = "fd00::ffff:ffff:ffff:ffff";
    cloud.made("AddIpv6Range", range6(&l3, "fd00::2", last, "fd00::1"));
    ["fd00::2", last, "fd00::ffff"].iter().for_each(|ip| gives(&cloud, &l3, ip));
}

/// Field case F33: what is refused by the way it is written.
#[test]
fn addresses_and_masks_of_ranges_are_written_in_one_way() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = empty_l3(&cloud, &fixture);
    let fine = ["10.0.0.10", "10.0.0.20", "255.255.255.0", "10.0.0.1"];
    let cases = [
        (0, "10.0.0.010", "startIp"),
        (1, "10.0.0.020", "endIp"),
        (3, "010.0.0.1", "gateway"),
        (0, "10.0.10", "startIp"),
        (0, "0x0a00000a", "startIp"),
        (0, "10.0.0.10/24", "startIp"),
        (0, " 10.0.0.10", "startIp"),
        (2, "24", "netmask"),
        (2, "255.0.255.0", "netmask"),
        (2, "0.0.0.255", "netmask"),
        (2, "255.255.255.254", "netmask"),
        (2, "255.255.255.255", "netmask"),
        (3, "10.0.0.255", "gateway"),
        (3, "10.0.0.0", "gateway"),
        (0, "10.0.0.0", "startIp"),
        (1, "10.0.0.255", "endIp"),
        (3, "10.0.0.15", "gateway"),
    ];
    for (at, text, field) in cases {
        let mut params = fine;
        params[at] = text;
        let error = add(&cloud, &l3, params).unwrap_err();
        let told = (error.code, error.field.as_deref());
        assert_eq!(told, (Code::InvalidArgument, Some(field)), "{text}: {error}");
        assert!(error.hint.is_some(), "{text}: {error}");
    }
    for (start, prefix, field) in
        [("fd00::", 64, "startIp"), ("fd00::2", 127, "prefixLen"), ("fd00::2", 128, "prefixLen")]
    {
        let mut params = range6(&l3, start, "fd00::3", "fd00::1");
        params["prefixLen"] = prefix.into();
        let (code, seen, text) = cloud.refusal("AddIpv6Range", params);
        assert_eq!((code, seen.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
    }
    add(&cloud, &l3, fine).unwrap();
}

/// An L3 network without a range.
fn empty_l3(cloud: &Cloud, fixture: &Fixture) -> String {
    let l2 = json!({"name": "edge", "poolUuid": fixture.pool});
    let l2 = cloud.made("CreateL2VxlanNetwork", l2);
    cloud.made("CreateL3Network", json!({"name": "edge", "l2NetworkUuid": l2}))
}

/// Field case F36: a uuid that is used twice at once, destroyed twice at once, and used again on
/// another host while the first one has not yet let go.
#[test]
fn a_uuid_that_is_used_again_is_one_resource() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let uuid = Uuid::from_u128(7);
    let on = |host: &str| json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    let create =
        |host: &str, tags: &[String]| cloud.run("CreateVmInstance", on(host), tags, Some(uuid));
    let destroy = || cloud.run("DestroyVmInstance", json!({"uuid": uuid.simple()}), &[], None);
    let [first, second] = &fixture.hosts;
    let static_ip = |ip: &str| [format!("staticIp::{l3}::{ip}")];

    let results: Vec<_> = thread::scope(|scope| {
        let one = || create(first, &static_ip("10.0.0.11"));
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), cloud.snapshot().total(Kind::VmInstance)), (1, 1));
    for error in refused.into_iter().map(Result::unwrap_err) {
        let told = (error.code, error.field.as_deref());
        assert_eq!(told, (Code::UuidTaken, Some("resourceUuid")), "{error}");
        assert!(error.to_string().contains(&uuid.simple().to_string()), "what to look at: {error}");
    }
    let nics: BTreeSet<_> = cloud.nics(&uuid.simple().to_string()).iter().map(|n| n.uuid).collect();
    assert_eq!(nics.len(), 1);

    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(|| destroy().unwrap()))));
    cloud.call("ExpungeVmInstance", json!({"uuid": uuid.simple()})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 0);
    // The first host may still have it: its address rests, whoever has the uuid now.
    let resting = create(second, &static_ip("10.0.0.11")).unwrap_err();
    assert!(resting.message.contains("still being released"), "{resting}");
    create(second, &static_ip("10.0.0.12")).unwrap();
    cloud.give_up_releases();
    let nic = cloud.nics(&uuid.simple().to_string()).remove(0);
    assert!(!nics.contains(&nic.uuid), "a NIC of its own");
    assert_eq!(nic.host_uuid, Some(second.parse().unwrap()));
    let used = cloud.addresses(nic.uuid);
    assert_eq!(used[0].ip, "10.0.0.12".parse::<IpAddr>().unwrap());
    let taken = json!({"l3NetworkUuid": l3, "ip": "10.0.0.12"});
    assert_eq!(cloud.refusal("CreateVmNic", taken).0, Code::IpExhausted);
    cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3, "ip": "10.0.0.11"}));
}
