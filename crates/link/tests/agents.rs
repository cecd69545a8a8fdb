//! Server and agents together: objects reach hosts, and what hosts do comes back.

mod world;

use std::fs;

use model::{
    Timestamp,
    resource::Body,
    status::{Clocks, HostStatus},
};
use world::{
    World, now,
    records::{
        group, group_uuid, host, host_id, in_group, instance, instance_uuid, network, nic_uuid,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_enrols_applies_and_agrees() {
    let mut world = World::new();
    let (one, two) = (world.host(1), world.host(2));
    world.put([network(1)]);
    world.put(instance(10, 1, 1));
    let revision = world.put(instance(20, 2, 1));
    let status = world.settled(1, revision).await;
    assert_eq!(status.up, [instance_uuid(10), nic_uuid(10)].into_iter().collect());
    let status = world.settled(2, revision).await;
    assert_eq!(status.up, [instance_uuid(20), nic_uuid(20)].into_iter().collect());
    for host in [&one, &two] {
        let tables = host.kernel.state().tables.clone();
        assert_eq!((tables.ports.len(), tables.fdb.len(), tables.vteps.len()), (1, 2, 1));
        host.assert_never_open();
    }
}

/// Groups and members are confirmed like all else: what a host has not confirmed of them is named.
#[tokio::test(flavor = "multi_thread")]
async fn groups_and_members_are_held_and_confirmed_where_they_are_needed() {
    let mut world = World::new();
    let (mut one, _two, three) = (world.host(1), world.host(2), world.host(3));
    world.put([network(1)]);
    for (number, at) in [(10, 1), (20, 2), (30, 3)] {
        world.put(instance(number, at, 1));
    }
    let revision = world.put(group(1));
    for host in 1..=3 {
        world.settled(host, revision).await;
    }
    let writes = three.writes();
    let revision = world.put([in_group(10, 1), in_group(20, 1)]);
    for host in 1..=3 {
        world.settled(host, revision).await;
    }
    assert_eq!(three.writes(), writes, "it has no port in the group");
    // A host that is away confirms nothing, and all of it once it is back.
    one.stop().await;
    world.status(1, "gone", |status| !status.connected).await;
    let gone = world.delete([in_group(20, 1)]);
    world.settled(2, gone).await;
    world.put(group(2));
    let revision = world.put([in_group(10, 2)]);
    world.settled(2, revision).await;
    world.settled(3, revision).await;
    let told = world.status(1, "behind", |s| s.unsettled(group_uuid(2), revision).is_some()).await;
    // The port, and the member that it is; the member that is one no more.
    for object in [nic_uuid(10), nic_uuid(20)] {
        assert!(told.unsettled(object, revision).is_some(), "{told:?}");
    }
    assert!(told.unsettled(group_uuid(1), revision).is_none(), "it did not change");
    one.restart();
    let told = world.settled(1, revision).await;
    assert!(told.failed.is_empty() && told.pending.is_empty(), "{told:?}");
    one.assert_never_open();
}

#[tokio::test(flavor = "multi_thread")]
async fn removal_is_acknowledged_when_nothing_passes_and_nothing_is_left_a_little_later() {
    let mut world = World::new();
    let one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    let revision = world.delete(instance(10, 1, 1));
    let status = world.settled(1, revision).await;
    assert!(status.up.is_empty());
    {
        let state = one.kernel.state();
        assert_eq!(state.tables, Default::default());
        assert!(state.nics.values().all(|nic| !nic.up));
    }
    one.kernel_is("without instances", |state| state.instances.is_empty()).await;
    assert!(one.kernel.state().attached.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_that_do_not_concern_a_host_count_as_acknowledged() {
    let mut world = World::new();
    let one = world.host(1);
    let revision = world.put([network(1)]);
    world.settled(1, revision).await;
    let writes = one.writes();
    let revision = world.put([network(2), network(3)]);
    world.settled(1, revision).await;
    assert_eq!(one.writes(), writes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_told_to_connects_anew_and_loses_nothing() {
    let mut world = World::new();
    let one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    let before = world.settled(1, revision).await;
    let writes = one.writes();
    let mut told = host(1);
    let Body::Host(host) = &mut told.body else { panic!("it is a host") };
    host.reconnects = 1;
    let revision = world.put([told]);
    let after = world.settled(1, revision).await;
    assert!(after.heard >= before.heard + 2, "a stream and a report more: {after:?}");
    assert_eq!((after.up, one.writes()), (before.up, writes));
    one.assert_never_open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_instance_is_reported_and_does_not_stop_the_others() {
    let mut world = World::new();
    let one = world.host(1);
    one.kernel.state().broken.insert(instance_uuid(10));
    world.put([network(1)]);
    world.put(instance(10, 1, 1));
    let revision = world.put(instance(11, 1, 1));
    let told = world
        .status(1, "told of the failure", |s| {
            s.settled(&[instance_uuid(11), nic_uuid(11)], revision)
                && s.up.contains(&nic_uuid(11))
                && !s.failed.is_empty()
        })
        .await;
    assert!(told.failed[&instance_uuid(10)].contains("broken on purpose"), "{told:?}");
    assert!(!told.agrees);
    one.kernel.state().broken.clear();
    let status = world.settled(1, revision).await;
    assert!(status.failed.is_empty() && status.up.contains(&nic_uuid(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_cannot_be_cut_off_holds_up_no_other() {
    let mut world = World::new();
    let one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    one.kernel.state().broken.insert(nic_uuid(10));
    world.delete(instance(10, 1, 1));
    let revision = world.put(instance(11, 1, 1));
    let own = [instance_uuid(11), nic_uuid(11)];
    let told = world
        .status(1, "done with the other", |s| {
            s.settled(&own, revision) && s.up.contains(&nic_uuid(11)) && s.pending.is_empty()
        })
        .await;
    let lingering = [instance_uuid(10), nic_uuid(10)];
    assert!(lingering.iter().all(|uuid| told.failed.contains_key(uuid)), "{told:?}");
    let unsettled: Vec<_> = world.board.borrow().unsettled(nic_uuid(10)).collect();
    assert_eq!(unsettled, [host_id(1)], "its address rests");
    one.kernel.state().broken.clear();
    world.settled(1, revision).await;
    one.assert_never_open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_restored_destroys_nothing_until_an_operator_says_so() {
    let mut world = World::new();
    let one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    let writes = one.writes();
    world.stop_server().await;
    // As an older database would have it: another life, in which the instance never was.
    world.delete(instance(10, 1, 1));
    world.lineage = uuid::Uuid::from_u128(2);
    world.start_server();
    let refused = world.status(1, "refused", |status| status.refused.is_some()).await;
    let reason = refused.refused.unwrap();
    assert!(reason.contains("--accept-older-database"), "{reason}");
    assert!(!refused.confirmed && !refused.agrees);
    world.stop_server().await;
    assert_eq!((one.writes(), one.kernel.state().instances.len()), (writes, 1));

    world.accept_older = true;
    world.start_server();
    let revision = world.put([network(2)]);
    world.settled(1, revision).await;
    one.kernel_is("without instances", |state| state.instances.is_empty()).await;
    // From now on this is the database that the host knows.
    world.stop_server().await;
    world.accept_older = false;
    world.start_server();
    world.settled(1, revision).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_agent_that_cannot_read_its_state_tears_nothing_down() {
    let mut world = World::new();
    let mut one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    world.stop_server().await;
    one.stop().await;
    let writes = one.writes();
    let state = one.data.join("state");
    let newer = fs::read(&state).unwrap();
    let older = [b"netloom state 1\n", &newer[16..]].concat();
    fs::write(&state, older).unwrap();
    one.restart();
    // No server: it does not know what is wanted.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!((one.writes(), one.kernel.state().instances.len()), (writes, 1));
    world.start_server();
    world.settled(1, revision).await;
    assert_eq!(one.writes(), writes, "all was right already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_changes_nothing_and_a_new_one_agrees() {
    let mut world = World::new();
    let mut one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    let writes = one.writes();
    world.stop_server().await;
    one.stop().await;
    one.restart();
    // Written while no server runs, so the agent cannot know.
    let revision = world.put(instance(11, 1, 1));
    assert_eq!(one.kernel.state().instances.len(), 1);
    world.start_server();
    world.settled(1, revision).await;
    let state = one.kernel.state();
    assert_eq!(state.instances.len(), 2);
    // The second instance, its NIC, its programs, its way into the maps, up: nothing else.
    assert_eq!(state.writes, writes + 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_applies_what_it_knows_without_a_server() {
    let mut world = World::new();
    let mut one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    world.stop_server().await;
    one.stop().await;
    // The host was rebooted: its kernel is empty.
    *one.kernel.state() = Default::default();
    one.restart();
    one.kernel_is("as before", |state| state.nics.get(&nic_uuid(10)).is_some_and(|nic| nic.up))
        .await;
    one.assert_never_open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_state_tears_nothing_down() {
    let mut world = World::new();
    let mut one = world.host(1);
    world.put([network(1)]);
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    world.stop_server().await;
    one.stop().await;
    let writes = one.writes();
    fs::write(one.data.join("state"), "damaged").unwrap();
    one.restart();
    world.start_server();
    world.settled(1, revision).await;
    assert_eq!(one.writes(), writes, "all was right already");
    assert!(one.data.join("state.damaged").exists() && one.data.join("state").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_between_two_writes_converges() {
    for limit in 0..6 {
        let mut world = World::new();
        let mut one = world.host(1);
        let revision = world.put([network(1)]);
        world.settled(1, revision).await;
        let dies_after = one.writes() + limit;
        one.kernel.state().dies_after = Some(dies_after);
        let revision = world.put(instance(10, 1, 1));
        one.kernel_is("dead", |state| state.writes >= dies_after).await;
        one.kill().await;
        one.kernel.state().dies_after = None;
        one.restart();
        world.settled(1, revision).await;
        one.assert_never_open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_host_loses_its_stream() {
    let mut world = World::new();
    let _one = world.host(1);
    let revision = world.put([network(1)]);
    world.settled(1, revision).await;
    world.delete([host(1)]);
    world.status(1, "gone", |status| *status == HostStatus::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_host_is_told_with_where_both_are() {
    let mut world = World::new();
    let one = world.host(1);
    let revision = world.put([network(1)]);
    world.settled(1, revision).await;
    let copied = world.directory.path().join("copy");
    fs::create_dir(&copied).unwrap();
    for file in ["identity.json", "state"] {
        fs::copy(one.data.join(file), copied.join(file)).unwrap();
    }
    let mut copy = world::HostUnderTest::start(1, copied, one.enrol.clone());
    let told = world.status(1, "told", |status| status.doubled.is_some()).await;
    let reason = told.trouble(world::records::host_id(1)).unwrap();
    assert!(reason.contains("two agents") && reason.contains("127.0.0.1"), "{reason}");
    copy.stop().await;
    // The one that is left is the host.
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
}

/// Field case F29: certificates and streams do not care, and the host says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_days_off_is_told_and_keeps_nobody_out() {
    const DAYS: i64 = 3 * 86_400;
    let clocks: [(fn() -> Timestamp, i64); 2] =
        [(|| now().plus_seconds(DAYS), DAYS), (|| now().plus_seconds(-DAYS), -DAYS)];
    for (clock, seconds) in clocks {
        let mut world = World::at(clock);
        let one = world.host(1);
        world.put([network(1)]);
        let revision = world.put(instance(10, 1, 1));
        world.settled(1, revision).await;
        let told = world.status(1, "told", |status| status.clock.is_some()).await;
        let Clocks { host, server } = told.clock.unwrap();
        let off = host.plus_seconds(seconds).0.abs_diff(server.0);
        assert!(off < 60_000, "{seconds}: {:?}", told.clock);
        one.assert_never_open();
    }
    let mut world = World::new();
    let _one = world.host(1);
    let revision = world.put([network(1)]);
    assert_eq!(world.settled(1, revision).await.clock, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_ports_are_told_as_they_were_counted() {
    let mut world = World::new();
    world.put([network(1)]);
    let one = world.host(1);
    let revision = world.put(instance(10, 1, 1));
    let ports = (1..100).map(|number| (number, number + 7)).collect();
    let drop = wire::counters::DropCount {
        reason: "hairpin".to_owned(),
        meaning: "It goes back.".to_owned(),
        packets: 7,
    };
    let counters = wire::counters::Counters { drops: vec![drop], ..Default::default() };
    one.kernel.state().counted = agent::kernel::Counted { sure: 512, ports, counters };
    world.settled(1, revision).await;
    let has_port = |status: &HostStatus| {
        let maps = status.counters.iter().flat_map(|counters| &counters.maps);
        maps.into_iter()
            .any(|map| map.map == "ports" && (map.entries, map.capacity > 0) == (1, true))
    };
    // As full as the ledger says once it knows the port; what is counted then is told with it.
    let is_told = |status: &HostStatus| !status.connections.is_empty() && has_port(status);
    let told = world.counted(1, is_told).await;
    assert_eq!(told.connections_sure, 512);
    let counters = told.counters.unwrap();
    assert_eq!((&*counters.drops[0].meaning, counters.drops[0].packets), ("It goes back.", 7));
    assert_eq!(told.connections.keys().collect::<Vec<_>>(), [&nic_uuid(10)], "and no strangers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_once() {
    let mut world = World::new();
    let one = world.host(1);
    let revision = world.put([network(1)]);
    world.settled(1, revision).await;
    let data = world.directory.path().join("thief");
    let mut thief = world::HostUnderTest::start(1, data, world.bundle(1, "token"));
    let error = thief.ended().await.unwrap_err().to_string();
    assert!(error.contains("NL.1006") && error.contains("CreateHostEnrolment"), "{error}");
    assert!(one.data.join("identity.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_and_wrong_tokens_are_refused() {
    let world = World::new();
    world.put([host(1)]);
    let expired = world.enrolment(1, "late", now());
    let wrong = world.bundle(1, "wrong");
    let unknown = world.bundle(9, "late");
    for (name, bundle) in [("expired", expired), ("wrong", wrong), ("unknown", unknown)] {
        let data = world.directory.path().join(name);
        let error = world::HostUnderTest::start(1, data, bundle).ended().await.unwrap_err();
        assert!(matches!(error, agent::Error::Refused(_)), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again_to_the_same_key_and_to_no_other() {
    let mut world = World::new();
    let mut one = world.host(1);
    let revision = world.put([network(1)]);
    world.settled(1, revision).await;
    one.stop().await;
    // As if the agent had died before it had the answer: the key alone is on disk.
    let identity = one.data.join("identity.json");
    let known: serde_json::Value = serde_json::from_slice(&fs::read(&identity).unwrap()).unwrap();
    let pending = serde_json::json!({"token_sha256": known["token_sha256"], "key": known["key"]});
    fs::write(one.data.join("identity.pending.json"), pending.to_string()).unwrap();
    fs::remove_file(&identity).unwrap();
    one.restart();
    let revision = world.put(instance(10, 1, 1));
    world.settled(1, revision).await;
    assert!(!one.data.join("identity.pending.json").exists());

    let thief = world.directory.path().join("thief");
    let mut stolen = world::HostUnderTest::start(1, thief, one.enrol.clone());
    let error = stolen.ended().await.unwrap_err();
    assert!(matches!(error, agent::Error::Refused(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_enrolment_replaces_the_old_certificate() {
    let mut world = World::new();
    let mut one = world.host(1);
    let revision = world.put([network(1)]);
    world.settled(1, revision).await;
    let old = fs::read(one.data.join("identity.json")).unwrap();
    let bundle = world.enrolment(1, "second", now().plus_seconds(60));
    let data = world.directory.path().join("new-disk");
    let two = world::HostUnderTest::start(1, data, bundle);
    two.kernel_is("connected", |state| state.tunnel).await;
    let revision = world.put(instance(10, 1, 1));
    two.kernel_is("in charge", |state| state.instances.len() == 1).await;
    world.settled(1, revision).await;
    assert_eq!(one.kernel.state().instances.len(), 0, "the old agent gets nothing any more");
    one.stop().await;
    assert_eq!(fs::read(one.data.join("identity.json")).unwrap(), old);
}
