//! Long jobs: a message that is sent in its turn, once, and what its owner is told of it.

use std::sync::Arc;

use model::{
    Code, Id, Kind, Record, Resource, Timestamp,
    resource::{
        job::Job,
        long_job::{LongJob, LongJobState},
    },
    status::Board,
};
use netloom_control::{Caller, Enrolment, Gate, JobId, Jobs, Terms, long_job};
use serde_json::{Value, json};
use store::{Event, Read};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, confirm, limit, request, tenant};

fn gate(cloud: &Cloud) -> (Arc<Gate>, watch::Sender<Board>) {
    let (board, reports) = watch::channel(cloud.board.clone());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    (Arc::new(Gate::new(jobs, enrolment)), board)
}

fn submit(cloud: &Cloud, caller: Caller, message: &str, data: &Value) -> Id<LongJob> {
    let params = json!({"jobName": message, "jobData": data.to_string()});
    let done = cloud.send(caller, vec![request("SubmitLongJob", params)]).unwrap();
    Id::new(done.reply.subject.unwrap().1)
}

fn row(cloud: &Cloud, id: Id<LongJob>) -> LongJob {
    cloud.get(id).unwrap()
}

/// Runs long jobs until this one is as it should be.
async fn until(cloud: &Cloud, gate: &Arc<Gate>, id: Id<LongJob>, is: impl Fn(&LongJob) -> bool) {
    let stop = CancellationToken::new();
    let mut commits = cloud.store.watch();
    let seen = async {
        while !is(&row(cloud, id)) {
            let event: Option<Event<Record>> = commits.next().await;
            event.expect("the store is there");
        }
        stop.cancel();
    };
    let limited =
        limit(async { tokio::join!(long_job::run(Arc::clone(gate), stop.clone()), seen) });
    limited.await;
}

async fn until_state(cloud: &Cloud, gate: &Arc<Gate>, id: Id<LongJob>, state: LongJobState) {
    until(cloud, gate, id, |long_job| long_job.state == state).await;
}

#[tokio::test]
async fn a_message_is_sent_and_what_it_was_answered_is_kept() {
    let cloud = Cloud::empty();
    let (gate, _board) = gate(&cloud);
    let data = json!({"name": "z", "description": null, "userTags": ["mine"], "session": {}});
    let id = submit(&cloud, ADMINISTRATOR, "org.zstack.header.zone.APICreateZoneMsg", &data);
    assert_eq!(row(&cloud, id).state, LongJobState::Waiting);
    assert_eq!(cloud.snapshot().total(Kind::Zone), 0, "not yet");
    until_state(&cloud, &gate, id, LongJobState::Succeeded).await;
    let done = row(&cloud, id);
    let result: Value = serde_json::from_str(&done.job_result.unwrap()).unwrap();
    assert_eq!(result["inventory"]["name"], "z");
    assert_eq!(cloud.snapshot().total(Kind::UserTag), 1);
    assert!(
        cloud.get(Id::<Job>::new(done.api_id.unwrap())).unwrap().done
            || done.execute_time == Some(0)
    );
    // Once more makes another one.
    cloud.call("RerunLongJob", json!({"uuid": id})).unwrap();
    assert_eq!(row(&cloud, id).job_result, None);
    until_state(&cloud, &gate, id, LongJobState::Succeeded).await;
    assert_eq!(cloud.snapshot().total(Kind::Zone), 2);
    cloud.call("UpdateLongJob", json!({"uuid": id, "name": "other"})).unwrap();
    assert_eq!(row(&cloud, id).name, "other");
    cloud.call("DeleteLongJob", json!({"uuid": id})).unwrap();
    assert_eq!(cloud.get(id), None);
}

#[tokio::test]
async fn a_message_that_is_refused_fails_its_long_job_with_the_error() {
    let cloud = Cloud::empty();
    let (gate, _board) = gate(&cloud);
    let data =
        json!({"name": "c", "zoneUuid": Id::<Job>::new(Uuid::nil()), "hypervisorType": "KVM"});
    let id = submit(&cloud, ADMINISTRATOR, "CreateCluster", &data);
    until_state(&cloud, &gate, id, LongJobState::Failed).await;
    let result: Value = serde_json::from_str(&row(&cloud, id).job_result.unwrap()).unwrap();
    assert_eq!(result["error"]["code"], "SYS.1003");
}

