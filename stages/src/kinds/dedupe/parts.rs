//! Documents that repeat earlier ones, found in parts.
//!
//! Drops what the whole corpus at once would drop, for the same documents and in the same order; only which files
//! of documents there are is another matter. A part is a few files. What is compared of it is made once (`sign`);
//! what all parts have in common is found bucket by bucket (`same`, `propose`), and what may be nearly the same is
//! measured part by part (`grams`, `measure`). From all that follows what becomes of each document (`judge`), and
//! from that and its files what is kept of a part (`filter`).
//!
//! A part is named by what is in its files, and whatever is found is known by what it says of parts so named: so
//! what was found stays found when other files come and go, wherever they stand. Finding is done again for the
//! buckets that a new file has something in, measuring and filtering only where something else was found.
//!
//! Which documents an evaluation set holds is known once a part is signed; they have neither keys nor bands. So
//! nothing that compares parts has to know of them.

use std::collections::BTreeSet;

use tinylm_pipeline::{
    Kind, Stage, StageError,
    parts::{Collection, Conductor, Digest, Part, Whole},
    settings::plain,
};

use super::{
    counts::{NONE_KEPT, STATS},
    minhash::rows,
    opened::nothing_to_avoid,
    report,
    settings::{DedupeSettings, Method},
};
use crate::shared::{
    documents::{Documents, holds_documents},
    json::json_text,
    partition::{self, FILES, File, Places, digest_of_all},
};

mod filter;
mod given;
mod grams;
mod judge;
mod measure;
mod names;
mod propose;
mod same;
mod sign;
mod sliced;

use filter::{Filter, FilterWatch, JUDGED};
use given::{Buckets, PROPOSED, SAME, SIGNED, unnamed};
use grams::{Grams, GramsSettings, GramsWatch};
use judge::{Judge, JudgeSettings, JudgeWatch, KEPT, MEASURED, VERDICT_LEN, VERDICTS};
use measure::{GRAMS, Measure, MeasureSettings, MeasureWatch};
use propose::{PAIRS, Propose, ProposeWatch, WANTED};
use same::{REPEATS, Same, SameWatch};
use sign::{BandSettings, EVALUATION, Index, N_BUCKETS, Sign, SignSettings, SignWatch};
use sliced::Sliced;

pub(super) const KINDS: &[Kind] = &[
    Kind::of::<Sign>(),
    Kind::of::<Same>(),
    Kind::of::<Propose>(),
    Kind::of::<Grams>(),
    Kind::of::<Measure>(),
    Kind::of::<Judge>(),
    Kind::of::<Filter>(),
];

pub(super) fn conduct(
    settings: &DedupeSettings,
    conductor: &dyn Conductor,
) -> Result<Collection, StageError> {
    let corpus = Corpus::of(settings, conductor)?;
    let signed = corpus.sign()?;
    let same = match settings.method {
        Method::Contamination => Vec::new(),
        Method::Exact | Method::Minhash => corpus.same(&signed)?,
    };
    let same = Found {
        of_parts: corpus.digests::<3>(&same, REPEATS)?,
        artifacts: same,
    };
    let measured = match settings.method {
        Method::Exact | Method::Contamination => Vec::new(),
        Method::Minhash => {
            let proposed = corpus.propose(&signed, &same)?;
            corpus.measure(&proposed)?
        }
    };
    let judged = corpus.judge(&signed, &same, &measured)?;
    let filtered = corpus.filter(&signed, &judged)?;
    corpus.collect(&filtered)
}

/// What is deduplicated, as parts.
struct Corpus<'a> {
    settings: &'a DedupeSettings,
    conductor: &'a dyn Conductor,
    parts: Vec<Vec<File>>,
    /// What is in each part, wherever its files stand.
    names: Vec<Digest>,
}

/// A part with its signatures.
struct Signed {
    artifact: Digest,
    index: Index,
}

/// What tasks over all parts wrote, and for each part a digest of what is said of it.
struct Found {
    artifacts: Vec<Whole>,
    of_parts: Vec<Digest>,
}

/// A range of buckets and the parts that have something in it.
struct Task {
    buckets: Buckets,
    parts: Vec<usize>,
}

