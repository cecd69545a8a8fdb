//! Jobs: what is told of a call, to whom, and for how long.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use model::{
    Code, Error, Id, Kind, Meta, Record, Resource, Timestamp,
    resource::{host::Host, job::Job, used_ip::UsedIp},
    status::{Board, HostStatus, Pending},
};
use netloom_control::{Caller, Command, JobId, JobState, Jobs, RefusedCall};
use serde_json::{Value, json};
use store::{CommitError, Engine, Loaded, LogError, LogRecord, Memory, Read, Store, StoredRow};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, Fixture, confirm, request};

/// A command of an administrator's.
pub(crate) fn command(cloud: &Cloud, message: &str, params: Value) -> Command {
    cloud.operations.command(ADMINISTRATOR, vec![request(message, params)]).unwrap()
}

pub(crate) fn jobs(cloud: &Cloud) -> (Jobs, watch::Sender<Board>) {
    let (board, reports) = watch::channel(cloud.board.clone());
    (Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000)), board)
}

pub(crate) fn job(number: u128) -> Id<Job> {
    Id::new(Uuid::from_u128(number))
}

pub(crate) fn drawn(number: u128) -> JobId {
    JobId { uuid: job(number), is_chosen: false }
}

fn is_open(state: &JobState) -> bool {
    matches!(state, JobState::Processing(_))
}

/// Field case F36: a call that is sent twice, one after the other.
#[tokio::test]
async fn a_job_stays_what_it_is_when_its_uuid_is_used_again() {
    let cloud = Cloud::empty();
    let (jobs, _board) = jobs(&cloud);
    let create = |name: &str| {
        jobs.submit(command(&cloud, "CreateZone", json!({"name": name})), drawn(1), 60)
    };
    create("z").await.unwrap();
    let done = jobs.state(&ADMINISTRATOR, job(1)).await;
    assert!(matches!(done, JobState::Done(_)), "{done:?}");
    let wrong = RefusedCall::of(Error::field("name", "is wrong"));
    let refused = jobs.refuse(&ADMINISTRATOR, drawn(1), wrong).await.unwrap_err();
    assert_eq!(refused.code, Code::Duplicate);
    assert_eq!(create("other").await.unwrap_err().code, Code::Duplicate);
    assert_eq!(jobs.state(&ADMINISTRATOR, job(1)).await, done);
}

/// Field case F36: a call that is sent twice at once, to one server and to two.
#[tokio::test]
async fn a_job_uuid_that_is_used_twice_at_once_makes_one_resource_that_both_callers_see() {
    for is_alone in [true, false] {
        let cloud = Cloud::empty();
        let other = cloud.second_server();
        let (first, _board) = jobs(&cloud);
        let (second, _board) = if is_alone { jobs(&cloud) } else { jobs(&other) };
        let create = async |jobs: &Jobs| {
            let zone = command(&cloud, "CreateZone", json!({"name": "z"}));
            let chosen = JobId { uuid: job(1), is_chosen: true };
            jobs.submit(zone, chosen, 60).await.map_err(|error| error.code)
        };
        let (a, b) = tokio::join!(create(&first), create(&second));
        let refused: Vec<Code> = [a, b].into_iter().filter_map(Result::err).collect();
        assert_eq!(refused, [Code::Duplicate], "alone: {is_alone}");
        cloud.store.follow().unwrap();
        other.store.follow().unwrap();
        assert_eq!(cloud.snapshot().total(Kind::Zone), 1, "alone: {is_alone}");
        for jobs in [&first, &second] {
            let state = jobs.state(&ADMINISTRATOR, job(1)).await;
            assert!(matches!(state, JobState::Done(_)), "alone: {is_alone}: {state:?}");
        }
    }
}

