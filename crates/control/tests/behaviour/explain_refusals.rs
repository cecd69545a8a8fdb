//! Explanations that are refused, and how many there may be at a time.

use std::sync::Arc;

use model::{
    Code, Id, Timestamp,
    resource::vm_nic::VmNic,
    status::{Board, NoAnswer},
};
use netloom_control::{Enrolment, Gate, Jobs, explain};
use serde_json::{Value, json};
use tokio::sync::watch;
use wire::question::{Answer, Drops, Question, Unanswered};

use crate::{
    explain::{World, denied, traced},
    harness::{ADMINISTRATOR, limit, request},
};

#[test]
fn a_host_that_cannot_be_asked_is_named_to_those_who_can_do_something_about_it() {
    let world = World::new();
    let params = json!({"vmNicUuid": world.nics[0].uuid, "to": world.ip(1), "protocol": "ICMP"});
    let cases = [
        (NoAnswer::NotConnected, Code::OperationFailed, "is not connected"),
        (NoAnswer::TooOld("0.1".into()), Code::OperationFailed, "release 0.1"),
        (NoAnswer::Busy, Code::Overloaded, "too many questions"),
        (NoAnswer::Silent, Code::Timeout, "has not answered in time"),
        (NoAnswer::Ended, Code::OperationFailed, "lost its connection"),
    ];
    for (why, code, words) in cases {
        for name in ["GetVmNicTrace", "GetVmNicDrops"] {
            let params = match name {
                "GetVmNicTrace" => params.clone(),
                _ => json!({"vmNicUuid": world.nics[0].uuid}),
            };
            let asked = |caller| {
                world.call(caller, (name, params.clone()), [Err(why.clone())]).unwrap_err()
            };
            let error = asked(ADMINISTRATOR);
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains("host h1") && error.message.contains(words), "{error}");
            assert!(error.hint.is_some());
            let error = asked(world.owners[0]);
            assert!(
                error.message.starts_with("the NIC's host") && error.message.contains(words),
                "{error}"
            );
            assert!(!error.to_string().contains(&world.fixture.hosts[0]), "{error}");
        }
    }
    let why =
        Answer::Unanswered(Unanswered { why: format!("{} is not there", world.nics[1].uuid) });
    let error = world.trace(world.owners[0], [why]).unwrap_err();
    assert_eq!(error.message, "the NIC's host cannot answer: (...) is not there");
}

#[test]
fn what_a_packet_cannot_be_is_refused_with_its_field() {
    let world = World::new();
    let (nic, to) = (json!(world.nics[0].uuid), json!(world.ip(1)));
    let cases = [
        (json!({"to": "10.0.0.300"}), "to"),
        (json!({"to": "0.0.0.0"}), "to"),
        (json!({"to": "224.0.0.1"}), "to"),
        (json!({"to": "255.255.255.255"}), "to"),
        (json!({"to": "127.0.0.1"}), "to"),
        (json!({"to": "::ffff:10.0.0.1"}), "to"),
        (json!({"to": "fd00::1"}), "to"),
        (json!({"to": "7d0e7d0e7d0e7d0e7d0e7d0e7d0e7d0e"}), "to"),
        (json!({"to": world.nics[0].uuid}), "to"),
        (json!({"protocol": "SCTPX"}), "protocol"),
        (json!({"protocol": "256"}), "protocol"),
        (json!({"protocol": "+6"}), "protocol"),
        (json!({"port": null}), "port"),
        (json!({"port": 0}), "port"),
        (json!({"port": 65_536}), "port"),
        (json!({"sourcePort": 0}), "sourcePort"),
        (json!({"protocol": "ICMP"}), "port"),
        (json!({"protocol": "47"}), "port"),
        (json!({"protocol": "132", "port": null, "sourcePort": 5}), "sourcePort"),
        (json!({"icmpType": 8}), "icmpType"),
        (json!({"icmpCode": 8}), "icmpCode"),
        (json!({"protocol": "ICMP", "port": null, "icmpCode": 8}), "icmpCode"),
        (json!({"protocol": "ICMP", "port": null, "icmpType": 256}), "icmpType"),
        (json!({"source": "fd00::9"}), "source"),
        (json!({"source": "x"}), "source"),
        (json!({"vmNicUuid": "7d0e7d0e7d0e7d0e7d0e7d0e7d0e7d0e"}), "vmNicUuid"),
    ];
    for (change, field) in cases {
        let mut params = json!({"vmNicUuid": nic, "to": to, "protocol": "TCP", "port": 80});
        let fields = change.as_object().unwrap().clone();
        for (key, value) in fields {
            match value {
                Value::Null => drop(params.as_object_mut().unwrap().remove(&key)),
                value => params[key] = value,
            }
        }
        let error = world.call(ADMINISTRATOR, ("GetVmNicTrace", params), []).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(field), "{change}: {error}");
        assert!(error.hint.is_some() || error.code == Code::InvalidArgument, "{change}: {error}");
    }
    assert!(world.asked.lock().unwrap().is_empty(), "no host was asked");
}

