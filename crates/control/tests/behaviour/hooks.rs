//! Webhooks: what each is sent of what changes, in which order, and what is told when it is not.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use model::{
    Id, Kind, Record, Timestamp,
    resource::webhook::{Webhook, WebhookCursor},
};
use netloom_control::{
    Caller, Enrolment, Gate, Jobs,
    inventory::{self, Observed},
    webhook::{self, About, NotSent, Post, Reach},
};
use serde_json::{Value, json};
use store::{Event, Read};
use tokio::sync::{Notify, watch};

use crate::harness::{ADMINISTRATOR, Cloud, Receiver, request, tenant, while_sending};

const URL: &str = "http://192.0.2.7/changes";

fn gate(cloud: &Cloud) -> Arc<Gate> {
    let (_board, reports) = watch::channel(cloud.board.clone());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    Arc::new(Gate::new(jobs, enrolment))
}

fn hook(cloud: &Cloud, caller: Caller, kind: &str, url: &str) -> Id<Webhook> {
    let fields = json!({"name": "hook", "url": url, "type": kind, "opaque": "mine"});
    let done = cloud.send(caller, vec![request("CreateWebhook", fields)]).unwrap();
    Id::new(done.reply.subject.unwrap().1)
}

fn not_in_effect(cloud: &Cloud, hook: Id<Webhook>) -> Option<String> {
    let snapshot = cloud.snapshot();
    let record = snapshot.get(Kind::Webhook, hook.uuid()).unwrap();
    let shown = inventory::show(&record, &Observed::new(&snapshot, &cloud.board));
    shown.get("notInEffect").map(|why| why.as_str().unwrap().to_owned())
}

fn zone(cloud: &Cloud, name: &str) -> String {
    cloud.made("CreateZone", json!({"name": name}))
}

/// What receivers have got.
#[derive(Default)]
struct Receivers {
    got: Mutex<Vec<Post>>,
    /// Those that take nothing.
    dead: Mutex<BTreeSet<&'static str>>,
    arrived: Notify,
}

impl Receiver for Receivers {
    fn take(&self, post: &Post) -> Result<(), NotSent> {
        self.got.lock().unwrap().push(post.clone());
        self.arrived.notify_waiters();
        self.arrived.notify_one();
        match self.dead.lock().unwrap().contains(&*post.url) {
            true => Err(NotSent { why: "nobody listens".to_owned(), is_tried_again: true }),
            false => Ok(()),
        }
    }
}

impl Receivers {
    fn got(&self) -> Vec<Post> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until what has arrived is so.
    async fn until(&self, is: impl Fn(&[Post]) -> bool) {
        while !is(&self.got()) {
            self.arrived.notified().await;
        }
    }
}

/// What one webhook was told: revision, what has happened, and the name if there is one.
fn told(posts: &[Post], hook: Id<Webhook>) -> Vec<(u64, String, String)> {
    let mut all = Vec::new();
    for post in posts {
        let About::Changes { webhook, revision } = post.about else { panic!("{post:?}") };
        if webhook != hook {
            continue;
        }
        let body: Value = serde_json::from_str(&post.body).unwrap();
        assert_eq!(body["webhook"]["uuid"], json!(hook));
        assert_eq!(body["webhook"]["opaque"], "mine");
        for event in body["events"].as_array().unwrap() {
            assert!(event["revision"].as_u64().unwrap() <= revision);
            for change in event["changes"].as_array().unwrap() {
                let name = change["inventory"]["name"].as_str().unwrap_or_default();
                let what = change["change"].as_str().unwrap();
                all.push((event["revision"].as_u64().unwrap(), what.to_owned(), name.to_owned()));
            }
        }
    }
    all
}

fn names(posts: &[Post], hook: Id<Webhook>) -> Vec<String> {
    told(posts, hook).into_iter().map(|(_, _, name)| name).collect()
}

/// Waits until the store shows what is wanted.
async fn until(cloud: &Cloud, is: impl Fn() -> bool) {
    let mut commits = cloud.store.watch();
    while !is() {
        let event: Option<Event<Record>> = commits.next().await;
        event.expect("the store is there");
    }
}

