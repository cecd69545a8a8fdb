//! Several servers on one store: what only one of them may do at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use model::{
    Kind, Record, Resource, Timestamp,
    resource::long_job::{LongJob, LongJobState},
};
use netloom_control::{
    Enrolment, Gate, Jobs,
    lease::{self, Span},
    long_job,
    webhook::{self, About, Post},
};
use serde_json::json;
use store::{Event, Read};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::harness::{ADMINISTRATOR, Cloud, limit, request};

/// So short that a test need not wait long.
const SHORT: Span = Span { keep: Duration::from_millis(20), patience: Duration::from_millis(400) };

fn gate(cloud: &Cloud) -> Arc<Gate> {
    let (_board, reports) = watch::channel(cloud.board.clone());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    Arc::new(Gate::new(jobs, enrolment))
}

/// Work that tells who does it, and how many did at a time.
#[derive(Default)]
struct Work {
    doing: AtomicUsize,
    most: AtomicUsize,
    begun: Mutex<Vec<usize>>,
    changed: Notify,
}

/// Somebody who does it.
struct Doing<'w>(&'w Work);

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        self.0.doing.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Work {
    async fn by(&self, server: usize, stop: CancellationToken) {
        let now = self.doing.fetch_add(1, Ordering::SeqCst) + 1;
        let _doing = Doing(self);
        self.most.fetch_max(now, Ordering::SeqCst);
        self.begun.lock().unwrap().push(server);
        self.changed.notify_one();
        stop.cancelled().await;
    }

    async fn until_begun(&self, times: usize) {
        while self.begun.lock().unwrap().len() < times {
            self.changed.notified().await;
        }
    }
}

/// The work of a server.
async fn held(cloud: &Cloud, work: &Work, server: usize, stop: CancellationToken) {
    lease::held(&gate(cloud), "work", SHORT, stop, |ours| work.by(server, ours)).await;
}

#[tokio::test]
async fn one_server_works_and_another_one_goes_on_when_it_stops_or_dies() {
    let first = Cloud::shared();
    let (second, third) = (first.second_server(), first.second_server());
    let work = Work::default();
    let stops = [(); 3].map(|()| CancellationToken::new());
    let one = held(&first, &work, 1, stops[0].clone());
    let two = held(&second, &work, 2, stops[1].clone());
    let three = held(&third, &work, 3, stops[2].clone());
    limit(async {
        let (mut one, mut two, mut three) = (Box::pin(one), Box::pin(two), Box::pin(three));
        tokio::select! {
            () = &mut one => panic!("it was not told to stop"),
            () = work.until_begun(1) => {}
        }
        // It stops in good order.
        stops[0].cancel();
        one.await;
        tokio::select! {
            () = &mut two => panic!("it was not told to stop"),
            () = work.until_begun(2) => {}
        }
        // It dies: nobody says that the lease is free.
        drop(two);
        assert_eq!(second.snapshot().total(Kind::Lease), 1);
        tokio::select! {
            () = &mut three => panic!("it was not told to stop"),
            () = work.until_begun(3) => {}
        }
        stops[2].cancel();
        three.await;
    })
    .await;
    assert_eq!(*work.begun.lock().unwrap(), [1, 2, 3]);
    assert_eq!(work.most.load(Ordering::SeqCst), 1, "one at a time");
}

#[tokio::test]
async fn one_that_cannot_reach_the_store_ends_before_another_one_begins() {
    let first = Cloud::shared();
    let second = first.second_server();
    let (work, stop) = (Work::default(), CancellationToken::new());
    let one = held(&first, &work, 1, stop.clone());
    let two = async {
        work.until_begun(1).await;
        first.engine.cut();
        // The one that has it ends, as it cannot keep it.
        while work.doing.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
        first.engine.mend();
        let two = held(&second, &work, 2, stop.clone());
        let ends = async {
            work.until_begun(2).await;
            stop.cancel();
        };
        tokio::join!(two, ends);
    };
    limit(async { tokio::join!(one, two) }).await;
    assert_eq!(work.most.load(Ordering::SeqCst), 1, "one at a time");
}

/// Whoever looks at what is there is alone, where the engine has one server.
#[tokio::test]
async fn a_server_that_is_alone_waits_for_nobody_and_leaves_no_lease() {
    let cloud = Cloud::empty();
    let (work, stop) = (Work::default(), CancellationToken::new());
    let ends = async {
        work.until_begun(1).await;
        assert_eq!(cloud.snapshot().total(Kind::Lease), 0);
        stop.cancel();
    };
    limit(async { tokio::join!(held(&cloud, &work, 1, stop.clone()), ends) }).await;
}

/// Both servers are ready to do it all, and one is stopped half-way.
#[tokio::test]
async fn of_two_servers_each_long_job_is_run_once_and_each_change_sent_by_one() {
    const JOBS: usize = 40;
    let first = Cloud::shared();
    let second = first.second_server();
    let hook = json!({"name": "h", "url": "http://192.0.2.7/", "type": "ZoneVO"});
    first.made("CreateWebhook", hook);
    let got = Arc::new(Mutex::new(BTreeMap::<u64, usize>::new()));
    let stops = [CancellationToken::new(), CancellationToken::new()];
    let run = |cloud: &Cloud, stop: &CancellationToken| {
        let (gate, got, stop) = (gate(cloud), Arc::clone(&got), stop.clone());
        let sends = Arc::new(move |post: &Post| {
            let About::Changes { .. } = post.about else { panic!("{post:?}") };
            let body: serde_json::Value = serde_json::from_str(&post.body).unwrap();
            for event in body["events"].as_array().unwrap() {
                let revision = event["revision"].as_u64().unwrap();
                *got.lock().unwrap().entry(revision).or_default() += 1;
            }
            Ok(())
        });
        async move {
            let jobs = long_job::run(Arc::clone(&gate), stop.clone());
            tokio::join!(jobs, webhook::run(gate, stop, sends));
        }
    };
    let submit = |number: usize| {
        let data = json!({"name": format!("zone {number}")}).to_string();
        let params = json!({"jobName": "CreateZone", "jobData": data});
        second.send(ADMINISTRATOR, vec![request("SubmitLongJob", params)]).unwrap();
    };
    let mut commits = second.store.watch();
    let work = async {
        (0..JOBS / 2).for_each(submit);
        let mut is_stopped = false;
        loop {
            let event: Option<Event<Record>> = commits.next().await;
            event.expect("the store is there");
            let zones = second.snapshot().total(Kind::Zone);
            if zones >= 5 && !std::mem::replace(&mut is_stopped, true) {
                (JOBS / 2..JOBS).for_each(submit);
                stops[0].cancel();
            }
            let sent = got.lock().unwrap().len();
            if states(&second) == vec![LongJobState::Succeeded; JOBS] && sent == JOBS {
                break;
            }
        }
        stops[1].cancel();
    };
    let (one, two) = (run(&first, &stops[0]), run(&second, &stops[1]));
    limit(async { tokio::join!(one, two, work) }).await;
    let mut names: Vec<_> =
        second.snapshot().list(Kind::Zone).map(|row| row.field("name").to_text()).collect();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), second.snapshot().total(Kind::Zone)), (JOBS, JOBS as u64));
    assert_eq!(got.lock().unwrap().values().max(), Some(&1), "nothing is sent twice");
}

fn states(cloud: &Cloud) -> Vec<LongJobState> {
    let snapshot = cloud.snapshot();
    let rows = snapshot.list(Kind::LongJob);
    rows.map(|row| LongJob::of(&row).map(|long_job| long_job.state).unwrap()).collect()
}
