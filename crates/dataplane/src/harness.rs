//! Test doors: run the core in the kernel on a frame of a test's choosing, with metadata that
//! `BPF_PROG_TEST_RUN` could not set, and look at the conntrack table. Not part of the product.

use crate::error::{Error, chain};
use crate::object;
use crate::pinned::Slots;
use crate::plane::{DataPlane, Options};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use packet::{Config, CtKey, CtSlot, Entry, Meta, VerdictRecord};
use std::time::Duration;

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict.
    pub verdict: VerdictRecord,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time per run.
    pub duration: Duration,
}

/// A data plane with the test programs loaded.
pub struct TestHarness {
    /// The data plane that the test programs share their maps with.
    pub plane: DataPlane,
    object: Ebpf,
    meta: Slots<Meta>,
    verdict: Slots<VerdictRecord>,
}

impl TestHarness {
    /// Opens a data plane and loads the test programs.
    ///
    /// # Errors
    /// As [`DataPlane::open`].
    pub fn open(options: &Options) -> Result<TestHarness, Error> {
        let (plane, mut object) = DataPlane::open_with_object(options)?;
        for entry in [Entry::FromPort, Entry::FromTunnel, Entry::ToPort] {
            object::load(&mut object, program_name(entry))?;
        }
        let meta = Slots::take(&mut object, "test_meta")?;
        let verdict = Slots::take(&mut object, "test_verdict")?;
        Ok(TestHarness { plane, object, meta, verdict })
    }

    /// Runs an entry `repeat` times on the frame.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses to run it.
    pub fn run(
        &mut self,
        entry: Entry,
        meta: &Meta,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Outcome, Error> {
        self.meta.set(0, meta)?;
        self.verdict.set(0, &VerdictRecord::default())?;
        let mut out = vec![0; frame.len() + 256];
        let name = program_name(entry);
        let failed = |cause: &dyn std::error::Error| Error::Load {
            program: name.to_owned(),
            cause: chain(cause),
        };
        let program = self.object.program(name).ok_or(Error::Incomplete(name))?;
        let program: &SchedClassifier = program.try_into().map_err(|_| Error::Incomplete(name))?;
        let result = program
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                repeat,
                ..TestRunOptions::default()
            })
            .map_err(|cause| failed(&cause))?;
        out.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
        Ok(Outcome { verdict: self.verdict.get(0)?, frame: out, duration: result.duration })
    }

    /// Overwrites the conntrack table: slots by number with their links, uses by port, the hand.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_conntrack(
        &mut self,
        slots: &[(u32, CtSlot)],
        used: &[(u32, i64)],
        hand: u32,
    ) -> Result<(), Error> {
        for key in self.plane.view.maps.ct.keys()? {
            self.plane.view.maps.ct.remove(&key)?;
        }
        for number in 0..self.plane.view.maps.ct_slots.limit() {
            self.plane.view.maps.ct_slots.set(number, &CtSlot::default())?;
        }
        for (number, slot) in slots {
            self.plane.view.maps.ct_slots.set(*number, slot)?;
            if slot.state != 0 {
                self.plane.view.maps.ct.insert(&slot.key, number)?;
            }
        }
        for port in self.plane.view.maps.ct_used.keys()? {
            self.plane.view.maps.ct_used.remove(&port)?;
        }
        for (port, count) in used {
            self.plane.view.maps.ct_used.insert(port, count)?;
        }
        self.plane.view.maps.ct_hand.set(0, &hand)
    }

    /// The conntrack table: slots that are not all zero, links, uses by port.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn conntrack_table(&self) -> Result<ConntrackTable, Error> {
        let mut slots = Vec::new();
        for number in 0..self.plane.view.maps.ct_slots.limit() {
            let slot = self.plane.view.maps.ct_slots.get(number)?;
            if slot != CtSlot::default() {
                slots.push((number, slot));
            }
        }
        let links = self.plane.view.maps.ct.read()?.into_iter().collect();
        let used = self.plane.view.maps.ct_used.read()?.into_iter().collect();
        Ok((slots, links, used))
    }

    /// Makes the counters of a port, as a reconcile does for a port that it adds.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn ensure_counters(&mut self, number: u32) -> Result<(), Error> {
        self.plane.view.maps.ct_used.remove(&number)?;
        crate::reconcile::prepare_port(&mut self.plane.view.maps, number)
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn config(&self) -> Result<Config, Error> {
        self.plane.view.maps.config()
    }

    /// Overwrites the configuration.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_config(&mut self, config: Config) -> Result<(), Error> {
        self.plane.view.maps.set_config(config)
    }
}

/// Slots, links and uses of the conntrack table.
pub type ConntrackTable = (Vec<(u32, CtSlot)>, Vec<(CtKey, u32)>, Vec<(u32, i64)>);

fn program_name(entry: Entry) -> &'static str {
    match entry {
        Entry::FromPort => "test_from_port",
        Entry::FromTunnel => "test_from_tunnel",
        Entry::ToPort => "test_to_port",
    }
}
