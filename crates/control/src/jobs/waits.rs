//! Why a job is not a success yet: what a host has not confirmed, in words for its caller.

use model::{
    Id,
    resource::{host::Host, job::Job},
    status::{Board, Obstacle, Unsettled},
};

use super::Since;

/// Why a job still waits for a host, if it does.
pub(super) fn waits_for(host: Id<Host>, job: &Job, since: Since, board: &Board) -> Option<String> {
    let status = board.status(host);
    let how = match (status.refused.as_deref(), status.connected, status.trouble(host)) {
        (Some(reason), ..) | (None, true, Some(reason)) => {
            format!("has not acknowledged: {reason}")
        }
        (None, true, None) => "has not acknowledged yet".to_owned(),
        (None, false, _) => "is disconnected".to_owned(),
    };
    let revision = match since {
        Since::EarlierRun if !status.confirmed => return Some(format!("host {host} {how}")),
        // The host has confirmed all that it holds, which includes what an earlier run of the
        // server told it.
        Since::EarlierRun => 0,
        Since::Revision(revision) => revision.unwrap_or_default(),
    };
    if job.objects.is_empty() {
        let open = status.pending.values().any(|pending| pending.since <= revision);
        let waits = board.revision < revision || open || !status.confirmed;
        return waits.then(|| format!("host {host} {how}"));
    }
    match board.obstacle(host, &job.objects, revision)? {
        Obstacle::Object(object, Unsettled::Failed(why)) => {
            Some(format!("host {host}: {} is not in effect: {why}", object.simple()))
        }
        Obstacle::Uncompiled | Obstacle::Forgotten | Obstacle::Object(_, Unsettled::Pending) => {
            Some(format!("host {host} {how}"))
        }
    }
}
