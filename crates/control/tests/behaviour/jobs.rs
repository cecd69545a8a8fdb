//! Jobs: what is told of a call, to whom, and for how long.

use std::{sync::Arc, time::Duration};

use model::{
    Code, Error, Id, Kind, Record, Timestamp,
    resource::{host::Host, job::Job},
    status::{Board, HostStatus},
};
use netloom_control::{Call, JobState, Jobs, operation::Operation};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::Cloud;

fn operation(name: &str) -> Arc<Operation> {
    let mut all = netloom_control::operation::all().into_iter();
    Arc::new(all.find(|operation| operation.def.name == name).unwrap())
}

fn call(params: Value) -> Call {
    let Value::Object(params) = params else { panic!("params are an object") };
    Call {
        params,
        system_tags: Vec::new(),
        resource_uuid: None,
        now: Timestamp(1_000),
        seed: Uuid::new_v4(),
        board: Arc::default(),
    }
}

fn jobs(cloud: &Cloud) -> (Jobs, watch::Sender<Board>) {
    let (board, reports) = watch::channel(Board::default());
    (Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000)), board)
}

fn job(number: u128) -> Id<Job> {
    Id::new(Uuid::from_u128(number))
}

#[tokio::test]
async fn a_job_stays_what_it_is_when_its_uuid_is_used_again() {
    let (jobs, _board) = jobs(&Cloud::empty());
    let create =
        |name: &str| jobs.submit(operation("CreateZone"), call(json!({"name": name})), job(1), 60);
    create("z").await.unwrap();
    let done = jobs.state(job(1));
    assert!(matches!(done, JobState::Done(_)), "{done:?}");
    let refused = jobs.refuse(job(1), Error::field("name", "is wrong")).unwrap_err();
    assert_eq!(refused.code, Code::Duplicate);
    assert_eq!(create("other").await.unwrap_err().code, Code::Duplicate);
    assert_eq!(jobs.state(job(1)), done);
}

#[tokio::test]
async fn a_job_waits_for_its_host_even_if_its_caller_has_gone_away() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let (jobs, board) = jobs(&cloud);
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let acked_revision = cloud.snapshot().revision();
    let status = HostStatus { connected: true, acked_revision, ..HostStatus::default() };
    board.send_modify(|board| drop(board.hosts.insert(host, status)));
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    tokio::select! {
        biased;
        _ = jobs.submit(operation("CreateVmInstance"), call(vm), job(1), 60) => {}
        () = std::future::ready(()) => {}
    }
    let committed = async {
        while cloud.snapshot().get(Kind::Job, job(1).uuid()).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), committed).await.expect("durable");
    assert_eq!(jobs.state(job(1)), JobState::Processing);
    board.send_modify(|board| {
        board.hosts.entry(host).or_default().acked_revision = cloud.snapshot().revision();
    });
    assert!(matches!(jobs.state(job(1)), JobState::Done(_)));
}

#[tokio::test]
async fn however_many_jobs_are_over_they_are_forgotten() {
    let cloud = Cloud::empty();
    let many = 12_000;
    for start in (0..many).step_by(4_000) {
        let put = move |tx: &mut store::Tx<Record>| {
            (start..start + 4_000).for_each(|number| tx.put(Record::Job(over(number))));
            Ok(())
        };
        cloud.store.transact(put).unwrap();
    }
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(i64::MAX));
    assert_eq!(jobs.sweep().await.unwrap(), 12_000);
    assert_eq!(cloud.snapshot().list(Kind::Job).count(), 0);
}

fn over(number: u128) -> Job {
    Job {
        uuid: job(number),
        message: "CreateZone".into(),
        subject_kind: None,
        subject_uuid: None,
        hosts: Vec::new(),
        create_date: Timestamp(0),
        deadline: Timestamp(0),
    }
}
