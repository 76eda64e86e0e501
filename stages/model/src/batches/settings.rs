//! The settings of batches, and why some cannot be.

use tinylm_settings::choices;

/// The cut of rows from documents, and of steps from rows.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSettings {
    pub batching: Batching,
    /// Tokens between the starts of two `sliding` windows; nothing else reads it.
    pub stride: usize,
    /// Places in a row.
    pub context: usize,
    /// Rows in a step.
    pub batch: usize,
    pub long_documents: LongDocuments,
    pub loss_on: LossOn,
    /// A row is a pair of documents, each of at most `context` places; `batching` is not read then.
    pub pairs: bool,
}

choices! {
    /// How rows are cut from documents.
    pub enum Batching {
        /// Several documents a row, as full as best fit gets them.
        Packed = "packed",
        /// One document a row.
        Padded = "padded",
        /// Stretches of the token stream at random places, as many as cover it once an epoch.
        Windows = "windows",
        /// Stretches of the token stream that start every `stride` tokens.
        Sliding = "sliding",
    }
}

choices! {
    /// The treatment of a document of more than `context` places by packing and padding.
    pub enum LongDocuments {
        /// Further pieces, each read from position 0.
        Split = "split",
        /// The end is left out.
        Crop = "crop",
    }
}

choices! {
    /// Which tokens are learned.
    pub enum LossOn {
        /// Tokens that `binarize` marked: what the assistant says, or all of a raw text.
        Targets = "targets",
        All = "all",
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("no token of these documents counts in the loss")]
    AllMasked,
    #[error("every document is a single token, which leaves nothing to predict")]
    NothingToPredict,
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    #[error(
        "`stride` is {stride}, and more than `context` ({context}): tokens in between would never be read"
    )]
    Stride { stride: usize, context: usize },
    #[error("every pair has more than {0} tokens, a prompt and an answer")]
    LongPairs(usize),
    #[error("`context` is {0}, and positions are counted up to 65,535")]
    Context(usize),
}

impl BatchError {
    /// Returns what to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::AllMasked => {
                "set `loss_on: all`, or mark what is to be learned in `normalize` and `binarize`"
            }
            Self::NothingToPredict => "give `binarize` longer documents",
            Self::Zero(_) => "set it to a positive number",
            Self::Stride { .. } => "set `stride` to at most `context`",
            Self::LongPairs(_) => "set a longer `context`",
            Self::Context(_) => "set a shorter `context`",
        }
    }
}

impl BatchSettings {
    /// Returns the most places in a row.
    pub fn places(&self) -> usize {
        match self.pairs {
            true => 2 * self.context,
            false => self.context,
        }
    }

    pub(super) fn check(&self) -> Result<(), BatchError> {
        let stride = match self.batching {
            Batching::Sliding => self.stride,
            _ => 1,
        };
        let positive = [
            ("context", self.context),
            ("batch", self.batch),
            ("stride", stride),
        ];
        if let Some((name, _)) = positive.into_iter().find(|&(_, value)| value == 0) {
            return Err(BatchError::Zero(name));
        }
        if self.places() > usize::from(u16::MAX) {
            return Err(BatchError::Context(self.context));
        }
        let context = self.context;
        if stride > context {
            return Err(BatchError::Stride { stride, context });
        }
        Ok(())
    }
}
