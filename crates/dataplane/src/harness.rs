//! Test doors: run the core in the kernel on a frame of a test's choosing, with metadata that
//! `BPF_PROG_TEST_RUN` could not set, and look at the conntrack table. Not part of the product.

use crate::error::{Error, chain};
use crate::object;
use crate::pinned::Slots;
use crate::plane::{DataPlane, Options};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, Pod};
use packet::{
    Bucket, Budget, COUNTER_PLACES, Config, Entry, FloodKey, Flooded, LEARNED_PER_NET, Learned,
    Meta, Net, Noted, Plain, Port, PortKey, Rewrite, Side, VerdictRecord,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

/// Runs [`packet::from_port`] with ports of its own making.
const VARIED: &str = "test_from_port_varied";

/// Runs [`packet::rewrite_frame`].
const REWRITE: &str = "test_rewrite";

/// Puts a frame into GRE.
const INTO_GRE: &str = "test_into_gre";

/// Runs [`packet::from_gre`], and takes what it admits out of GRE.
const OUT_OF_GRE: &str = "test_out_of_gre";

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

/// A data plane with the test programs.
pub struct TestHarness {
    /// The data plane that the test programs share their maps with.
    pub plane: DataPlane,
    object: Ebpf,
    /// The test programs that are loaded.
    loaded: BTreeSet<&'static str>,
    meta: Slots<Meta>,
    verdict: Slots<VerdictRecord>,
}

/// Makes the maps of an object of an earlier version, with this many entries in some, and pins them
/// in a directory. It is told of this kernel what its loader told it.
///
/// # Errors
/// [`Error::Load`].
pub fn open_earlier(
    object: &[u8],
    maps: &Path,
    sizes: &[(&'static str, u32)],
) -> Result<Ebpf, Error> {
    object::open_sized(object, maps, sizes)
}

impl TestHarness {
    /// Opens a data plane. A test program is loaded when it first runs: the verifier takes its time.
    ///
    /// # Errors
    /// As [`DataPlane::open`].
    pub fn open(options: &Options) -> Result<TestHarness, Error> {
        let (plane, mut object) = DataPlane::open_with_object(options)?;
        let meta = Slots::take(&mut object, "test_meta")?;
        let verdict = Slots::take(&mut object, "test_verdict")?;
        Ok(TestHarness { plane, object, loaded: BTreeSet::new(), meta, verdict })
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
        self.run_program(program_name(entry), meta, frame, repeat)
    }

    /// As [`TestHarness::run`] from a port, with other L4 ports at each run: drawn by lot, the
    /// bits that `meta.mark` has. For IPv4 without options.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses to run it.
    pub fn run_varied(&mut self, meta: &Meta, frame: &[u8], repeat: u32) -> Result<Outcome, Error> {
        self.run_program(VARIED, meta, frame, repeat)
    }

    /// Gives one end of the packet in a frame another address and port; the frame then.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses to run it.
    pub fn rewrite(&mut self, frame: &[u8], rewrite: &Rewrite) -> Result<Vec<u8>, Error> {
        let meta = Meta {
            length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            vtep: rewrite.addr,
            mark: u32::from(rewrite.port),
            tunnelled: u16::from(rewrite.side == Side::Destination),
            ..Meta::default()
        };
        Ok(self.run_program(REWRITE, &meta, frame, 1)?.frame)
    }

    /// Puts a frame into GRE, between the VTEPs and with the key that the metadata has.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses to run it.
    pub fn into_gre(&mut self, meta: &Meta, frame: &[u8]) -> Result<Outcome, Error> {
        self.run_program(INTO_GRE, meta, frame, 1)
    }

    /// Takes a frame out of GRE if the maps admit it. The verdict is to send it where it comes from, or to
    /// let it go on.
    ///
    /// # Errors
    /// [`Error::Load`] if the kernel refuses to run it.
    pub fn out_of_gre(&mut self, meta: &Meta, frame: &[u8]) -> Result<Outcome, Error> {
        self.run_program(OUT_OF_GRE, meta, frame, 1)
    }

    fn run_program(
        &mut self,
        name: &'static str,
        meta: &Meta,
        frame: &[u8],
        repeat: u32,
    ) -> Result<Outcome, Error> {
        self.meta.set(0, meta)?;
        self.verdict.set(0, &VerdictRecord::default())?;
        let mut out = vec![0; frame.len() + 256];
        let failed = |cause: &dyn std::error::Error| Error::Load {
            program: name.to_owned(),
            cause: chain(cause),
        };
        if self.loaded.insert(name) {
            object::load(&mut self.object, name)?;
        }
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

    /// Overwrites the connection table: empties it but for these buckets.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_conntrack(&mut self, buckets: &[(u32, Bucket)]) -> Result<(), Error> {
        let table = &mut self.plane.view.maps.conntrack;
        for number in 0..table.limit() {
            table.set(number, &Bucket::default())?;
        }
        buckets.iter().try_for_each(|(number, bucket)| table.set(*number, bucket))
    }

    /// The buckets of the connection table that are not empty.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn conntrack_table(&self) -> Result<Vec<(u32, Bucket)>, Error> {
        let table = &self.plane.view.maps.conntrack;
        let buckets = (0..table.limit()).map(|number| Ok((number, table.get(number)?)));
        buckets.filter(|found| !matches!(found, Ok((_, b)) if *b == Bucket::default())).collect()
    }

    /// Overwrites the table of fragments.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_fragments(&mut self, noted: &[Noted]) -> Result<(), Error> {
        let table = &mut self.plane.view.maps.fragments;
        (0..).zip(noted).try_for_each(|(number, noted)| table.set(number, noted))
    }

    /// The table of fragments.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn fragments(&self) -> Result<Vec<Noted>, Error> {
        let table = &self.plane.view.maps.fragments;
        (0..table.limit()).map(|number| table.get(number)).collect()
    }

    /// Overwrites a port in the map, with its place and zone, which a reconcile gives otherwise.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_port(&mut self, key: &PortKey, port: &Port) -> Result<(), Error> {
        self.plane.view.maps.ports.insert(key, port)
    }

    /// Overwrites what a port has handed off lately, by its place.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_budget(&mut self, place: u32, budget: &Budget) -> Result<(), Error> {
        self.plane.view.maps.budgets.set(place, budget)
    }

    /// Overwrites what a port has asked lately, by its place.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_requests(&mut self, place: u32, budget: &Budget) -> Result<(), Error> {
        self.plane.view.maps.requests.set(place, budget)
    }

    /// Overwrites the mark of the agent's own frames.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_answer_mark(&mut self, mark: u32) -> Result<(), Error> {
        self.plane.view.maps.answers.set(0, &mark)
    }

    /// Overwrites what has been flooded lately, by a slot of `floods`.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_flood_budget(&mut self, slot: u32, budget: &Budget) -> Result<(), Error> {
        self.plane.view.maps.floods.set(slot, budget)
    }

    /// Overwrites a network in the map, with its area of `learned`, which a reconcile gives
    /// otherwise; and the area, of which these slots are in use.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_learning(
        &mut self,
        number: u32,
        net: &Net,
        learned: &BTreeMap<u32, Learned>,
    ) -> Result<(), Error> {
        let maps = &mut self.plane.view.maps;
        maps.nets.insert(&number, net)?;
        let of_area = u32::from(net.area.saturating_sub(1)) * LEARNED_PER_NET;
        (of_area..of_area + LEARNED_PER_NET).try_for_each(|slot| {
            maps.learned.set(slot, &learned.get(&slot).copied().unwrap_or_default())
        })
    }

    /// Overwrites the word of a move, by its place.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn set_arrived(&mut self, place: u32, word: u64) -> Result<(), Error> {
        self.plane.view.maps.arrived.set(place, &word)
    }

    /// The word of a move, by its place.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn arrived(&self, place: u32) -> Result<u64, Error> {
        self.plane.view.maps.arrived.get(place)
    }

    /// What all ports have handed off, asked and had flooded lately, and the words of moves: how much
    /// there is, and a hash of it.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn spent(&self) -> Result<[(usize, u64); 4], Error> {
        let maps = &self.plane.view.maps;
        let budgets = [&maps.budgets, &maps.requests, &maps.floods];
        let [budgets, requests, floods] = budgets.map(content);
        Ok([budgets?, requests?, floods?, content(&maps.arrived)?])
    }

    /// Who gets what is flooded.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn flooded(&self) -> Result<BTreeMap<FloodKey, Flooded>, Error> {
        self.plane.view.maps.flood.read()
    }

    /// A port as it is in the map.
    ///
    /// # Errors
    /// [`Error::Map`].
    pub fn port(&self, key: &PortKey) -> Result<Option<Port>, Error> {
        Ok(self.plane.view.maps.ports.read()?.get(key).copied())
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

/// As many ports, networks and moves as a test has, and more.
const FEW: u32 = 64;

/// How many entries are not as they were made, and a hash of these.
fn content<V: Plain + Default + PartialEq>(slots: &Slots<V>) -> Result<(usize, u64), Error>
where
    V::Bytes: Pod + AsRef<[u8]>,
{
    let (mut count, mut hasher) = (0, DefaultHasher::new());
    // The first ones of ports, moves and networks: tests have few.
    let first = (0..FEW).chain(COUNTER_PLACES..COUNTER_PLACES + FEW);
    for number in first.filter(|number| *number < slots.limit()) {
        let value = slots.get(number)?;
        if value != V::default() {
            count += 1;
            (number, value.to_bytes().as_ref()).hash(&mut hasher);
        }
    }
    Ok((count, hasher.finish()))
}

fn program_name(entry: Entry) -> &'static str {
    match entry {
        Entry::FromPort => "test_from_port",
        Entry::FromTunnel => "test_from_tunnel",
        Entry::ToPort => "test_to_port",
        Entry::FromUplink => "test_from_uplink",
        Entry::ToUplink => "test_to_uplink",
        Entry::ToTunnel => INTO_GRE,
    }
}
