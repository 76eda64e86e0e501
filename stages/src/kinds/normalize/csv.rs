//! One record of comma-separated values as fields.
//!
//! Where records end is found by the reader, so here one is at hand as a whole, and its fields
//! are borrowed from it unless a doubled quote stands in one. A field in quotes ends with its
//! quote, and one that is not closed makes the record an error and never a guess. A quote in the
//! middle of a field is a quote, as in `5" pipe`.

use std::borrow::Cow;

use crate::kinds::normalize::cell::Cell;

const NOT_CLOSED: &str = "not CSV: a quote is not closed";

/// Returns a record as a map from column to text; a field that is not there is null.
pub(super) fn row<'a>(record: &'a [u8], columns: &[String]) -> Result<Cell<'a>, String> {
    let text = std::str::from_utf8(record).map_err(|error| not_utf8(&error))?;
    let mut fields = fields(text)?;
    if fields.len() > columns.len() {
        let n_columns = columns.len();
        return Err(format!("has {} values, not {n_columns}", fields.len()));
    }
    fields.resize(columns.len(), Cell::Null);
    let names = columns.iter().map(|name| Cow::Owned(name.clone()));
    Ok(Cell::Map(names.zip(fields).collect()))
}

/// Returns the fields of a record: text, or null where nothing stands between two commas.
pub(super) fn fields(record: &str) -> Result<Vec<Cell<'_>>, String> {
    let mut fields = Vec::new();
    let mut rest = record.trim_end_matches(['\r', '\n']);
    loop {
        let (field, behind) = match rest.strip_prefix('"') {
            Some(quoted) => in_quotes(quoted)?,
            None => bare(rest),
        };
        fields.push(field);
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(fields),
        }
    }
}

type Field<'a> = (Cell<'a>, Option<&'a str>);

/// Returns a field without quotes around it, and what stands behind its comma.
fn bare(text: &str) -> Field<'_> {
    let (field, behind) = match text.split_once(',') {
        Some((field, behind)) => (field, Some(behind)),
        None => (text, None),
    };
    let cell = match field {
        "" => Cell::Null,
        field => Cell::Text(Cow::Borrowed(field)),
    };
    (cell, behind)
}

/// Returns a field whose opening quote has been read, and what stands behind its comma. The quote
/// that closes it stands before a comma or at the end; one in the middle that nobody doubled is
/// part of the text.
fn in_quotes(text: &str) -> Result<Field<'_>, String> {
    let mut end = 0;
    let mut is_doubled = false;
    let behind = loop {
        end += text[end..].find('"').ok_or(NOT_CLOSED)?;
        let behind = &text[end + 1..];
        if behind.starts_with('"') {
            is_doubled = true;
            end += 2;
        } else if behind.is_empty() {
            break None;
        } else if let Some(behind) = behind.strip_prefix(',') {
            break Some(behind);
        } else {
            end += 1;
        }
    };
    let field = match is_doubled {
        true => Cow::Owned(text[..end].replace("\"\"", "\"")),
        false => Cow::Borrowed(&text[..end]),
    };
    Ok((Cell::Text(field), behind))
}

pub(super) fn not_utf8(error: &std::str::Utf8Error) -> String {
    format!("not UTF-8 at byte {} of the row", error.valid_up_to())
}

/// Returns a line of tab-separated values as a row.
pub(super) fn tsv<'a>(
    bytes: &'a [u8],
    columns: &[String],
    is_quoted: bool,
) -> Result<Cell<'a>, String> {
    let line = std::str::from_utf8(bytes).map_err(|error| not_utf8(&error))?;
    let mut values = tsv_fields(line, is_quoted);
    if values.len() != columns.len() {
        // Quotes may stand at the ends of a line and mean nothing.
        values = line.split('\t').map(Cow::Borrowed).collect();
    }
    if values.len() != columns.len() {
        let (n_values, n_columns) = (values.len(), columns.len());
        return Err(format!("has {n_values} values, not {n_columns}"));
    }
    let entries = columns.iter().zip(values);
    let entries = entries.map(|(name, value)| (Cow::Owned(name.clone()), Cell::Text(value)));
    Ok(Cell::Map(entries.collect()))
}

