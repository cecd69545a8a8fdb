//! What a write costs the thread that does all of them: many calls wait at once, as they do on a
//! busy server, and the store is in memory, so that no disk is in the figure.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use control::{Jobs, Operations, Request, jobs};
use model::{Id, Kind, Timestamp, status::Board};
use serde_json::json;
use store::Read;
use tokio::{runtime::Runtime, sync::watch, task::JoinSet};
use uuid::Uuid;

use crate::{
    Failure,
    cloud::{ADMINISTRATOR, Cloud, made, request},
    stats,
};

/// Calls that wait at once, and messages of one transaction when they are undone.
const CALLS: u32 = 200;
/// How long a job may take: more than any.
const TIMEOUT_SECONDS: i64 = 1_800;

/// The way of calls into a cloud: as jobs, as every door runs them.
pub(crate) struct Writes {
    jobs: Arc<Jobs>,
    operations: Operations,
    runtime: Runtime,
    /// Nobody reports, but the jobs look at it.
    _board: watch::Sender<Board>,
}

impl Writes {
    /// Into this cloud.
    pub(crate) fn new(cloud: &Cloud) -> Result<Self, Failure> {
        let (board, reports) = watch::channel(cloud.board.clone());
        let jobs = Arc::new(Jobs::new(cloud.store.clone(), reports, now));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { jobs, operations: Operations::default(), runtime, _board: board })
    }

    /// µs of each call: of `CreateVmNic`, `DestroyVmInstance` and `CreateL2VxlanNetwork`. Leaves
    /// the cloud as large as it was.
    pub(crate) fn sample(&self, cloud: &Cloud) -> Result<Vec<Vec<f64>>, Failure> {
        let ids: Vec<(u32, Uuid)> = (0..CALLS).map(|n| (n, Uuid::new_v4())).collect();
        let networks = cloud.shape.networks();
        let of_each = |make: &dyn Fn(u32, Uuid) -> Request| -> Vec<Request> {
            ids.iter().map(|(n, id)| make(*n, *id)).collect()
        };
        let size = || [Kind::VmNic, Kind::L2Network].map(|kind| cloud.store.snapshot().total(kind));
        let before = size();

        let nics = self.time(of_each(&|n, id| {
            let l3 = cloud.l3s[usize::try_from(n % networks).unwrap_or(0)].simple().to_string();
            made("CreateVmNic", id, json!({"l3NetworkUuid": l3}))
        }))?;
        let grown = size()[0] - before[0];
        cloud.run(of_each(&|_, id| gone("DeleteVmNic", id)))?;

        let port = cloud.shape.ports_per_network;
        cloud.run(of_each(&|n, id| cloud.instance(id, n % networks, port)))?;
        let instances = self.time(of_each(&|_, id| gone("DestroyVmInstance", id)))?;
        cloud.release()?;

        let pool = cloud.pool.simple().to_string();
        let l2s = self.time(of_each(&|_, id| {
            made("CreateL2VxlanNetwork", id, json!({"name": "l2", "poolUuid": pool}))
        }))?;
        let more = size()[1] - before[1];
        cloud.run(of_each(&|_, id| gone("DeleteL2Network", id)))?;
        cloud.release()?;
        let calls = u64::from(CALLS);
        match (grown, more, size() == before) {
            (nics, l2s, true) if nics == calls && l2s == calls => {}
            odd => return Err(format!("not every call was run: {odd:?}").into()),
        }
        Ok(vec![vec![nics], vec![instances], vec![l2s]])
    }

    /// µs of each call when all of them wait at once.
    fn time(&self, requests: Vec<Request>) -> Result<f64, Failure> {
        let calls = stats::count(requests.len());
        let commands = requests
            .into_iter()
            .map(|request| self.operations.command(ADMINISTRATOR, vec![request]))
            .collect::<Result<Vec<_>, _>>()?;
        let start = Instant::now();
        self.runtime.block_on(async {
            let mut running = JoinSet::new();
            for command in commands {
                let jobs = Arc::clone(&self.jobs);
                let job = jobs::JobId { uuid: Id::new(Uuid::new_v4()), is_chosen: false };
                running.spawn(async move { jobs.submit(command, job, TIMEOUT_SECONDS).await });
            }
            while let Some(ended) = running.join_next().await {
                ended??;
            }
            Ok::<(), Failure>(())
        })?;
        Ok(stats::ms(start.elapsed()) * 1000.0 / calls)
    }
}

/// A message that deletes what has this uuid.
pub(crate) fn gone(message: &str, uuid: Uuid) -> Request {
    request(message, json!({"uuid": uuid.simple().to_string()}))
}

/// The time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(0))
}
