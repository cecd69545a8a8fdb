//! Jobs: what is told of a call, to whom, and for how long.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use model::{
    Code, Error, Id, Kind, Record, Timestamp,
    resource::{host::Host, job::Job},
    status::{Board, HostStatus},
};
use netloom_control::{Call, JobState, Jobs, operation::Operation};
use serde_json::{Value, json};
use store::{CommitError, Engine, Loaded, LogError, LogRecord, Memory, Read, Store};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::{Cloud, Fixture};

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
    let done = jobs.state(job(1)).await;
    assert!(matches!(done, JobState::Done(_)), "{done:?}");
    let refused = jobs.refuse(job(1), Error::field("name", "is wrong")).unwrap_err();
    assert_eq!(refused.code, Code::Duplicate);
    assert_eq!(create("other").await.unwrap_err().code, Code::Duplicate);
    assert_eq!(jobs.state(job(1)).await, done);
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
    assert_eq!(jobs.state(job(1)).await, JobState::Processing);
    board.send_modify(|board| {
        board.hosts.entry(host).or_default().acked_revision = cloud.snapshot().revision();
    });
    assert!(matches!(jobs.state(job(1)).await, JobState::Done(_)));
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

/// A job that waits for the first host; its instance runs there.
async fn waiting(cloud: &Cloud, fixture: &Fixture, jobs: &Jobs, timeout_seconds: i64) -> Id<Host> {
    let l3 = cloud.l3(fixture, "red");
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    let submitted = jobs.submit(operation("CreateVmInstance"), call(vm), job(1), timeout_seconds);
    submitted.await.unwrap();
    assert_eq!(jobs.state(job(1)).await, JobState::Processing);
    host
}

fn acknowledge(board: &watch::Sender<Board>, host: Id<Host>) {
    board.send_modify(|board| {
        board.hosts.entry(host).or_default().acked_revision = u64::MAX;
    });
}

/// Reports that the host can apply nothing of what runs on it.
fn fail(cloud: &Cloud, board: &watch::Sender<Board>, host: Id<Host>) {
    let snapshot = cloud.snapshot();
    let instances = snapshot.referrers(Kind::VmInstance, "hostUuid", host.uuid());
    let failed = instances.map(|uuid| (uuid, "no such device".to_owned())).collect();
    board.send_modify(|board| board.hosts.entry(host).or_default().failed = failed);
}

#[tokio::test]
async fn what_was_told_to_be_a_success_stays_one() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    acknowledge(&board, host);
    assert!(matches!(jobs.state(job(1)).await, JobState::Done(_)));
    fail(&cloud, &board, host);
    assert!(matches!(jobs.state(job(1)).await, JobState::Done(_)), "a fault of later");
    let (restarted, _board) = self::jobs(&cloud);
    assert!(matches!(restarted.state(job(1)).await, JobState::Done(_)), "nobody has reported");
}

#[tokio::test]
async fn a_success_that_nobody_asked_for_is_written_down_too() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    acknowledge(&board, host);
    jobs.sweep().await.unwrap();
    fail(&cloud, &board, host);
    assert!(matches!(jobs.state(job(1)).await, JobState::Done(_)));
}

/// Far longer than what is waited for takes, and than the test may.
const PATIENCE: Duration = Duration::from_secs(600);

async fn waited(jobs: &Jobs) -> JobState {
    let waiting = jobs.wait(job(1), PATIENCE);
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("told in time")
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_deadline_is_over() {
    static START: OnceLock<Instant> = OnceLock::new();
    let clock = || {
        let passed = START.get_or_init(Instant::now).elapsed().as_millis();
        Timestamp(1_000 + i64::try_from(passed).unwrap())
    };
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(cloud.store.clone(), reports, clock);
    waiting(&cloud, &fixture, &jobs, 2).await;
    let state = waited(&jobs).await;
    assert!(matches!(&state, JobState::Failed(error) if error.code == Code::Timeout), "{state:?}");
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_host_is_deleted() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, _board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    let delete = async {
        tokio::task::yield_now().await;
        let snapshot = cloud.snapshot();
        let instances = snapshot.referrers(Kind::VmInstance, "hostUuid", host.uuid());
        for instance in instances.collect::<Vec<_>>() {
            let uuid = instance.simple().to_string();
            cloud.call("DestroyVmInstance", json!({"uuid": uuid})).unwrap();
        }
        cloud.call("DeleteHost", json!({"uuid": host})).unwrap();
    };
    let (state, ()) = tokio::join!(waited(&jobs), delete);
    assert!(matches!(state, JobState::Done(_)), "{state:?}");
}

#[tokio::test]
async fn whoever_waits_is_told_of_a_refusal() {
    let cloud = Cloud::empty();
    let (jobs, _board) = jobs(&cloud);
    // The store is busy until somebody waits.
    let (go, gate) = std::sync::mpsc::channel();
    let busy = cloud.store.transact_async(move |_| Ok(gate.recv().is_ok()));
    let nobody = json!({"name": "c", "zoneUuid": job(9), "hypervisorType": "KVM"});
    let (_, submitted, state, ()) = tokio::join!(
        busy,
        jobs.submit(operation("CreateCluster"), call(nobody), job(1), 60),
        waited(&jobs),
        async { go.send(()).unwrap() },
    );
    submitted.unwrap();
    assert!(matches!(&state, JobState::Failed(error) if error.code == Code::NotFound), "{state:?}");
}

/// An engine whose disk is away for a while.
struct Flaky {
    memory: Memory,
    away: Arc<AtomicBool>,
}

impl Engine for Flaky {
    fn load(&mut self) -> Result<Loaded, Error> {
        self.memory.load()
    }

    fn commit(&mut self, head: u64, records: &[LogRecord]) -> Result<(), CommitError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(CommitError::Failed(Error::new(Code::StoreUnavailable, "away"))),
            false => self.memory.commit(head, records),
        }
    }

    fn read_log(&mut self, after: u64, limit: usize) -> Result<Vec<LogRecord>, LogError> {
        self.memory.read_log(after, limit)
    }

    fn compact(&mut self, revision: u64) -> Result<(), Error> {
        self.memory.compact(revision)
    }
}

#[tokio::test]
async fn a_store_that_is_away_for_a_while_costs_no_job_uuid() {
    let away = Arc::new(AtomicBool::new(true));
    let engine = Flaky { memory: Memory::new(), away: Arc::clone(&away) };
    let store = Store::open(Box::new(engine)).unwrap();
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(store, reports, || Timestamp(1_000));
    let create = || jobs.submit(operation("CreateZone"), call(json!({"name": "z"})), job(1), 60);
    assert_eq!(create().await.unwrap_err().code, Code::StoreUnavailable);
    away.store(false, Ordering::SeqCst);
    create().await.unwrap();
    assert!(matches!(jobs.state(job(1)).await, JobState::Done(_)));
}

fn over(number: u128) -> Job {
    Job {
        uuid: job(number),
        message: "CreateZone".into(),
        subject_kind: None,
        subject_uuid: None,
        hosts: Vec::new(),
        done: false,
        create_date: Timestamp(0),
        deadline: Timestamp(0),
    }
}