impl Task {
    /// What the task reads: names and signatures, and whatever else each of the parts has.
    fn of<'t>(
        &self,
        corpus: &Corpus,
        signed: &[Signed],
        more: impl Fn(usize) -> Option<&'t Digest>,
    ) -> Digest {
        let mut digests = Vec::new();
        for &part in &self.parts {
            digests.extend([corpus.names[part], signed[part].artifact]);
            digests.extend(more(part));
        }
        digest_of_all(&digests)
    }

    fn names(&self, corpus: &Corpus) -> Vec<Digest> {
        self.parts.iter().map(|&part| corpus.names[part]).collect()
    }

    fn signed(&self, signed: &[Signed]) -> Vec<Digest> {
        let artifacts = self.parts.iter().map(|&part| signed[part].artifact);
        artifacts.collect()
    }
}

fn part<S: Stage>(
    name: String,
    of: Digest,
    settings: &S::Settings,
    watch: &S::Watch,
    reads: Vec<(&str, Vec<Digest>)>,
) -> Part {
    let reads = reads.into_iter();
    Part {
        name,
        kind: S::KIND,
        settings: plain(settings),
        watch: plain(watch),
        of,
        reads: reads
            .map(|(role, digests)| (role.to_owned(), digests))
            .collect(),
        local_files: Vec::new(),
    }
}

fn artifacts(wholes: &[Whole]) -> Vec<Digest> {
    wholes.iter().map(|whole| whole.digest).collect()
}

impl<'a> Corpus<'a> {
    fn of(settings: &'a DedupeSettings, conductor: &'a dyn Conductor) -> Result<Self, StageError> {
        let inputs = conductor.inputs("documents")?;
        for input in &inputs {
            if !input.files.iter().any(|file| holds_documents(&file.path)) {
                // Says what is wrong with it.
                Documents::open(&[&input.path])?;
            }
        }
        let size = settings.partition.ok_or_else(|| {
            StageError::new("`partition` is not set, so there are no parts").is_final()
        })?;
        let parts = partition::parts(&inputs, |file| holds_documents(&file.path), size)?;
        let name = |files: &Vec<File>| digest_of_all(files.iter().map(|file| &file.entry.digest));
        Ok(Self {
            settings,
            conductor,
            names: parts.iter().map(name).collect(),
            parts,
        })
    }

    /// What each of those parts may take that are at work at one time.
    fn memory_mb(&self) -> usize {
        (self.settings.memory_mb / self.conductor.at_once()).max(1)
    }

    fn sign(&self) -> Result<Vec<Signed>, StageError> {
        let evaluation = self.conductor.inputs(EVALUATION)?;
        if evaluation.is_empty() && self.settings.method == Method::Contamination {
            return Err(nothing_to_avoid());
        }
        let files = evaluation.iter().flat_map(|input| &input.files);
        let files = files.filter(|file| holds_documents(&file.path));
        let evaluation_of = digest_of_all(files.map(|file| &file.digest));
        let settings = self.sign_settings(!evaluation.is_empty());
        let sign = |(idx, (files, name)): (usize, (&Vec<File>, &Digest))| {
            let (places, from) = Places::of(files);
            let watch = SignWatch {
                files: places,
                memory_mb: self.memory_mb(),
            };
            let of = digest_of_all([name, &evaluation_of]);
            let reads = vec![(FILES, from), (EVALUATION, artifacts(&evaluation))];
            part::<Sign>(format!("sign-{idx:05}"), of, &settings, &watch, reads)
        };
        let parts = self.parts.iter().zip(&self.names).enumerate();
        let parts: Vec<Part> = parts.map(sign).collect();
        let made = self.conductor.make("signing", &parts)?;
        let signed = |whole: &Whole| {
            Ok(Signed {
                artifact: whole.digest,
                index: Index::read(&whole.path)?,
            })
        };
        made.iter().map(signed).collect()
    }

    fn sign_settings(&self, has_evaluation: bool) -> SignSettings {
        let settings = self.settings;
        let bands = || BandSettings {
            permutations: settings.permutations,
            rows: rows(settings.permutations, settings.threshold),
            ngram: settings.ngram,
        };
        SignSettings {
            method: settings.method,
            bands: (settings.method == Method::Minhash).then(bands),
            contamination_ngram: has_evaluation.then_some(settings.contamination_ngram),
        }
    }