#[test]
fn what_can_never_run_is_refused_at_once() {
    let cloud = Cloud::empty();
    let zone = json!({"name": "z"}).to_string();
    let cases = [
        ("APINothingMsg", zone.as_str(), "jobName"),
        ("LogInByAccount", "{}", "jobName"),
        ("RerunLongJob", "{}", "jobName"),
        ("CreateZone", "[]", "jobData"),
        ("CreateZone", "{", "jobData"),
        ("CreateZone", "{}", "jobData"),
        ("CreateZone", r#"{"name": "z", "userTags": "x"}"#, "jobData"),
        ("CreateZone", r#"{"name": "z", "resourceUuid": "x"}"#, "jobData"),
    ];
    for (name, data, field) in cases {
        let params = json!({"jobName": name, "jobData": data});
        let (code, blamed, text) = cloud.refusal("SubmitLongJob", params);
        assert_eq!((code, blamed.as_deref()), (Code::InvalidArgument, Some(field)), "{text}");
    }
    let tenant = tenant(&cloud, 7);
    let params = json!({"jobName": "CreateZone", "jobData": zone});
    let error = cloud.send(tenant, vec![request("SubmitLongJob", params)]).unwrap_err();
    assert_eq!(error.code, Code::AccessDenied);
}

#[tokio::test]
async fn it_is_sent_as_its_owner_is_then() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (gate, _board) = gate(&cloud);
    let tenant = tenant(&cloud, 7);
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    cloud.give(Kind::L2Network, &l2, tenant.account().unwrap());
    let data = json!({"name": "own", "l2NetworkUuid": l2});
    let own = submit(&cloud, tenant, "CreateL3Network", &data);
    until_state(&cloud, &gate, own, LongJobState::Succeeded).await;
    let l3 = cloud.snapshot().list(Kind::L3Network).next().unwrap();
    assert_eq!(l3.meta.owner, tenant.account());
    // The network is another's by the time that it is sent.
    let late = submit(&cloud, tenant, "CreateL3Network", &data);
    cloud.give(Kind::L2Network, &l2, ADMINISTRATOR.account().unwrap());
    until_state(&cloud, &gate, late, LongJobState::Failed).await;
    assert!(row(&cloud, late).job_result.unwrap().contains("SYS.1003"));
}

/// A long job whose instance waits for a host that says nothing.
async fn waiting(cloud: &Cloud, host: &str, l3: &str, gate: &Arc<Gate>) -> Id<LongJob> {
    let data = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    let id = submit(cloud, ADMINISTRATOR, "CreateVmInstance", &data);
    until(cloud, gate, id, |long_job| long_job.is_sent).await;
    assert_eq!(row(cloud, id).state, LongJobState::Running);
    id
}

#[tokio::test]
async fn one_that_waits_for_a_host_is_taken_up_after_a_restart_and_done_once() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let (first, _board) = gate(&cloud);
    let id = waiting(&cloud, &fixture.hosts[0], &l3, &first).await;
    let (second, board) = gate(&cloud);
    board.send_modify(|board| {
        confirm(board, fixture.hosts[0].parse().unwrap());
        board.revision = u64::MAX;
    });
    until_state(&cloud, &second, id, LongJobState::Succeeded).await;
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 1, "it was sent once");
}

#[tokio::test]
async fn one_that_was_begun_and_not_sent_before_a_crash_is_sent_under_the_same_job() {
    let cloud = Cloud::empty();
    let id = submit(&cloud, ADMINISTRATOR, "CreateZone", &json!({"name": "z"}));
    let api = Uuid::from_u128(77);
    let begun = LongJob { state: LongJobState::Running, api_id: Some(api), ..row(&cloud, id) };
    put(&cloud, begun);
    let (gate, _board) = gate(&cloud);
    until_state(&cloud, &gate, id, LongJobState::Succeeded).await;
    assert_eq!(row(&cloud, id).api_id, Some(api));
    assert_eq!(cloud.snapshot().total(Kind::Zone), 1);
}

/// The job was over for so long that nobody remembers it: what it did must not be done again.
#[tokio::test]
async fn one_that_was_sent_and_whose_job_is_forgotten_is_not_sent_again() {
    let cloud = Cloud::empty();
    let id = submit(&cloud, ADMINISTRATOR, "CreateZone", &json!({"name": "z"}));
    let api_id = Some(Uuid::from_u128(77));
    let sent = LongJob { state: LongJobState::Running, api_id, is_sent: true, ..row(&cloud, id) };
    put(&cloud, sent);
    let (gate, _board) = gate(&cloud);
    until_state(&cloud, &gate, id, LongJobState::Failed).await;
    assert_eq!(cloud.snapshot().total(Kind::Zone), 0);
    assert!(row(&cloud, id).job_result.unwrap().contains("durable"));
}

fn put(cloud: &Cloud, long_job: LongJob) {
    let put = move |tx: &mut store::Tx<Record>| {
        let meta = tx.get(Kind::LongJob, long_job.id().uuid()).unwrap().meta;
        tx.put(Record::new(long_job.clone(), meta)).unwrap();
        Ok(())
    };
    cloud.store.transact(put).unwrap();
}

