//! Job: what became of a message. Written in the transaction that did the work.

use std::borrow::Cow;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{evacuation::Evacuation, host::Host, messages};
use crate::{
    Code, Error, FieldDef, Id, Kind, Message, MessageDef, Plain, Record, Resource, Timestamp,
    declare::Method,
    shown::{Derived, View},
    status::{Board, Obstacle, Unsettled},
    words,
};

/// What became of a message. It is in the store once its work is; a *success* once every host in
/// `hosts` has acknowledged that revision too, and from then on: `done` remembers it. A message
/// that was refused changed nothing and has no job here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/jobs", derived, messages)]
pub struct Job {
    /// Its id, chosen by the caller with `X-Job-UUID` or by the server.
    pub uuid: Id<Job>,
    /// The message's name.
    pub message: String,
    /// The kind of the resource that the answer shows.
    pub subject_kind: Option<Kind>,
    /// The resource that the answer shows.
    pub subject_uuid: Option<Uuid>,
    /// Another one of its kind that the answer shows.
    #[serde(default)]
    pub subject_also: Option<Uuid>,
    /// Hosts whose acknowledgement makes it a success.
    #[field(hidden, on_delete = "keep")]
    pub hosts: Vec<Id<Host>>,
    /// The uuids by which these know what has changed.
    #[field(hidden)]
    #[serde(default)]
    pub objects: Vec<Uuid>,
    /// Every one of them has; what they report later is about something else.
    #[field(hidden)]
    #[serde(default)]
    pub done: bool,
    /// What was passed over, a sentence each.
    #[field(hidden)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
    /// Somebody ended its waiting: this is what it waited for then.
    #[field(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canceled: Option<String>,
    /// Why it is not in force and never will be.
    #[field(hidden)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Its uuid was the caller's choice, so knowing it proves nothing.
    #[field(hidden)]
    #[serde(default)]
    pub uuid_chosen: bool,
    /// When it was made.
    #[field(hidden)]
    pub create_date: Timestamp,
    /// When it stops waiting for hosts.
    pub deadline: Timestamp,
}

words! {
    /// What has become of a job.
    JobState {
        /// Its work is durable, and its hosts do not have it in force yet.
        Waiting = "Waiting",
        /// It is in force.
        Succeeded = "Succeeded",
        /// It is durable, and was not in force in time.
        Failed = "Failed",
        /// It is durable, and somebody ended the waiting for its hosts.
        Canceled = "Canceled",
    }
}

/// How long a deletion waits, in seconds, while none of the hosts that it waits for is connected:
/// as long as an agent takes to restart.
pub const LOST_SECONDS: i64 = 60;