    /// Returns ranges of buckets that fit into half the memory, as far as there are so many buckets.
    fn tasks(
        &self,
        signed: &[Signed],
        counts: fn(&Index) -> &Vec<u64>,
        record_bytes: u64,
    ) -> Vec<Task> {
        let counts = || signed.iter().map(|signed| counts(&signed.index));
        let n_records: u64 = counts().flatten().sum();
        // A sorter keeps a quarter of its share for files.
        let memory = (self.settings.memory_mb as u64) << 20;
        let n_tasks = (n_records * record_bytes).div_ceil(memory / 8 * 3);
        let n_tasks = n_tasks.next_power_of_two().clamp(1, u64::from(N_BUCKETS));
        let n_buckets = N_BUCKETS / n_tasks as u32;
        let task = |n: u32| {
            let buckets = Buckets {
                first: n * n_buckets,
                end: (n + 1) * n_buckets,
            };
            let has_some =
                |counts: &Vec<u64>| !sign::records_in(counts, buckets.range()).is_empty();
            let parts = counts().enumerate().filter(|(_, counts)| has_some(counts));
            Task {
                parts: parts.map(|(part, _)| part).collect(),
                buckets,
            }
        };
        let tasks = (0..n_tasks as u32).map(task);
        tasks.filter(|task| !task.parts.is_empty()).collect()
    }

    fn same(&self, signed: &[Signed]) -> Result<Vec<Whole>, StageError> {
        let tasks = self.tasks(signed, |index| &index.keys, same::RECORD_BYTES);
        let same = |task: &Task| {
            let watch = SameWatch {
                names: task.names(self),
                memory_mb: self.memory_mb(),
            };
            let name = format!("same-{:03}", task.buckets.first);
            let of = task.of(self, signed, |_| None);
            let reads = vec![(SIGNED, task.signed(signed))];
            part::<Same>(name, of, &task.buckets, &watch, reads)
        };
        let parts: Vec<Part> = tasks.iter().map(same).collect();
        self.conductor.make("comparing", &parts)
    }

    /// Returns for each part a digest of what tasks say of it.
    fn digests<const N: usize>(
        &self,
        found: &[Whole],
        name: &str,
    ) -> Result<Vec<Digest>, StageError> {
        let places = names::Places::of(&self.names);
        let mut digests = vec![Vec::new(); self.parts.len()];
        for whole in found {
            let ours = places.of_others(&names::read(&whole.path)?);
            for slice in Sliced::<N>::open(&whole.path, name)?.slices() {
                let part = ours[slice.of.0 as usize].ok_or_else(|| unnamed(&whole.path))?;
                digests[part as usize].push(slice.digest);
            }
        }
        Ok(digests.iter().map(digest_of_all).collect())
    }

    fn propose(&self, signed: &[Signed], same: &Found) -> Result<Found, StageError> {
        let tasks = self.tasks(signed, |index| &index.bands, propose::RECORD_BYTES);
        let propose = |task: &Task| {
            let watch = ProposeWatch {
                names: task.names(self),
                memory_mb: self.memory_mb(),
            };
            let name = format!("propose-{:03}", task.buckets.first);
            let of = task.of(self, signed, |part| Some(&same.of_parts[part]));
            let same = artifacts(&same.artifacts);
            let reads = vec![(SIGNED, task.signed(signed)), (SAME, same)];
            part::<Propose>(name, of, &task.buckets, &watch, reads)
        };
        let parts: Vec<Part> = tasks.iter().map(propose).collect();
        let artifacts = self.conductor.make("proposing", &parts)?;
        Ok(Found {
            of_parts: self.digests::<3>(&artifacts, PAIRS)?,
            artifacts,
        })
    }