#[tokio::test]
async fn a_job_waits_for_its_host_even_if_its_caller_has_gone_away() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let (jobs, board) = jobs(&cloud);
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    board.send_modify(|board| {
        confirm(board, host);
        board.revision = cloud.snapshot().revision();
    });
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    tokio::select! {
        biased;
        _ = jobs.submit(command(&cloud, "CreateVmInstance", vm), drawn(1), 60) => {}
        () = std::future::ready(()) => {}
    }
    let committed = async {
        while cloud.snapshot().get(Kind::Job, job(1).uuid()).is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), committed).await.expect("durable");
    assert!(is_open(&jobs.state(&ADMINISTRATOR, job(1)).await));
    acknowledge(&board, host);
    assert!(matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)));
}

#[tokio::test]
async fn however_many_jobs_are_over_they_are_forgotten() {
    let cloud = Cloud::empty();
    let many = 12_000;
    for start in (0..many).step_by(4_000) {
        let put = move |tx: &mut store::Tx<Record>| {
            for number in start..start + 4_000 {
                tx.put(Record::new(over(number), Meta::default())).unwrap();
            }
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
pub(crate) async fn waiting(
    cloud: &Cloud,
    fixture: &Fixture,
    jobs: &Jobs,
    timeout_seconds: i64,
) -> Id<Host> {
    let l3 = cloud.l3(fixture, "red");
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    let submitted = jobs.submit(command(cloud, "CreateVmInstance", vm), drawn(1), timeout_seconds);
    submitted.await.unwrap();
    assert!(is_open(&jobs.state(&ADMINISTRATOR, job(1)).await));
    host
}

pub(crate) fn acknowledge(board: &watch::Sender<Board>, host: Id<Host>) {
    board.send_modify(|board| {
        confirm(board, host);
        board.revision = u64::MAX;
    });
}

/// Reports that the host can apply nothing of what runs on it.
fn fail(cloud: &Cloud, board: &watch::Sender<Board>, host: Id<Host>) {
    let snapshot = cloud.snapshot();
    let instances = snapshot.referrers(Kind::VmInstance, "hostUuid", host.uuid());
    let failed = instances.map(|uuid| (uuid, Arc::from("no such device"))).collect();
    board.send_modify(|board| {
        board.put(host, HostStatus { failed, ..board.status(host).clone() });
    });
}

/// Tells hosts of changes of these objects, as link does once they are compiled.
pub(crate) fn tell(cloud: &Cloud, board: &watch::Sender<Board>, host: Id<Host>, objects: &[Uuid]) {
    let revision = cloud.snapshot().revision();
    board.send_modify(|board| {
        let mut status = board.status(host).clone();
        let pending = Pending { since: revision, last: revision };
        status.pending.extend(objects.iter().map(|object| (*object, pending)));
        board.put(host, status);
        board.revision = revision;
    });
}

/// The instance that job 1 made, and its NIC.
pub(crate) fn made(cloud: &Cloud) -> [Uuid; 2] {
    let uuid = |kind| cloud.snapshot().list(kind).next().unwrap().uuid();
    [uuid(Kind::VmInstance), uuid(Kind::VmNic)]
}

#[tokio::test]
async fn a_job_waits_for_its_own_objects_and_for_nothing_else_on_their_host() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    let [instance, nic] = made(&cloud);
    let other = Uuid::from_u128(999);
    tell(&cloud, &board, host, &[instance, nic, other]);
    assert!(is_open(&jobs.state(&ADMINISTRATOR, job(1)).await));
    // The other object cannot be removed, and never will be.
    let stuck: imbl::OrdMap<_, _> = [(other, Arc::from("busy"))].into_iter().collect();
    for (failed, done) in [([nic, other].as_slice(), false), ([other].as_slice(), true)] {
        let failed = failed.iter().map(|uuid| (*uuid, Arc::from("busy"))).collect();
        board.send_modify(|board| {
            confirm(board, host);
            board.put(host, HostStatus { failed, ..board.status(host).clone() });
        });
        assert_eq!(matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)), done);
    }
    assert_eq!(board.borrow().status(host).failed, stuck);
}

