//! The n-grams of those documents of a part that stand in pairs which are not measured yet.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use tinylm_pipeline::{Content, Metrics, Roles, Stage, StageError, StageIo, parts::Digest};

use super::{
    super::{near::Grams as Written, spill::Numbers, work::Work},
    given::{PROPOSED, hidden, open_files},
    names,
    propose::WANTED,
    sliced::Sliced,
};
use crate::shared::{documents::Documents, partition::Places, threads};

pub(super) struct Grams;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GramsSettings {
    pub(super) ngram: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct GramsWatch {
    pub(super) name: Digest,
    /// The parts whose pairs are to be measured.
    pub(super) wanted_for: Vec<Digest>,
    pub(super) files: Places,
    pub(super) memory_mb: usize,
}

hidden!(GramsSettings, GramsWatch);

impl Stage for Grams {
    type Settings = GramsSettings;
    type Watch = GramsWatch;

    const KIND: &'static str = "dedupe-grams";
    const ABOUT: &'static str = "the n-grams of a part that `dedupe` compares";
    const REVISION: u32 = 1;
    const MAKES: Content = Content::Anything;
    const ROLES: Roles = Roles::Any;

    fn run(
        settings: &GramsSettings,
        watch: &GramsWatch,
        io: &StageIo,
    ) -> Result<Metrics, StageError> {
        let documents = open_files(&watch.files, io)?;
        let wanted = wanted(&documents, watch, io)?;
        let work = Work::new(watch.memory_mb, io)?;
        threads::pool(io)?
            .install(|| Written::write(io.out(), &documents, &wanted, settings.ngram, &work))?;
        Ok(Metrics::default())
    }
}

fn wanted(documents: &Documents, watch: &GramsWatch, io: &StageIo) -> Result<Numbers, StageError> {
    let mut wanted = Numbers::none_of(documents.n_documents());
    let wanted_for: HashSet<&Digest> = watch.wanted_for.iter().collect();
    for input in io.inputs(PROPOSED) {
        let names = names::read(&input.path)?;
        let Some(part) = (0..).zip(&names).find(|(_, name)| **name == watch.name) else {
            continue;
        };
        let sliced = Sliced::<1>::open(&input.path, WANTED)?;
        for slice in sliced.of_part(part.0) {
            if !wanted_for.contains(&names[slice.of.1 as usize]) {
                continue;
            }
            let mut rows = sliced.read(std::slice::from_ref(slice))?;
            while let Some([row]) = rows.next()? {
                wanted.insert(row);
            }
        }
    }
    Ok(wanted)
}
