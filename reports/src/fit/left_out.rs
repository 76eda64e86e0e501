//! A run that was asked for and tells too little to be fitted: what a law and an error say of it alike.

use serde::Serialize;

/// A run that was chosen and is not fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeftOut {
    pub run: String,
    pub why: String,
}