    /// Returns what was measured, each with its part's number, of those parts that have pairs.
    fn measure(&self, proposed: &Found) -> Result<Vec<(usize, Whole)>, StageError> {
        let nothing = digest_of_all([]);
        let has_pairs = |part: &usize| proposed.of_parts[*part] != nothing;
        let of: Vec<usize> = (0..self.parts.len()).filter(has_pairs).collect();
        let mut missing = Vec::new();
        for &idx in &of {
            // What it reads is no part of its key.
            let part = self.measure_one(idx, proposed, &BTreeSet::new(), &|_| None);
            if self.conductor.kept(&part)?.is_none() {
                missing.push(idx);
            }
        }
        let wanted = self.wanted(&missing, proposed)?;
        let grams = self.grams(&wanted, proposed)?;
        let grams_of = |part: usize| grams[part];
        let part = |&idx: &usize| self.measure_one(idx, proposed, &wanted[idx].parts, &grams_of);
        let parts: Vec<Part> = of.iter().map(part).collect();
        let made = self.conductor.make("measuring", &parts)?;
        Ok(of.into_iter().zip(made).collect())
    }

    fn measure_one(
        &self,
        idx: usize,
        proposed: &Found,
        with: &BTreeSet<usize>,
        grams_of: &dyn Fn(usize) -> Option<Digest>,
    ) -> Part {
        let mut given: Vec<(Digest, Option<Digest>)> = with
            .iter()
            .map(|&part| (self.names[part], grams_of(part)))
            .collect();
        given.sort_unstable();
        let watch = MeasureWatch {
            name: self.names[idx],
            names: given.iter().map(|(name, _)| *name).collect(),
            memory_mb: self.memory_mb(),
        };
        let settings = MeasureSettings {
            ngram: self.settings.ngram,
            threshold: self.settings.threshold,
        };
        let of = digest_of_all([&self.names[idx], &proposed.of_parts[idx]]);
        let grams = given.iter().filter_map(|(_, grams)| *grams).collect();
        let reads = vec![(PROPOSED, artifacts(&proposed.artifacts)), (GRAMS, grams)];
        part::<Measure>(format!("measure-{idx:05}"), of, &settings, &watch, reads)
    }

    /// Returns for each part what is to be compared with others: of those that are not measured yet.
    fn wanted(&self, missing: &[usize], proposed: &Found) -> Result<Vec<Wanted>, StageError> {
        let places = names::Places::of(&self.names);
        let mut wanted = vec![Wanted::default(); self.parts.len()];
        for whole in &proposed.artifacts {
            let ours = places.of_others(&names::read(&whole.path)?);
            let number = |theirs: u32| {
                let ours = ours[theirs as usize].ok_or_else(|| unnamed(&whole.path))?;
                Ok::<_, StageError>(ours as usize)
            };
            for slice in Sliced::<1>::open(&whole.path, WANTED)?.slices() {
                let (of, for_part) = (number(slice.of.0)?, number(slice.of.1)?);
                if missing.binary_search(&for_part).is_ok() {
                    wanted[for_part].parts.insert(of);
                    wanted[of].wanted_for.insert(for_part);
                    wanted[of].rows.update(slice.digest.as_bytes());
                }
            }
        }
        Ok(wanted)
    }

    /// Returns the artifacts of n-grams, of those parts that are wanted.
    fn grams(
        &self,
        wanted: &[Wanted],
        proposed: &Found,
    ) -> Result<Vec<Option<Digest>>, StageError> {
        let is_wanted = |idx: &usize| !wanted[*idx].wanted_for.is_empty();
        let of: Vec<usize> = (0..self.parts.len()).filter(is_wanted).collect();
        let settings = GramsSettings {
            ngram: self.settings.ngram,
        };
        let grams = |&idx: &usize| {
            let (places, from) = Places::of(&self.parts[idx]);
            let wanted_for = wanted[idx].wanted_for.iter();
            let watch = GramsWatch {
                name: self.names[idx],
                wanted_for: wanted_for.map(|&part| self.names[part]).collect(),
                files: places,
                memory_mb: self.memory_mb(),
            };
            let of = digest_of_all([&self.names[idx], &wanted[idx].rows.finalize().into()]);
            let reads = vec![(FILES, from), (PROPOSED, artifacts(&proposed.artifacts))];
            part::<Grams>(format!("grams-{idx:05}"), of, &settings, &watch, reads)
        };
        let parts: Vec<Part> = of.iter().map(grams).collect();
        let made = self.conductor.make("reading proposed pairs", &parts)?;
        let mut grams = vec![None; self.parts.len()];
        for (idx, whole) in of.into_iter().zip(made) {
            grams[idx] = Some(whole.digest);
        }
        Ok(grams)
    }