#[tokio::test]
async fn a_host_that_was_told_nothing_of_the_jobs_objects_is_not_waited_for() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    // It never connected, and never will.
    tell(&cloud, &board, host, &[]);
    assert!(matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)));
}

#[tokio::test]
async fn a_job_that_is_not_in_effect_in_time_says_why() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (board, reports) = watch::channel(cloud.board.clone());
    let patient = Jobs::new(cloud.store.clone(), reports.clone(), || Timestamp(1_000));
    let host = waiting(&cloud, &fixture, &patient, 60).await;
    let late = Jobs::new(cloud.store.clone(), reports, || Timestamp(100_000));
    acknowledge(&board, host);
    fail(&cloud, &board, host);
    let JobState::Failed(error) = late.state(&ADMINISTRATOR, job(1)).await else {
        panic!(
            "in effect: {:?} {:?}",
            late.state(&ADMINISTRATOR, job(1)).await,
            board.borrow().status(host)
        )
    };
    assert!(error.message.contains("no such device"), "{error}");
    let refused = Some(Arc::from("told by another database"));
    board.send_modify(|board| board.put(host, HostStatus { refused, ..HostStatus::default() }));
    let JobState::Failed(error) = late.state(&ADMINISTRATOR, job(1)).await else {
        panic!(
            "in effect: {:?} {:?}",
            late.state(&ADMINISTRATOR, job(1)).await,
            board.borrow().status(host)
        )
    };
    assert!(error.message.contains("told by another database"), "{error}");
}

/// Destroys the instance of a host that is lost, in two ways; gives what becomes of both.
async fn destroyed(now: fn() -> Timestamp) -> [JobState; 2] {
    let (mut cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let (first, reports) = watch::channel(cloud.board.clone());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let vms = ["a", "b"].map(|name| {
        let params = json!({"name": name, "l3NetworkUuids": [l3], "hostUuid": host});
        cloud.made("CreateVmInstance", params)
    });
    cloud.lost(&fixture.hosts[0]);
    first.send_replace(cloud.board.clone());
    for (number, (vm, mode)) in vms.iter().zip(["Permissive", "Enforcing"]).enumerate() {
        let params = json!({"uuid": vm, "deleteMode": mode});
        let destroy = command(&cloud, "DestroyVmInstance", params);
        jobs.submit(destroy, drawn(number as u128), 1_800).await.unwrap();
    }
    let held = cloud
        .snapshot()
        .list(Kind::UsedIp)
        .any(|record| UsedIp::of(&record).is_some_and(|used| used.used_by.kind != Kind::Release));
    assert!(!held, "a destroyed instance has no address");
    let objects = vms.map(|vm| vm.parse::<Id<Host>>().unwrap().uuid());
    tell(&cloud, &first, host, &objects);
    let (_second, reports) = watch::channel(first.borrow().clone());
    let later = Jobs::new(cloud.store.clone(), reports, now);
    let state = async |number| later.state(&ADMINISTRATOR, job(number)).await;
    [state(0).await, state(1).await]
}

#[tokio::test]
async fn a_destroy_waits_a_minute_for_a_lost_host_and_an_enforced_one_not_at_all() {
    let [waits, enforced] = destroyed(|| Timestamp(50_000)).await;
    assert!(is_open(&waits), "{waits:?}");
    assert!(matches!(enforced, JobState::Done(_)), "{enforced:?}");
    let [waits, _] = destroyed(|| Timestamp(62_000)).await;
    let JobState::Failed(error) = waits else { panic!("{waits:?}") };
    assert!(error.message.contains("durable") && error.message.contains("is disconnected"));
    assert!(error.hint.is_some_and(|hint| hint.contains("deleteMode=Enforcing")));
}

#[tokio::test]
async fn a_job_that_waits_for_a_host_in_trouble_says_what_ails_it() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    tell(&cloud, &board, host, &made(&cloud));
    board.send_modify(|board| {
        let failed = [(host.uuid(), Arc::from("disk full"))].into_iter().collect();
        board.put(host, HostStatus { connected: true, failed, ..board.status(host).clone() });
    });
    let JobState::Processing(reasons) = jobs.state(&ADMINISTRATOR, job(1)).await else {
        panic!("it waits")
    };
    assert_eq!(reasons, [format!("host {host} has not acknowledged: disk full")]);
}