/// Waits until it is written down what a webhook has taken: it is sent again otherwise.
async fn noted(cloud: &Cloud, receivers: &Receivers, hook: Id<Webhook>) {
    let is_noted = || {
        let cursor = cloud.get(WebhookCursor::id_of(hook)).unwrap();
        told(&receivers.got(), hook).last().is_some_and(|last| cursor.revision >= last.0)
    };
    until(cloud, is_noted).await;
}

#[tokio::test]
async fn each_is_sent_in_order_what_its_account_sees_of_its_kind() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (gate, receivers, red) = (gate(&cloud), Arc::<Receivers>::default(), tenant(&cloud, 7));
    let zones = hook(&cloud, ADMINISTRATOR, "ZoneVO", URL);
    let all = hook(&cloud, ADMINISTRATOR, "*", URL);
    let of_red = hook(&cloud, red, "*", URL);
    let odd = hook(&cloud, ADMINISTRATOR, "no such type", URL);
    assert_eq!(not_in_effect(&cloud, zones), None);
    assert!(not_in_effect(&cloud, odd).unwrap().contains("VmInstanceVO"));
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    while_sending(&gate, &receivers, async {
        let a = zone(&cloud, "a");
        cloud.call("UpdateZone", json!({"uuid": a, "name": "b"})).unwrap();
        cloud.give(Kind::L2Network, &l2, red.account().unwrap());
        let l3 = json!({"name": "l3 of red", "l2NetworkUuid": l2});
        cloud.send(red, vec![request("CreateL3Network", l3)]).unwrap();
        cloud.call("DeleteZone", json!({"uuid": a})).unwrap();
        let is_deleted = |told: &[(u64, String, String)]| told.iter().any(|it| it.1 == "deleted");
        receivers
            .until(|got| {
                let ends = [zones, all].iter().all(|hook| is_deleted(&told(got, *hook)));
                ends && names(got, of_red).contains(&"l3 of red".to_owned())
            })
            .await;
    })
    .await;
    let got = receivers.got();
    let changes: Vec<_> = told(&got, zones).into_iter().map(|(_, what, _)| what).collect();
    assert_eq!(changes, ["created", "updated", "deleted"]);
    for hook in [zones, all, of_red] {
        let revisions: Vec<u64> = told(&got, hook).into_iter().map(|it| it.0).collect();
        assert!(revisions.is_sorted(), "{revisions:?}");
    }
    assert!(names(&got, all).contains(&"l3 of red".to_owned()));
    let reds = got.iter().filter(|post| matches!(post.reach, Reach::Public(_)));
    let reds: Vec<&str> = reds.map(|post| post.body.as_str()).collect();
    assert!(reds.iter().any(|body| body.contains("L3NetworkVO")), "{reds:?}");
    assert!(reds.iter().all(|body| !body.contains("ZoneVO")), "it sees no zone: {reds:?}");
    assert_eq!(told(&got, odd), []);
    for post in &got {
        let About::Changes { webhook, .. } = post.about else { panic!("{post:?}") };
        let is_public = matches!(post.reach, Reach::Public(_));
        assert_eq!(is_public, webhook == of_red, "a normal account's go where it may reach");
    }
}

