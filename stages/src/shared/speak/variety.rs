//! How varied texts are: what says of samples that a model repeats itself.

/// How varied some texts are, by words in lower case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variety {
    /// Different words among all words of all texts.
    pub distinct_1: f64,
    /// Different pairs of neighbouring words among all pairs.
    pub distinct_2: f64,
    /// Runs of four words that stood in the same text before, among all such runs.
    pub repetition: f64,
}

impl Variety {
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Variety {
        let texts: Vec<Vec<String>> = texts
            .into_iter()
            .map(|text| text.split_whitespace().map(str::to_lowercase).collect())
            .collect();
        let (mut n_runs, mut n_repeated) = (0, 0);
        for words in &texts {
            let mut seen = std::collections::BTreeSet::new();
            for run in words.windows(4) {
                n_runs += 1;
                n_repeated += usize::from(!seen.insert(run));
            }
        }
        Variety {
            distinct_1: distinct(&texts, 1),
            distinct_2: distinct(&texts, 2),
            repetition: share(n_repeated, n_runs),
        }
    }
}

fn distinct(texts: &[Vec<String>], n: usize) -> f64 {
    let runs = texts.iter().flat_map(|words| words.windows(n));
    let different: std::collections::BTreeSet<&[String]> = runs.clone().collect();
    share(different.len(), runs.count())
}

/// 0 of 0 is 0: no text repeats nothing.
fn share(n: usize, of: usize) -> f64 {
    n as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variety_counts_words_and_runs() {
        let variety = Variety::of(["a b a b", "A c"]);
        assert_eq!(variety.distinct_1, 3.0 / 6.0);
        assert_eq!(variety.distinct_2, 3.0 / 4.0);
        assert_eq!(variety.repetition, 0.0);
        let loop_ = Variety::of(["no no no no no no"]);
        assert_eq!(loop_.repetition, 2.0 / 3.0);
        assert_eq!(Variety::of([]).repetition, 0.0);
    }
}
