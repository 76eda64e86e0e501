//! "Did you mean": the names nearest to a mistyped one.

/// Returns the names within a third of `text`'s length in edits, nearest first, at most three.
pub fn nearest<'a>(text: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let bound = (text.len() / 3).max(1);
    let mut close: Vec<(usize, &str)> = names
        .into_iter()
        .map(|name| {
            let known: Vec<char> = name.to_lowercase().chars().collect();
            (edits(&text, &known), name)
        })
        .filter(|(distance, _)| *distance <= bound)
        .collect();
    close.sort();
    close.dedup();
    close.into_iter().map(|(_, name)| name).take(3).collect()
}

/// The edits (insert, delete, replace, swap neighbours) between two names: optimal string alignment.
#[must_use]
pub fn edits(a: &[char], b: &[char]) -> usize {
    let (mut before, mut above) = (vec![0; b.len() + 1], (0..=b.len()).collect::<Vec<_>>());
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(above[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = above;
        above = row;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_comes_first() {
        let names = ["loss", "loss_assistant", "lr", "tokens"];
        assert_eq!(nearest("los", names), ["loss"]);
        assert_eq!(nearest("lsos", names), ["loss"]);
        assert_eq!(nearest("perplexity", names), [""; 0]);
        assert_eq!(nearest("TOKNES", names), ["tokens"]);
    }
}