#[tokio::test]
async fn one_that_nobody_takes_holds_no_other_up_and_is_told_again_in_its_order() {
    const DEAD: &str = "http://192.0.2.8/dead";
    let cloud = Cloud::empty();
    let (gate, receivers) = (gate(&cloud), Arc::<Receivers>::default());
    let dead: Vec<_> = (0..webhook::AT_ONCE_OF_ACCOUNT_MAX + 1)
        .map(|_| hook(&cloud, ADMINISTRATOR, "ZoneVO", DEAD))
        .collect();
    let alive = hook(&cloud, ADMINISTRATOR, "ZoneVO", URL);
    receivers.dead.lock().unwrap().insert(DEAD);
    while_sending(&gate, &receivers, async {
        zone(&cloud, "a");
        zone(&cloud, "b");
        receivers.until(|got| names(got, alive) == ["a", "b"]).await;
        until(&cloud, || dead.iter().all(|hook| not_in_effect(&cloud, *hook).is_some())).await;
        assert!(not_in_effect(&cloud, dead[0]).unwrap().contains("nobody listens"));
        assert_eq!(not_in_effect(&cloud, alive), None);
        receivers.dead.lock().unwrap().clear();
        // A change of the webhook makes it be tried at once.
        for hook in &dead {
            cloud.call("UpdateWebhook", json!({"uuid": hook, "name": "new"})).unwrap();
        }
        receivers
            .until(|got| {
                let done = |hook: &Id<Webhook>| names(got, *hook).ends_with(&["b".to_owned()]);
                dead.iter().all(done)
            })
            .await;
        until(&cloud, || dead.iter().all(|hook| not_in_effect(&cloud, *hook).is_none())).await;
    })
    .await;
    for hook in dead {
        let mut told = told(&receivers.got(), hook);
        assert!(told.is_sorted(), "{told:?}");
        told.dedup();
        assert_eq!(told.iter().map(|it| it.2.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }
}

#[tokio::test]
async fn one_that_is_deleted_is_sent_nothing_more() {
    let cloud = Cloud::empty();
    let (gate, receivers) = (gate(&cloud), Arc::<Receivers>::default());
    let gone = hook(&cloud, ADMINISTRATOR, "ZoneVO", URL);
    let stays = hook(&cloud, ADMINISTRATOR, "ZoneVO", URL);
    while_sending(&gate, &receivers, async {
        zone(&cloud, "a");
        receivers.until(|got| !names(got, gone).is_empty() && !names(got, stays).is_empty()).await;
        cloud.call("DeleteWebhook", json!({"uuid": gone})).unwrap();
        assert_eq!(cloud.snapshot().total(Kind::WebhookCursor), 1, "its place goes with it");
        zone(&cloud, "b");
        zone(&cloud, "c");
        receivers.until(|got| names(got, stays) == ["a", "b", "c"]).await;
    })
    .await;
    assert_eq!(names(&receivers.got(), gone), ["a"]);
}

#[tokio::test]
async fn what_changes_while_nobody_sends_is_sent_later_and_what_was_taken_is_not_sent_again() {
    let cloud = Cloud::empty();
    let receivers = Arc::<Receivers>::default();
    let zones = hook(&cloud, ADMINISTRATOR, "ZoneVO", URL);
    zone(&cloud, "a");
    for (name, sent) in [("b", &["a"][..]), ("c", &["a", "b"]), ("d", &["a", "b", "c"])] {
        let gate = gate(&cloud);
        // It is told to stop while it sends the last one.
        let all = receivers.until(|got| names(got, zones).len() == sent.len());
        while_sending(&gate, &receivers, all).await;
        assert_eq!(names(&receivers.got(), zones), sent);
        zone(&cloud, name);
    }
    assert_eq!(not_in_effect(&cloud, zones), None);
}

/// A start of the server knows nothing of what changed before: see `store::History`.
#[tokio::test]
async fn what_is_not_kept_any_more_is_said_to_be_missed_and_it_goes_on_from_now() {
    let cloud = Cloud::empty();
    let receivers = Arc::<Receivers>::default();
    let zones = hook(&cloud, ADMINISTRATOR, "ZoneVO", URL);
    while_sending(&gate(&cloud), &receivers, async {
        zone(&cloud, "a");
        receivers.until(|got| names(got, zones) == ["a"]).await;
        noted(&cloud, &receivers, zones).await;
    })
    .await;
    let again = cloud.second_server();
    while_sending(&gate(&again), &receivers, async {
        zone(&again, "b");
        receivers.until(|got| names(got, zones) == ["a", "b"]).await;
        noted(&again, &receivers, zones).await;
    })
    .await;
    assert_eq!(not_in_effect(&again, zones), None, "nothing had changed before the start");
    zone(&again, "missed");
    let again = again.second_server();
    while_sending(&gate(&again), &receivers, async {
        until(&again, || not_in_effect(&again, zones).is_some()).await;
        zone(&again, "c");
        receivers.until(|got| names(got, zones) == ["a", "b", "c"]).await;
    })
    .await;
    let why = not_in_effect(&again, zones).unwrap();
    assert!(why.contains("was not sent"), "{why}");
    again.call("UpdateWebhook", json!({"uuid": zones, "name": "read"})).unwrap();
    assert_eq!(not_in_effect(&again, zones), None);
}
