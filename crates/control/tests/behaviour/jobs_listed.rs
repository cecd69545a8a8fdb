//! Jobs as their owners see them: listed, with progress, and no longer waited for.

use std::sync::Arc;

use model::{
    Code, Id, Kind, Meta, Record, Timestamp,
    resource::{host::Host, job::Job},
    status::Board,
};
use netloom_control::{Caller, Enrolment, Gate, JobState, inventory::Observed, query};
use serde_json::{Value, json};
use store::Read;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    harness::{ADMINISTRATOR, Cloud, request, tenant},
    jobs::{acknowledge, command, drawn, job, jobs, made, over, tell, waited, waiting},
};

/// What the query of jobs shows of job 1 to a caller.
fn shown(cloud: &Cloud, board: &Board, caller: &Caller, now: Timestamp) -> Option<Value> {
    let face = &Kind::Job.def().faces[0];
    let query = query::Query::new(Kind::Job, face, caller.scope().unwrap());
    let snapshot = cloud.snapshot();
    let found = query::run(&query, &Observed::new(&snapshot, board).at(now)).unwrap();
    found.inventories.unwrap().into_iter().next().map(Value::Object)
}

#[tokio::test]
async fn a_job_is_listed_to_its_owner_with_its_state_and_what_it_waits_for() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    let [instance, nic] = made(&cloud);
    tell(&cloud, &board, host, &[instance, nic]);
    let at = |now| shown(&cloud, &board.borrow(), &ADMINISTRATOR, Timestamp(now)).unwrap();
    let row = at(2_000);
    assert_eq!((&row["message"], &row["state"]), (&json!("CreateVmInstance"), &json!("Waiting")));
    assert_eq!(row["waitsFor"], json!([format!("host {host} has not acknowledged yet")]));
    assert_eq!(row["progress"], 0);
    assert!(row.get("hosts").is_none() && row.get("objects").is_none(), "{row}");
    assert_eq!(at(62_000)["state"], "Failed", "its time is over");
    // Half of it is in force.
    tell_anew(&board, host, &[nic]);
    assert_eq!(at(2_000)["progress"], 50);
    acknowledge(&board, host);
    jobs.sweep().await.unwrap();
    let row = at(62_000);
    assert_eq!((&row["state"], &row["progress"]), (&json!("Succeeded"), &json!(100)));
    assert_eq!(row["waitsFor"], json!([]));
    let other = tenant(&cloud, 7);
    assert_eq!(shown(&cloud, &board.borrow(), &other, Timestamp(2_000)), None);
}

/// Of what the host was told, only these objects are not confirmed.
fn tell_anew(board: &watch::Sender<Board>, host: Id<Host>, objects: &[Uuid]) {
    board.send_modify(|board| {
        let mut status = board.status(host).clone();
        let left = status.pending.iter().filter(|(object, _)| objects.contains(object));
        status.pending = left.map(|(object, pending)| (*object, *pending)).collect();
        board.put(host, status);
    });
}

#[tokio::test]
async fn a_job_that_waits_for_hosts_is_canceled_with_what_it_waited_for_and_its_work_stays() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    tell(&cloud, &board, host, &made(&cloud));
    let cancel = || command(&cloud, "CancelJob", json!({"uuid": job(1)}));
    let told = {
        let waits = waited(&jobs);
        let canceled = async {
            tokio::task::yield_now().await;
            jobs.submit(cancel(), drawn(2), 60).await.unwrap();
        };
        tokio::join!(waits, canceled).0
    };
    let JobState::Failed(error) = told else { panic!("{told:?}") };
    assert_eq!(error.code, Code::Canceled);
    assert!(error.message.contains("is durable") && error.message.contains(&host.to_string()));
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 1, "what it did stays");
    let JobState::Done(answer) = jobs.state(&ADMINISTRATOR, job(2)).await else { panic!() };
    assert_eq!(answer["inventory"]["state"], "Canceled");
    assert!(answer["inventory"]["waitsFor"][0].as_str().unwrap().contains(&host.to_string()));
    // It stays what it is, whatever its host says later and after a restart.
    acknowledge(&board, host);
    jobs.sweep().await.unwrap();
    let (restarted, _board) = crate::jobs::jobs(&cloud);
    for jobs in [&jobs, &restarted] {
        let state = jobs.state(&ADMINISTRATOR, job(1)).await;
        assert!(matches!(&state, JobState::Failed(error) if error.code == Code::Canceled));
    }
}