#[test]
fn a_nic_that_is_nowhere_says_why() {
    let world = World::new();
    let ask = |nic: Id<VmNic>| {
        let error = world
            .call(ADMINISTRATOR, ("GetVmNicDrops", json!({"vmNicUuid": nic})), [])
            .unwrap_err();
        assert_eq!(error.field.as_deref(), Some("vmNicUuid"));
        error.to_string()
    };
    let nic = world.nics[0].uuid;
    let off = json!({"vmNicUuid": nic, "state": "disable"});
    world.cloud.call("ChangeVmNicState", off).unwrap();
    assert!(ask(nic).contains("ChangeVmNicState"), "{}", ask(nic));
    let vm = world.nics[1].vm_instance_uuid.unwrap();
    world.cloud.call("StopVmInstance", json!({"uuid": vm})).unwrap();
    assert!(ask(world.nics[1].uuid).contains("StartVmInstance"), "{}", ask(world.nics[1].uuid));
    let l3 = world.nics[0].l3_network_uuid;
    let loose = world.cloud.made("CreateVmNic", json!({"l3NetworkUuid": l3}));
    assert!(ask(loose.parse().unwrap()).contains("PlugVmNic"));
}

#[test]
fn a_target_may_be_a_nic_or_an_instance() {
    let world = World::new();
    for to in [world.nics[1].uuid.to_string(), world.nics[1].vm_instance_uuid.unwrap().to_string()]
    {
        let params = json!({"vmNicUuid": world.nics[0].uuid, "to": to, "protocol": "icmp"});
        let end = Answer::Trace(traced(denied()));
        world.call(ADMINISTRATOR, ("GetVmNicTrace", params), [Ok(end)]).unwrap();
        let asked = world.asked.lock().unwrap().clone();
        let Question::FromPort(question) = &asked[0].1 else { panic!("{asked:?}") };
        assert_eq!(
            (question.remote, question.protocol, question.port_or_type),
            (world.ip(1), 1, 8 << 8)
        );
    }
}

/// An account that asks and asks waits for its own answers, and keeps nobody else from theirs.
#[tokio::test]
async fn an_account_has_few_explanations_at_a_time() {
    let world = World::new();
    let gate = world.gate();
    let ask = |caller, nic: &VmNic| {
        let drops = request("GetVmNicDrops", json!({"vmNicUuid": nic.uuid}));
        let command = gate.command(caller, vec![drops]).unwrap();
        let gate = Arc::clone(&gate);
        async move { gate.answer(command).await }
    };
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..explain::OF_ACCOUNT_MAX {
        waiting.spawn(ask(world.owners[0], &world.nics[0]));
    }
    while world.asked.lock().unwrap().len() < explain::OF_ACCOUNT_MAX {
        tokio::task::yield_now().await;
    }
    let error = ask(world.owners[0], &world.nics[0]).await.unwrap_err();
    assert_eq!(error.code, Code::Overloaded);
    let answer = Answer::Drops(Drops { frames: vec![], counted: 0, lost: 0, since_ms: 1 });
    world.answers.lock().unwrap().push_back(Ok(answer.clone()));
    limit(ask(world.owners[1], &world.nics[1])).await.unwrap();
    // Who gives up makes room.
    waiting.shutdown().await;
    world.answers.lock().unwrap().push_back(Ok(answer));
    limit(ask(world.owners[0], &world.nics[0])).await.unwrap();
}

/// Only what the board says of hosts is needed to know that it is nothing new.
#[test]
fn without_hosts_to_ask_none_is_connected() {
    let world = World::new();
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(world.cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    let gate = Arc::new(Gate::new(jobs, enrolment));
    let drops = request("GetVmNicDrops", json!({"vmNicUuid": world.nics[0].uuid}));
    let command = gate.command(ADMINISTRATOR, vec![drops]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(gate.answer(command)).unwrap_err();
    assert!(error.message.contains("is not connected"), "{error}");
}
