//! Webhooks: who is sent the result of a call, where, how often, and what is told when it fails.

use std::sync::{Arc, Condvar, Mutex};

use model::{
    Code, Error, Id, Kind, Message, Meta, Record, Resource, Timestamp,
    record::OWNER,
    resource::{
        host::Host,
        job::Job,
        webhook::{WebhookCall, WebhookCallState},
        zone::CreateZone,
    },
    status::Board,
};
use netloom_control::{
    Caller, Enrolment, Gate, JobId, Jobs, RefusedCall, Terms,
    webhook::{self, About, NotSent, Post, Reach},
};
use serde_json::{Value, json};
use store::{Event, Key, Read};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::{ADMINISTRATOR, Cloud, Receiver, confirm, request, tenant, while_sending};

const URL: &str = "http://192.0.2.7/results";

fn gate(cloud: &Cloud) -> (Arc<Gate>, watch::Sender<Board>) {
    let (board, reports) = watch::channel(cloud.board.clone());
    let jobs = Jobs::new(cloud.store.clone(), reports, || Timestamp(1_000));
    let enrolment = Enrolment { server: String::new(), ca: String::new() };
    (Arc::new(Gate::new(jobs, enrolment)), board)
}

/// Sends a message whose result somebody wants.
async fn call(gate: &Gate, caller: Caller, number: u128, message: &str, params: Value) {
    call_to(gate, caller, (number, URL), message, params).await;
}

async fn call_to(
    gate: &Gate,
    caller: Caller,
    (number, url): (u128, &str),
    message: &str,
    params: Value,
) {
    let command = gate.command(caller, vec![request(message, params)]).unwrap();
    let job = JobId { uuid: Id::new(Uuid::from_u128(number)), is_chosen: false };
    let terms = Terms { webhook: Some(url.to_owned()), ..Terms::of(60) };
    gate.jobs.submit_on(command, job, terms).await.unwrap();
}

fn due(cloud: &Cloud) -> Vec<WebhookCall> {
    let snapshot = cloud.snapshot();
    let rows = snapshot.list(Kind::WebhookCall);
    rows.map(|row| WebhookCall::of(&row).unwrap().clone()).collect()
}

/// The job of which somebody is told, and whether it succeeded.
fn result(post: &Post) -> (u128, bool) {
    match post.about {
        About::Result { job, is_success } => (job.uuid().as_u128(), is_success),
        About::Changes { .. } => panic!("{post:?}"),
    }
}

/// What receivers have got.
#[derive(Default)]
struct Receivers {
    got: Mutex<Vec<Post>>,
    /// How many are to be refused first.
    refuses: Mutex<usize>,
    /// The receiver at this address takes nothing until told to.
    slow: Option<&'static str>,
    opened: Mutex<bool>,
    opens: Condvar,
    arrived: tokio::sync::Notify,
}

impl Receiver for Receivers {
    fn take(&self, post: &Post) -> Result<(), NotSent> {
        if self.slow == Some(post.url.as_str()) {
            let opened = self.opened.lock().unwrap();
            drop(self.opens.wait_while(opened, |opened| !*opened).unwrap());
        }
        self.got.lock().unwrap().push(post.clone());
        self.arrived.notify_one();
        let mut refuses = self.refuses.lock().unwrap();
        if *refuses > 0 {
            *refuses -= 1;
            return Err(NotSent { why: "busy".to_owned(), is_tried_again: true });
        }
        Ok(())
    }
}

impl Receivers {
    fn got(&self) -> Vec<Post> {
        self.got.lock().unwrap().clone()
    }

    fn open(&self) {
        *self.opened.lock().unwrap() = true;
        self.opens.notify_all();
    }
}

/// Sends until what is due is so.
async fn send_until(
    cloud: &Cloud,
    gate: &Arc<Gate>,
    receivers: &Arc<Receivers>,
    is: impl Fn(&[WebhookCall]) -> bool,
) {
    let mut commits = cloud.store.watch();
    let seen = async {
        while !is(&due(cloud)) {
            let event: Option<Event<Record>> = commits.next().await;
            event.expect("the store is there");
        }
    };
    while_sending(gate, receivers, seen).await;
}

#[tokio::test]
async fn the_result_is_sent_once_and_then_it_is_not_due_any_more() {
    let cloud = Cloud::empty();
    let ((gate, _board), receivers) = (gate(&cloud), Arc::<Receivers>::default());
    call(&gate, ADMINISTRATOR, 1, "CreateZone", json!({"name": "z"})).await;
    assert_eq!(due(&cloud).len(), 1, "written with the job");
    send_until(&cloud, &gate, &receivers, <[_]>::is_empty).await;
    let [post] = &receivers.got()[..] else { panic!("{:?}", receivers.got()) };
    assert_eq!((post.url.as_str(), result(post)), (URL, (1, true)));
    let body: Value = serde_json::from_str(&post.body).unwrap();
    assert_eq!(body["inventory"]["name"], "z");
}