impl Job {
    const MESSAGES: &'static [&'static MessageDef] = &[&CancelJob::DEF, &GetTaskProgress::DEF];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<JobState>("state", "What has become of it."),
            read: |record, view| of(record, |job| Plain::word(job.state(view).as_str())),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<u32>("progress", "How much of it is in force, in percent."),
            read: |record, view| of(record, |job| Plain::Integer(job.progress(view).into())),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Vec<String>>(
                "waitsFor",
                "What it waits for, or waited for when its waiting was ended.",
            ),
            read: |record, view| {
                let text = |text: String| Plain::Text(Cow::Owned(text));
                of(record, |job| Plain::List(job.waits(view).into_iter().map(text).collect()))
            },
            found_by: &[],
            only: &[],
        },
    ];

    /// Whether it is written down what has become of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.done || self.hosts.is_empty() || self.canceled.is_some() || self.failed.is_some()
    }

    /// The error of one that will never be in force.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let why = self.failed.as_ref()?;
        let text = format!("{} has ended early: {why}", self.message);
        Some(Error::new(Code::OperationFailed, text))
    }

    /// The evacuation that it waits for, if there is one that is not over.
    fn evacuation(&self, view: &dyn View) -> Option<Evacuation> {
        let of_host = self.subject_kind == Some(Kind::Host);
        let host = self.subject_uuid.filter(|_| of_host)?;
        let record = view.get(Kind::Evacuation, host)?;
        let evacuation = Evacuation::of(&record)?;
        evacuation.jobs.contains(&self.uuid.uuid()).then(|| evacuation.clone())
    }

    /// What an evacuation waits for that it waits for itself; `None` without one.
    #[must_use]
    pub fn evacuates(&self, view: &dyn View) -> Option<Vec<String>> {
        Some(self.evacuation(view)?.waits(view))
    }

    /// The error of one whose waiting was ended.
    #[must_use]
    pub fn cancellation(&self) -> Option<Error> {
        let waited = self.canceled.as_ref()?;
        let text = format!(
            "the waiting was ended; {} is durable, but was not in effect: {waited}",
            self.message
        );
        let hint = "it takes effect when the host is back; nothing needs to be repeated";
        Some(Error::new(Code::Canceled, text).hint(hint))
    }

    /// Until when it waits: a deletion does not wait long for hosts that are all lost.
    #[must_use]
    pub fn waits_until(&self, is_lost: bool) -> Timestamp {
        let takes_away = |def: &MessageDef| def.method == Method::Delete;
        match is_lost && messages().any(|def| def.name == self.message && takes_away(def)) {
            true => self.deadline.min(self.create_date.plus_seconds(LOST_SECONDS)),
            false => self.deadline,
        }
    }

    /// Why it still waits for a host, if it does. `since` is a revision that includes it; `None`
    /// for one of an earlier run of the server, of which it is not known what its hosts were told.
    #[must_use]
    pub fn waits_for(&self, host: Id<Host>, since: Option<u64>, board: &Board) -> Option<String> {
        let status = board.status(host);
        let how = match (status.refused.as_deref(), status.connected, status.trouble(host)) {
            (Some(reason), ..) | (None, true, Some(reason)) => {
                format!("has not acknowledged: {reason}")
            }
            (None, true, None) => "has not acknowledged yet".to_owned(),
            (None, false, _) => "is disconnected".to_owned(),
        };
        if since.is_none() && !status.confirmed {
            return Some(format!("host {host} {how}"));
        }
        // A host that has confirmed all that it holds has confirmed what an earlier run of the
        // server told it.
        let revision = since.unwrap_or_default();
        if self.objects.is_empty() {
            let open = status.pending.values().any(|pending| pending.since <= revision);
            let waits = board.revision < revision || open || !status.confirmed;
            return waits.then(|| format!("host {host} {how}"));
        }
        match board.obstacle(host, &self.objects, revision)? {
            Obstacle::Object(object, Unsettled::Failed(why)) => {
                Some(format!("host {host}: {} is not in effect: {why}", object.simple()))
            }
            Obstacle::Uncompiled
            | Obstacle::Forgotten
            | Obstacle::Object(_, Unsettled::Pending) => Some(format!("host {host} {how}")),
        }
    }

    /// What has become of it, as far as it is written down: a success that nobody has asked for is
    /// still waiting until then.
    #[must_use]
    pub fn state(&self, view: &dyn View) -> JobState {
        match (self.is_over(), &self.canceled) {
            _ if self.failed.is_some() => JobState::Failed,
            (_, Some(_)) => JobState::Canceled,
            (true, None) => JobState::Succeeded,
            (false, None) => {
                let is_lost = self.living(view).all(|host| !view.board().status(host).connected);
                match view.now() > self.waits_until(is_lost) {
                    true => JobState::Failed,
                    false => JobState::Waiting,
                }
            }
        }
    }

    /// How much of it is in force, in percent: of its objects on its hosts, those that are settled.
    #[must_use]
    pub fn progress(&self, view: &dyn View) -> u32 {
        if self.done || self.hosts.is_empty() {
            return 100;
        }
        let (mut settled, mut all) = (0_usize, 0_usize);
        for host in self.living(view) {
            let status = view.board().status(host);
            let own = self.objects.iter().filter(|_| status.confirmed);
            all += self.objects.len().max(1);
            settled += match self.objects.is_empty() {
                true => usize::from(status.confirmed && status.pending.is_empty()),
                false => own.filter(|object| status.is_settled(**object)).count(),
            };
        }
        let percent = (settled * 100).checked_div(all).unwrap_or(100);
        u32::try_from(percent).unwrap_or(100)
    }

    /// What it waits for, as far as the board tells.
    fn waits(&self, view: &dyn View) -> Vec<String> {
        if let Some(waited) = &self.canceled {
            return vec![waited.clone()];
        }
        if self.is_over() {
            return Vec::new();
        }
        let board = view.board();
        let since = |host| board.status(host).confirmed.then(|| view.revision());
        let hosts = self.living(view).filter_map(|host| self.waits_for(host, since(host), board));
        hosts.chain(self.evacuates(view).unwrap_or_default()).collect()
    }

    /// Its hosts that are still there: one that was deleted is not waited for.
    fn living(&self, view: &dyn View) -> impl Iterator<Item = Id<Host>> {
        self.hosts.iter().copied().filter(|host| view.get(Kind::Host, host.uuid()).is_some())
    }
}

fn of<'a>(record: &Record, read: impl FnOnce(&Job) -> Plain<'a>) -> Plain<'a> {
    Job::of(record).map_or(Plain::Null, read)
}

/// Ends the waiting of a job that waits for hosts. What it did is durable and stays: it takes effect
/// when they are back. A job that is over is refused.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/jobs/{uuid}/actions", action = "cancelJob")]
pub struct CancelJob {
    /// The job.
    pub uuid: Id<Job>,
}

/// Tells how much of a call is in force: of the objects that it changed, those that are settled on
/// their hosts. Nothing is told of a call that was refused, or is not the account's.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/task-progresses/{apiId}", answer = "now")]
pub struct GetTaskProgress {
    /// The call: the uuid of its job.
    pub api_id: Uuid,
    /// Accepted and ignored: there is one task for each call.
    pub all: Option<bool>,
}
