//! What the stage reads, and which of it there must be.

use std::path::Path;

use tinylm_pipeline::{StageError, StageIo};

use crate::shared::documents::Documents;

pub(super) fn open(io: &StageIo, role: &str) -> Result<Documents, StageError> {
    let inputs = io.inputs(role);
    let folders: Vec<&Path> = inputs.iter().map(|input| input.path.as_path()).collect();
    Documents::open(&folders)
}

/// Documents are known by numbers of four bytes.
pub(super) fn check_number(documents: &Documents) -> Result<(), StageError> {
    match documents.n_documents() > u64::from(u32::MAX) {
        true => Err(StageError::new("there are more than 4,294,967,295 documents").is_final()),
        false => Ok(()),
    }
}

pub(super) fn nothing_to_avoid() -> StageError {
    StageError::new("`method: contamination` needs an evaluation set")
        .help("give the stage `inputs: { documents: .., evaluation: .. }`")
        .is_final()
}