#[tokio::test]
async fn a_job_of_an_earlier_life_waits_until_its_host_has_confirmed() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let host = waiting(&cloud, &fixture, &jobs(&cloud).0, 60).await;
    let (board, reports) = watch::channel(Board::default());
    let restarted = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    tell(&cloud, &board, host, &[]);
    assert!(is_open(&restarted.state(&ADMINISTRATOR, job(1)).await));
    acknowledge(&board, host);
    assert!(matches!(restarted.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)));
}

#[tokio::test]
async fn finished_jobs_are_kept_by_time_however_many_there_are() {
    let cloud = Cloud::empty();
    let (jobs, _board) = jobs(&cloud);
    for number in 0..3 {
        let zone = command(&cloud, "CreateZone", json!({"name": format!("z{number}")}));
        jobs.submit(zone, drawn(number), 60).await.unwrap();
    }
    assert_eq!(jobs.sweep().await.unwrap(), 0);
    // More than were ever kept before.
    for start in (10..60_010).step_by(5_000) {
        let put = move |tx: &mut store::Tx<Record>| {
            let young = |number| Job { create_date: Timestamp(1_000), ..over(number) };
            for number in start..start + 5_000 {
                tx.put(Record::new(young(number), Meta::default())).unwrap();
            }
            Ok(())
        };
        cloud.store.transact(put).unwrap();
    }
    let (restarted, _board) = self::jobs(&cloud);
    assert_eq!(restarted.sweep().await.unwrap(), 0);
    let (_board, reports) = watch::channel(Board::default());
    let later = Jobs::new(cloud.store.clone(), reports, || Timestamp(20_000_000));
    assert_eq!(later.sweep().await.unwrap(), 60_003);
}

#[tokio::test]
async fn what_was_told_to_be_a_success_stays_one() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    acknowledge(&board, host);
    assert!(matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)));
    fail(&cloud, &board, host);
    assert!(
        matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)),
        "a fault of later"
    );
    let (restarted, _board) = self::jobs(&cloud);
    assert!(
        matches!(restarted.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)),
        "nobody has reported"
    );
}

#[tokio::test]
async fn a_success_that_nobody_asked_for_is_written_down_too() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let host = waiting(&cloud, &fixture, &jobs, 60).await;
    acknowledge(&board, host);
    jobs.sweep().await.unwrap();
    fail(&cloud, &board, host);
    assert!(matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)));
}

/// Far longer than what is waited for takes, and than the test may.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn waited(jobs: &Jobs) -> JobState {
    let waiting = jobs.wait(&ADMINISTRATOR, job(1), PATIENCE);
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
    let (_board, reports) = watch::channel(cloud.board.clone());
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
        cloud.give_up_releases();
        cloud.call("DeleteHost", json!({"uuid": host})).unwrap();
    };
    let (state, ()) = tokio::join!(waited(&jobs), delete);
    assert!(matches!(state, JobState::Done(_)), "{state:?}");
}