    fn judge(
        &self,
        signed: &[Signed],
        same: &Found,
        measured: &[(usize, Whole)],
    ) -> Result<Whole, StageError> {
        let watch = JudgeWatch {
            names: self.names.clone(),
            measured: measured.iter().map(|(part, _)| *part as u32).collect(),
            memory_mb: self.memory_mb(),
        };
        let mut of = Vec::new();
        let mut of_measured = measured.iter().peekable();
        for (idx, signed) in signed.iter().enumerate() {
            of.extend([self.names[idx], signed.artifact, same.of_parts[idx]]);
            let measured = of_measured.next_if(|(part, _)| *part == idx);
            // Nothing measured is told from something by a digest that no artifact has.
            of.push(measured.map_or(digest_of_all([]), |(_, whole)| whole.digest));
        }
        let signed = signed.iter().map(|signed| signed.artifact).collect();
        let measured = measured.iter().map(|(_, whole)| whole.digest).collect();
        let reads = vec![
            (SIGNED, signed),
            (SAME, artifacts(&same.artifacts)),
            (MEASURED, measured),
        ];
        let of = digest_of_all(&of);
        let judge = part::<Judge>("judge".to_owned(), of, &JudgeSettings {}, &watch, reads);
        let made = self.conductor.make("judging", &[judge])?;
        made.into_iter().next().ok_or_else(StageError::cancelled)
    }

    fn filter(&self, signed: &[Signed], judged: &Whole) -> Result<Vec<Whole>, StageError> {
        let verdicts = Sliced::<VERDICT_LEN>::open(&judged.path, VERDICTS)?;
        let kept = Sliced::<1>::open(&judged.path, KEPT)?;
        let mut parts = Vec::new();
        for (idx, files) in self.parts.iter().enumerate() {
            let number = idx as u32;
            let (places, from) = Places::of(files);
            let mut kept_in = Vec::new();
            let mut records = kept.read(kept.of_part(number))?;
            while let Some([part]) = records.next()? {
                kept_in.push(part);
            }
            let signed = kept_in.iter().map(|part| signed[*part as usize].artifact);
            let reads = vec![
                (FILES, from),
                (JUDGED, vec![judged.digest]),
                (SIGNED, signed.collect()),
            ];
            let watch = FilterWatch {
                files: places,
                part: number,
                signed: kept_in,
                memory_mb: self.memory_mb(),
            };
            let verdicts = verdicts.of_part(number).iter().map(|slice| &slice.digest);
            let of_files = partition::digest(files);
            let of = digest_of_all([&of_files].into_iter().chain(verdicts));
            let name = format!("filter-{idx:05}");
            let nothing = tinylm_pipeline::NoSettings {};
            parts.push(part::<Filter>(name, of, &nothing, &watch, reads));
        }
        self.conductor.make("writing", &parts)
    }

    fn collect(&self, filtered: &[Whole]) -> Result<Collection, StageError> {
        let counts = filter::all_of(filtered.iter().map(|whole| &whole.metrics));
        if counts.are_all_dropped() {
            self.conductor.warn(NONE_KEPT);
        }
        let mut collection = Collection::default();
        for (number, whole) in filtered.iter().enumerate() {
            let is_taken = |name: &str| holds_documents(name) || name == report::NAME;
            partition::collect(&mut collection, whole, number, is_taken);
        }
        let stats = json_text(&counts.stats(self.settings.method));
        collection.own.push((STATS.to_owned(), stats));
        collection.metrics = counts.metrics();
        Ok(collection)
    }
}

/// What is wanted of a part, and by it.
#[derive(Debug, Clone, Default)]
struct Wanted {
    /// The parts that its pairs are with, itself among them.
    parts: BTreeSet<usize>,
    /// The parts whose pairs are with it.
    wanted_for: BTreeSet<usize>,
    /// Of what says which of its documents those are.
    rows: blake3::Hasher,
}

#[cfg(test)]
mod tests;