#[tokio::test]
async fn a_refusal_is_sent_too_whenever_the_call_was_refused() {
    let cloud = Cloud::empty();
    let ((gate, _board), receivers) = (gate(&cloud), Arc::<Receivers>::default());
    let nobody = json!({"name": "c", "zoneUuid": Uuid::from_u128(9), "hypervisorType": "KVM"});
    call(&gate, ADMINISTRATOR, 1, "CreateCluster", nobody).await;
    let error = Error::field("name", "is wrong");
    let webhook = Some(URL.to_owned());
    let refused = RefusedCall { error, message: Some(&CreateZone::DEF), webhook };
    let job = JobId { uuid: Id::new(Uuid::from_u128(2)), is_chosen: false };
    gate.jobs.refuse(&ADMINISTRATOR, job, refused).await.unwrap();
    // Another run of the server: what was refused was in memory only.
    let (gate, _board) = self::gate(&cloud);
    send_until(&cloud, &gate, &receivers, <[_]>::is_empty).await;
    let mut told: Vec<_> = receivers
        .got()
        .iter()
        .map(|post| {
            let body: Value = serde_json::from_str(&post.body).unwrap();
            let (job, is_success) = result(post);
            (job, is_success, body["error"]["code"].clone())
        })
        .collect();
    told.sort_by_key(|told| told.0);
    assert_eq!(told, [(1, false, json!("SYS.1003")), (2, false, json!("SYS.1007"))]);
}

#[tokio::test]
async fn a_call_that_waits_for_a_host_is_told_once_the_host_has_confirmed_also_after_a_restart() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let l3 = cloud.l3(&fixture, "red");
    let host: Id<Host> = fixture.hosts[0].parse().unwrap();
    let ((first, _board), receivers) = (gate(&cloud), Arc::<Receivers>::default());
    let vm = json!({"name": "vm", "l3NetworkUuids": [l3], "hostUuid": host});
    call(&first, ADMINISTRATOR, 1, "CreateVmInstance", vm).await;
    call(&first, ADMINISTRATOR, 2, "CreateZone", json!({"name": "z"})).await;
    send_until(&cloud, &first, &receivers, |due| due.len() == 1).await;
    assert_eq!(receivers.got().len(), 1, "the one that waits for nothing");
    let (second, board) = gate(&cloud);
    let confirmed = async {
        board.send_modify(|board| {
            confirm(board, host);
            board.revision = u64::MAX;
        });
        receivers.arrived.notified().await;
        receivers.arrived.notified().await;
    };
    while_sending(&second, &receivers, confirmed).await;
    let last = receivers.got().pop().unwrap();
    assert_eq!(result(&last), (1, true), "{last:?}");
}

#[tokio::test]
async fn a_receiver_that_is_busy_is_asked_again() {
    let cloud = Cloud::empty();
    let (gate, _board) = gate(&cloud);
    let receivers = Arc::new(Receivers { refuses: Mutex::new(1), ..Receivers::default() });
    call(&gate, ADMINISTRATOR, 1, "CreateZone", json!({"name": "z"})).await;
    send_until(&cloud, &gate, &receivers, <[_]>::is_empty).await;
    assert_eq!(receivers.got().len(), 2);
}

#[tokio::test]
async fn what_nobody_takes_stays_for_a_while_with_the_reason() {
    let cloud = Cloud::empty();
    let (gate, _board) = gate(&cloud);
    let receivers = Arc::new(Receivers { refuses: Mutex::new(9), ..Receivers::default() });
    call(&gate, ADMINISTRATOR, 1, "CreateZone", json!({"name": "z"})).await;
    let tried = WebhookCall { tries: webhook::TRIES - 1, ..due(&cloud).pop().unwrap() };
    change(&cloud, tried);
    let is_failed = |due: &[WebhookCall]| due[0].state == WebhookCallState::Failed;
    send_until(&cloud, &gate, &receivers, is_failed).await;
    let failed = due(&cloud).pop().unwrap();
    assert_eq!((failed.tries, failed.error.as_deref()), (webhook::TRIES, Some("busy")));
    assert_eq!(receivers.got().len(), 1, "it is not tried for ever");
    let at = |seconds| Timestamp(1_000).plus_seconds(seconds);
    assert_eq!(webhook::sweep(&cloud.store, at(10_800)).await, Ok(0));
    assert_eq!(webhook::sweep(&cloud.store, at(10_801)).await, Ok(1));
    assert_eq!(due(&cloud), []);
}

fn change(cloud: &Cloud, call: WebhookCall) {
    let put = move |tx: &mut store::Tx<Record>| {
        let meta = tx.get(Kind::WebhookCall, call.uuid.uuid()).unwrap().meta;
        tx.put(Record::new(call.clone(), meta)).unwrap();
        Ok(())
    };
    cloud.store.transact(put).unwrap();
}

