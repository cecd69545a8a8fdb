//! What the programs cost on a host, as the kernel counts it.

use std::{os::fd::OwnedFd, time::Duration};

use aya::{
    programs::{ProgramInfo, loaded_programs},
    sys::{Stats, enable_stats},
};
use netloom_tests::machine::{device, program};

use crate::site::{EVIL, Site};

/// The program that sees what ports send.
pub(crate) struct Cost {
    id: u32,
    // The kernel counts as long as it is there.
    _counts: OwnedFd,
}

/// Its runs so far, and how long they took.
#[derive(Clone, Copy)]
pub(crate) struct SoFar {
    runs: u64,
    time: Duration,
}

impl Cost {
    pub(crate) fn of(site: &Site) -> Self {
        let end = device(&site.lab.namespace("h1"), &site.lab.host_end(EVIL));
        let id = program(&site.lab.data("h1"), end.index);
        Self { id, _counts: enable_stats(Stats::RunTime).unwrap() }
    }

    pub(crate) fn so_far(&self) -> SoFar {
        let is_it = |info: &ProgramInfo| info.id() == self.id;
        let info = loaded_programs().map(Result::unwrap).find(is_it).unwrap();
        SoFar { runs: info.run_count(), time: info.run_time() }
    }

    /// What each run has cost since.
    pub(crate) fn each_since(&self, before: SoFar) -> Duration {
        let now = self.so_far();
        let runs = u32::try_from(now.runs - before.runs).unwrap();
        (now.time - before.time) / runs
    }
}