/// What marks a long job as sent is in the transaction of its message: both or neither.
#[tokio::test]
async fn a_message_that_is_refused_does_not_count_as_sent() {
    let cloud = Cloud::empty();
    let id = submit(&cloud, ADMINISTRATOR, "CreateZone", &json!({"name": "z"}));
    let (gate, _board) = gate(&cloud);
    let nobody = json!({"name": "c", "zoneUuid": Uuid::from_u128(9), "hypervisorType": "KVM"});
    for (message, params, sent) in
        [("CreateCluster", nobody, false), ("CreateZone", json!({"name": "z"}), true)]
    {
        let command = gate.command(ADMINISTRATOR, vec![request(message, params)]).unwrap();
        let job = JobId { uuid: Id::new(Uuid::new_v4()), is_chosen: false };
        let terms = Terms { long_job: Some(id), ..Terms::of(60) };
        gate.jobs.submit_on(command, job, terms).await.unwrap();
        assert_eq!(row(&cloud, id).is_sent, sent, "{message}");
    }
}

#[tokio::test]
async fn one_that_waits_for_hosts_can_be_canceled_and_what_it_did_stays() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let (gate, _board) = gate(&cloud);
    let id = waiting(&cloud, &fixture.hosts[0], &l3, &gate).await;
    let refused = cloud.call("DeleteLongJob", json!({"uuid": id})).unwrap_err();
    assert_eq!(refused.code, Code::OperationFailed);
    cloud.call("RerunLongJob", json!({"uuid": id})).unwrap_err();
    cloud.call("CancelLongJob", json!({"uuid": id})).unwrap();
    assert_eq!(row(&cloud, id).state, LongJobState::Canceling);
    until_state(&cloud, &gate, id, LongJobState::Canceled).await;
    assert!(row(&cloud, id).job_result.unwrap().contains("SYS.1017"));
    assert_eq!(cloud.snapshot().total(Kind::VmInstance), 1);
}

#[tokio::test]
async fn one_that_waits_for_its_turn_is_canceled_at_once_and_never_run() {
    let cloud = Cloud::empty();
    let (gate, _board) = gate(&cloud);
    let canceled = submit(&cloud, ADMINISTRATOR, "CreateZone", &json!({"name": "never"}));
    cloud.call("CancelLongJob", json!({"uuid": canceled})).unwrap();
    assert_eq!(row(&cloud, canceled).state, LongJobState::Canceled);
    cloud.call("CancelLongJob", json!({"uuid": canceled})).unwrap();
    let other = submit(&cloud, ADMINISTRATOR, "CreateZone", &json!({"name": "z"}));
    until_state(&cloud, &gate, other, LongJobState::Succeeded).await;
    assert_eq!(cloud.snapshot().total(Kind::Zone), 1);
    let (code, ..) = cloud.refusal("CancelLongJob", json!({"uuid": other}));
    assert_eq!(code, Code::OperationFailed, "it has succeeded");
}

/// However many an account has that wait for a dead host, another one's is run.
#[tokio::test]
async fn no_accounts_long_jobs_keep_anothers_from_its_turn() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    let l3 = cloud.made("CreateL3Network", json!({"name": "l3", "l2NetworkUuid": l2}));
    cloud.made("AddIpRange", crate::harness::range(&l3, "10.0.0.10", "10.0.0.99"));
    let (gate, _board) = gate(&cloud);
    let many = long_job::AT_ONCE_OF_ACCOUNT_MAX + 4;
    let data = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": fixture.hosts[0]});
    for _ in 0..many {
        submit(&cloud, ADMINISTRATOR, "CreateVmInstance", &data);
    }
    let tenant = tenant(&cloud, 7);
    let own = cloud.made("CreateL2VxlanNetwork", json!({"name": "own", "poolUuid": fixture.pool}));
    cloud.give(Kind::L2Network, &own, tenant.account().unwrap());
    let data = json!({"name": "own", "l2NetworkUuid": own});
    let id = submit(&cloud, tenant, "CreateL3Network", &data);
    let waiting = || {
        let rows = cloud.snapshot();
        let states = rows.list(Kind::LongJob).filter_map(|row| Some(LongJob::of(&row)?.state));
        states.filter(|state| *state == LongJobState::Waiting).count()
    };
    // It may be through before all others have begun that may.
    let is_through = |long_job: &LongJob| long_job.state == LongJobState::Succeeded;
    until(&cloud, &gate, id, |long_job| is_through(long_job) && waiting() <= 4).await;
    assert_eq!(waiting(), 4, "those beyond the limit wait");
}