/// Whoever hears that an instance is stopped starts it elsewhere at once.
#[tokio::test]
async fn a_stop_is_a_success_once_the_instances_place_is_free() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (jobs, board) = jobs(&cloud);
    let (l3, host) = (cloud.l3(&fixture, "red"), &fixture.hosts[0]);
    let params = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    let vm = cloud.made("CreateVmInstance", params);
    let stop = command(&cloud, "StopVmInstance", json!({"uuid": vm}));
    jobs.submit(stop, drawn(1), 60).await.unwrap();
    acknowledge(&board, host.parse().unwrap());
    let state = jobs.state(&ADMINISTRATOR, job(1)).await;
    let JobState::Processing(reasons) = &state else { panic!("{state:?}") };
    assert!(reasons[0].contains("let go of"), "{reasons:?}");
    let let_go = async {
        tokio::task::yield_now().await;
        cloud.give_up_releases();
    };
    let (state, ()) = tokio::join!(waited(&jobs), let_go);
    assert!(matches!(state, JobState::Done(_)), "{state:?}");
    let there = json!({"uuid": vm, "hostUuid": fixture.hosts[1]});
    cloud.call("StartVmInstance", there).unwrap();
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
        jobs.submit(command(&cloud, "CreateCluster", nobody), drawn(1), 60),
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
    fn load(
        &mut self,
        row: &mut dyn FnMut(StoredRow) -> Result<(), Error>,
    ) -> Result<Loaded, Error> {
        self.memory.load(row)
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
    let away = Arc::new(AtomicBool::new(false));
    let engine = Flaky { memory: Memory::new(), away: Arc::clone(&away) };
    let store = Store::open(Box::new(engine)).unwrap();
    netloom_control::account::create_admin(&store, "hash", Timestamp(0)).unwrap();
    away.store(true, Ordering::SeqCst);
    let (_board, reports) = watch::channel(Board::default());
    let jobs = Jobs::new(store, reports, || Timestamp(1_000));
    let other = Cloud::empty();
    let create = || jobs.submit(command(&other, "CreateZone", json!({"name": "z"})), drawn(1), 60);
    assert_eq!(create().await.unwrap_err().code, Code::StoreUnavailable);
    away.store(false, Ordering::SeqCst);
    create().await.unwrap();
    assert!(matches!(jobs.state(&ADMINISTRATOR, job(1)).await, JobState::Done(_)));
}

pub(crate) fn over(number: u128) -> Job {
    Job {
        uuid: job(number),
        message: "CreateZone".into(),
        subject_kind: None,
        subject_uuid: None,
        subject_also: None,
        hosts: Vec::new(),
        objects: Vec::new(),
        done: false,
        messages: Vec::new(),
        canceled: None,
        failed: None,
        uuid_chosen: false,
        create_date: Timestamp(0),
        deadline: Timestamp(0),
    }
}

#[tokio::test]
async fn a_job_whose_uuid_the_caller_chose_is_its_owners_alone() {
    let cloud = Cloud::empty();
    let (jobs, _board) = jobs(&cloud);
    let source = ADMINISTRATOR.source();
    let stranger = Caller::Stranger { source };
    let other =
        Caller::Account { id: Id::new(Uuid::from_u128(7)), is_admin: false, session: None, source };
    let zone = || command(&cloud, "CreateZone", json!({"name": "z"}));
    jobs.submit(zone(), drawn(1), 60).await.unwrap();
    jobs.submit(zone(), JobId { uuid: job(2), is_chosen: true }, 60).await.unwrap();
    let refused = JobId { uuid: job(3), is_chosen: true };
    let wrong = RefusedCall::of(Error::field("name", "is wrong"));
    jobs.refuse(&ADMINISTRATOR, refused, wrong).await.unwrap();
    for (caller, seen) in [(ADMINISTRATOR, [true; 3]), (stranger, [true, false, false])]
        .into_iter()
        .chain([(other, [true, false, false])])
    {
        for (number, seen) in (1..).zip(seen) {
            let state = jobs.state(&caller, job(number)).await;
            assert_eq!(state != JobState::Unknown, seen, "{caller:?} {number}");
            let waited = jobs.wait(&caller, job(number), Duration::from_secs(1)).await;
            assert_eq!(waited, state);
        }
    }
}