#[tokio::test]
async fn what_cannot_be_canceled_is_refused_with_the_reason() {
    let cloud = Cloud::empty();
    let (jobs, _board) = jobs(&cloud);
    jobs.submit(command(&cloud, "CreateZone", json!({"name": "z"})), drawn(1), 60).await.unwrap();
    let canceled =
        Job { canceled: Some("host".into()), hosts: vec![Id::new(Uuid::max())], ..over(2) };
    let late = Job { hosts: vec![Id::new(Uuid::max())], ..over(3) };
    let owner = ADMINISTRATOR.account();
    let put = move |tx: &mut store::Tx<Record>| {
        for job in [canceled.clone(), late.clone()] {
            tx.put(Record::new(job, Meta { owner, ..Meta::default() })).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    for (number, why) in [(1, "succeeded"), (2, "ended already"), (3, "time is over")] {
        let (code, _, text) = cloud.refusal("CancelJob", json!({"uuid": job(number)}));
        assert!(code == Code::OperationFailed && text.contains(why), "{text}");
    }
    let (code, ..) = cloud.refusal("CancelJob", json!({"uuid": job(4)}));
    assert_eq!(code, Code::NotFound);
}

#[tokio::test]
async fn progress_is_told_to_the_owner_of_a_job_alone() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    let [instance, nic] = made(&cloud);
    tell(&cloud, &board, host, &[instance, nic]);
    tell_anew(&board, host, &[nic]);
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    let gate = Arc::new(Gate::new(jobs, enrolment));
    let other = tenant(&cloud, 7);
    let ask = async |caller, number| {
        let message = request("GetTaskProgress", json!({"apiId": job(number)}));
        gate.answer(gate.command(caller, vec![message]).unwrap()).await.unwrap()
    };
    let task = &ask(ADMINISTRATOR, 1).await["inventories"][0];
    assert_eq!((&task["type"], &task["content"]), (&json!("Progress"), &json!("50")));
    assert_eq!(task["taskName"], "CreateVmInstance");
    let nothing = json!({"inventories": []});
    assert_eq!(ask(other, 1).await, nothing);
    assert_eq!(ask(ADMINISTRATOR, 2).await, nothing);
}

/// A busy account has more jobs than one deletion takes.
#[test]
fn an_account_with_very_many_jobs_can_be_deleted_and_nobody_else_sees_them() {
    let cloud = Cloud::empty();
    let (busy, other) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let meta = Meta { owner: busy.account(), ..Meta::default() };
    let put = move |tx: &mut store::Tx<Record>| {
        for number in 0..4_000 {
            tx.put(Record::new(over(number), meta)).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    cloud.call("DeleteAccount", json!({"uuid": busy.account().unwrap()})).unwrap();
    assert_eq!(shown(&cloud, &Board::default(), &other, Timestamp(0)), None);
}

/// A job is forgotten by itself: a tag on it would stay for ever.
#[tokio::test]
async fn a_job_takes_no_tags() {
    let cloud = Cloud::empty();
    let (jobs, _board) = jobs(&cloud);
    jobs.submit(command(&cloud, "CreateZone", json!({"name": "z"})), drawn(1), 60).await.unwrap();
    let tag = json!({"resourceType": "JobVO", "resourceUuid": job(1), "tag": "mine"});
    let (code, field, _) = cloud.refusal("CreateUserTag", tag);
    assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("resourceUuid")));
}