#[tokio::test]
async fn a_normal_accounts_results_go_where_the_setting_says_and_an_administrators_anywhere() {
    let (cloud, fixture) = Cloud::with_two_hosts();
    let ((gate, _board), receivers) = (gate(&cloud), Arc::<Receivers>::default());
    let tenant = tenant(&cloud, 7);
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    cloud.give(Kind::L2Network, &l2, tenant.account().unwrap());
    let allow = json!({"category": "rest", "name": "webHook.networks", "value": "10.0.0.0/8"});
    cloud.call("UpdateGlobalConfig", allow).unwrap();
    let l3 = json!({"name": "l3", "l2NetworkUuid": l2});
    call(&gate, tenant, 1, "CreateL3Network", l3.clone()).await;
    call(&gate, ADMINISTRATOR, 2, "CreateL3Network", l3).await;
    send_until(&cloud, &gate, &receivers, <[_]>::is_empty).await;
    let mut reached: Vec<_> =
        receivers.got().into_iter().map(|post| (result(&post).0, post.reach)).collect();
    reached.sort_by_key(|(job, _)| *job);
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(reached, [(1, Reach::Public(networks.clone())), (2, Reach::Everywhere)]);
    assert_eq!(gate.reach(&tenant), Reach::Public(networks));
}

/// However many results of one account a slow receiver holds, another account's are sent.
#[tokio::test]
async fn whoever_listens_slowly_keeps_nobody_else_waiting() {
    const SLOW: &str = "http://192.0.2.8/";
    let (cloud, fixture) = Cloud::with_two_hosts();
    let (gate, _board) = gate(&cloud);
    let receivers = Arc::new(Receivers { slow: Some(SLOW), ..Receivers::default() });
    for number in 0..webhook::AT_ONCE_MAX as u128 + 9 {
        let zone = json!({"name": "z"});
        call_to(&gate, ADMINISTRATOR, (number, SLOW), "CreateZone", zone).await;
    }
    let tenant = tenant(&cloud, 7);
    let l2 = cloud.made("CreateL2VxlanNetwork", json!({"name": "l2", "poolUuid": fixture.pool}));
    cloud.give(Kind::L2Network, &l2, tenant.account().unwrap());
    let l3 = json!({"name": "l3", "l2NetworkUuid": l2});
    call(&gate, tenant, 100, "CreateL3Network", l3).await;
    let arrived = async {
        receivers.arrived.notified().await;
        let first = receivers.got();
        receivers.open();
        first
    };
    let first = while_sending(&gate, &receivers, arrived).await;
    assert_eq!(first.iter().map(|post| post.url.as_str()).collect::<Vec<_>>(), [URL]);
}

#[tokio::test]
async fn an_account_with_very_many_results_due_is_refused_more() {
    let cloud = Cloud::empty();
    let (gate, _board) = gate(&cloud);
    let (full, other) = (tenant(&cloud, 7), tenant(&cloud, 8));
    let meta = Meta { owner: full.account(), ..Meta::default() };
    let put = move |tx: &mut store::Tx<Record>| {
        for number in 0..webhook::OPEN_MAX {
            let uuid = Id::new(Uuid::from_u128(number.into()));
            tx.put(Record::new(failed(uuid), meta)).unwrap();
        }
        Ok(())
    };
    cloud.store.transact(put).unwrap();
    let refused = gate.check_webhook_room(&full).unwrap_err();
    assert!(refused.code == Code::Overloaded && refused.hint.is_some(), "{refused}");
    gate.check_webhook_room(&other).unwrap();
    // So they do not keep an account from being deleted either.
    cloud.call("DeleteAccount", json!({"uuid": full.account().unwrap()})).unwrap();
    let key = Key::Uuid(full.account().unwrap().uuid());
    assert_eq!(cloud.snapshot().count(Kind::WebhookCall, OWNER, &key), 0);
}

fn failed(uuid: Id<WebhookCall>) -> WebhookCall {
    WebhookCall {
        uuid,
        job_uuid: Id::<Job>::new(Uuid::nil()).uuid(),
        url: URL.to_owned(),
        state: WebhookCallState::Failed,
        tries: webhook::TRIES,
        error: Some("busy".to_owned()),
        refusal: None,
    }
}

#[test]
fn a_webhook_is_made_changed_and_deleted_and_its_address_is_one() {
    let cloud = Cloud::empty();
    let fields = json!({"name": "w", "url": "http://192.0.2.7/x", "type": "CanonicalEvent"});
    let id = cloud.made("CreateWebhook", fields.clone());
    let change = json!({"uuid": id, "url": "https://example.org:8443/y", "opaque": "o"});
    cloud.call("UpdateWebhook", change).unwrap();
    let row = cloud.get(id.parse::<Id<model::resource::webhook::Webhook>>().unwrap()).unwrap();
    assert_eq!(
        (row.url.as_str(), row.opaque.as_deref()),
        ("https://example.org:8443/y", Some("o"))
    );
    for url in ["", "x", "ftp://a/", "http://", "http:///x", "http://a b/", "http://a/\u{200b}"] {
        let mut fields = fields.clone();
        fields["url"] = url.into();
        let (code, field, text) = cloud.refusal("CreateWebhook", fields);
        assert_eq!((code, field.as_deref()), (Code::InvalidArgument, Some("url")), "{url} {text}");
    }
    cloud.call("DeleteWebhook", json!({"uuid": id})).unwrap();
    assert_eq!(cloud.snapshot().total(Kind::Webhook), 0);
}