/// Returns the fields of a line of tab-separated values. Most writers know no quotes, so that those
/// around a field are part of what is said, unless the file `is_quoted` or the field needs them: for
/// a tab inside, or for quotes, which are doubled then.
pub(super) fn tsv_fields(line: &str, is_quoted: bool) -> Vec<Cow<'_, str>> {
    let mut fields = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let needs = |field: &str| field.contains(['\t', '"']);
        let quoted = tsv_quoted(text).filter(|(field, _)| is_quoted || needs(field));
        let (field, behind) = quoted.unwrap_or_else(|| match text.split_once('\t') {
            Some((field, behind)) => (Cow::Borrowed(field), Some(behind)),
            None => (Cow::Borrowed(text), None),
        });
        fields.push(field);
        rest = behind;
    }
    fields
}

/// Whether all fields of a file's first line are in quotes: then all others are as well.
pub(super) fn tsv_is_quoted(line: &str) -> bool {
    let mut rest = Some(line);
    while let Some(text) = rest {
        match tsv_quoted(text) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    true
}

fn tsv_quoted(text: &str) -> Option<(Cow<'_, str>, Option<&str>)> {
    let text = text.strip_prefix('"')?;
    let mut end = 0;
    loop {
        end += text[end..].find('"')?;
        let behind = &text[end + 1..];
        if behind.starts_with('"') {
            end += 2;
            continue;
        }
        let field = match text[..end].contains('"') {
            true => Cow::Owned(text[..end].replace("\"\"", "\"")),
            false => Cow::Borrowed(&text[..end]),
        };
        return match behind.is_empty() {
            true => Some((field, None)),
            false => Some((field, Some(behind.strip_prefix('\t')?))),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(record: &str) -> Result<Vec<Option<String>>, String> {
        let text = |cell: &Cell| cell.text().map(str::to_owned);
        fields(record).map(|fields| fields.iter().map(text).collect())
    }

    #[test]
    fn fields_are_told_apart() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts("a,b").unwrap(), [some("a"), some("b")]);
        assert_eq!(texts(",\"\",\r\n").unwrap(), [None, some(""), None]);
        assert_eq!(texts("\"a \"b\" c\",d").unwrap()[0], some("a \"b\" c"));
        let quoted = texts("\"a, \"\"b\"\"\nc\",d").unwrap();
        assert_eq!(quoted, [some("a, \"b\"\nc"), some("d")]);
        assert_eq!(texts("5\" pipe,b").unwrap()[0], some("5\" pipe"));
        for wrong in ["\"a", "\"a\"b", "a,\"b\" c", "\"a\"\""] {
            assert_eq!(texts(wrong).unwrap_err(), NOT_CLOSED, "{wrong}");
        }
    }

    #[test]
    fn quotes_around_a_tab_separated_field_are_words_unless_they_are_needed() {
        let fields = |line, is_quoted| tsv_fields(line, is_quoted).join("|");
        assert_eq!(
            fields("\"a \"\"b\"\" c\"\t\"d\te\"", false),
            "a \"b\" c|d\te"
        );
        assert_eq!(
            fields("\"deal or no deal\"\t\"no!\"", false),
            "\"deal or no deal\"|\"no!\""
        );
        assert_eq!(
            fields("\"deal or no deal\"\t\"\"", true),
            "deal or no deal|"
        );
        let stray = "\"hi\" she said\t5\" pipe\t\"open";
        assert_eq!(fields(stray, true), stray.replace('\t', "|"));
        assert!(tsv_is_quoted("\"prompt\"\t\"response\""));
        assert!(!tsv_is_quoted("\"which one?\"\tthis"));
        let columns = ["x".to_owned(), "y".to_owned()];
        let cell = tsv(b"\"hi\tho\"", &columns, false).unwrap();
        assert_eq!(cell.get("y").and_then(Cell::text), Some("ho\""));
    }

    #[test]
    fn fields_that_lack_are_null_and_fields_too_many_an_error() {
        let columns = ["x".to_owned(), "y".to_owned()];
        let cell = row(b"a", &columns).unwrap();
        assert_eq!(cell.get("y"), Some(&Cell::Null));
        assert_eq!(row(b"a,b,c", &columns).unwrap_err(), "has 3 values, not 2");
        assert!(row(b"\xff", &columns).unwrap_err().contains("UTF-8"));
    }

    proptest! {
        #[test]
        fn what_is_written_in_quotes_is_read_back(
            fields in prop::collection::vec("[a,\"\n\r é]{0,6}", 1..5)
        ) {
            let quoted = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\"")));
            let record = quoted.collect::<Vec<_>>().join(",");
            let read: Vec<String> = texts(&record).unwrap().into_iter().flatten().collect();
            prop_assert_eq!(read, fields);
        }

        #[test]
        fn no_text_makes_it_panic(record in "[a,\"\n\r é]{0,12}") {
            let _ = texts(&record);
        }
    }
}
