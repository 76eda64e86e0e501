//! The finder of rows as whoever reads a file sees it.
//!
//! A finder goes on where it left off once more bytes have come, and does not care if those that it
//! has looked at are taken away. So a row that is kept and one that is passed over, because it is
//! too long to be held, end at the same byte.

/// What the bytes at hand hold next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A row of so many bytes; whatever is before `next` is used up.
    Row { end: usize, next: usize },
    /// Nothing, up to here.
    Nothing { next: usize },
    /// More bytes are needed to tell.
    More,
}

/// What was found, or what is wrong with the bytes.
pub(crate) type Search = Result<Found, &'static str>;

pub(crate) trait Finder {
    /// Looks for the next row. `bytes` begin behind what was found last; after `More`, when `looked_at`
    /// says how many need not be looked at again, they have more behind them and may lack some that
    /// were looked at, but never the last of those.
    fn find(&mut self, bytes: &[u8], at_end: bool, looked_at: &mut usize) -> Search;

    /// Whether the row found last may have swallowed others.
    fn is_broken(&self) -> bool {
        false
    }

    /// Returns the first names of lists in an object whose elements are rows.
    fn lists(&self) -> &[String] {
        &[]
    }
}

/// Leaves out a carriage return at the end of a row.
pub(crate) fn without_return(bytes: &[u8], end: usize) -> usize {
    end - usize::from(bytes[..end].ends_with(b"\r"))
}

/// Returns how many bytes of white space stand in front.
pub(crate) fn white_space(bytes: &[u8]) -> usize {
    bytes.len() - bytes.trim_ascii_start().len()
}
