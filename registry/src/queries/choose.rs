//! Which runs fit a condition, and in which order they stand.
//!
//! A condition names fields of runs, settings and metrics alike. Only the values of the names that
//! it asks for are gathered, for all runs at once: one query a name, whatever the number of runs.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use rusqlite::Row;
use serde_json::Value;

use super::{FINAL, IS_NO_LOAD, value};
use crate::{
    Error, Judge, Millis, Registry, Run,
    nearest::nearest,
    where_filter::{Fact, Filter},
};

/// The fields of a run that can be compared and sorted by, beside settings and metrics.
const FIELDS: [&str; 16] = [
    "id",
    "name",
    "experiment",
    "file",
    "seed",
    "status",
    "started",
    "ended",
    "seconds",
    "device",
    "host",
    "commit",
    "dirty",
    "version",
    "command",
    "sweep",
];

/// What a table of runs calls some of them.
const HEADINGS: [(&str, &str); 3] = [("run", "name"), ("took", "seconds"), ("tags", "tag")];

/// A metric that has the name asked for, or ends with it.
struct Found {
    stage: String,
    metric: String,
    value: f64,
}

impl Registry {
    pub(super) fn retain(&self, runs: &mut Vec<Run>, filter: &Filter) -> Result<(), Error> {
        let mut facts = HashMap::new();
        for (name, span) in filter.names() {
            let found = self.facts(runs, name)?;
            let is_known = !found.is_empty() || is_field(name) || runs.is_empty();
            if !is_known {
                let known = self.fact_names()?;
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(filter.unknown(name, span, &nearest(name, known)).into());
            }
            facts.insert(name.to_owned(), found);
        }
        runs.retain(|run| {
            filter.holds(&|name: &str| {
                let found = facts.get(name).and_then(|runs| runs.get(&run.id));
                found.map_or(&[][..], Vec::as_slice)
            })
        });
        Ok(())
    }

    pub(super) fn sort(&self, runs: &mut [Run], by: &str) -> Result<(), Error> {
        let (name, is_descending) = match by.strip_prefix('-') {
            Some(name) => (name, true),
            None => (by, false),
        };
        let facts = self.values(runs, name)?;
        let first = |run: &Run| facts.get(&run.id).and_then(|facts| facts.first());
        // Runs without the value come last either way.
        runs.sort_by(|a, b| match (first(a), first(b)) {
            (Some(a), Some(b)) if is_descending => compare(b, a),
            (Some(a), Some(b)) => compare(a, b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        Ok(())
    }

    /// The values that a name has in runs, by their ids; refuses a name that nothing has.
    pub fn values(&self, runs: &[Run], name: &str) -> Result<HashMap<String, Vec<Fact>>, Error> {
        let facts = self.facts(runs, name)?;
        if facts.is_empty() && !is_field(name) && !runs.is_empty() {
            let known = self.fact_names()?;
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let nearest = nearest(name, known).first().map(|&near| near.to_owned());
            let name = name.to_owned();
            return Err(Error::UnknownName { name, nearest });
        }
        Ok(facts)
    }

    /// The values that a name has in each run: a field, else a setting, else a metric. A setting or
    /// metric may be named by its end: `lr` is `base.train.lr`, `loss` is that of the last model.
    fn facts(&self, runs: &[Run], name: &str) -> Result<HashMap<String, Vec<Fact>>, Error> {
        if is_field(name) {
            return self.field_facts(runs, of_heading(name));
        }
        const PARAMS: &str = "SELECT run_id, value FROM params
            WHERE name = ?1 OR substr(name, -length(?1) - 1) = '.' || ?1 ORDER BY name";
        let settings = self.gather(PARAMS, name, |row| Ok(Fact::Text(row.get(1)?)))?;
        if !settings.is_empty() {
            return Ok(settings);
        }
        self.metrics_meant(name)
    }

    /// The one metric of each run that a name means.
    fn metrics_meant(&self, name: &str) -> Result<HashMap<String, Vec<Fact>>, Error> {
        let rows = self.list(&metric_facts(), [name], |row| {
            let found = Found {
                stage: row.get(1)?,
                metric: row.get(3)?,
                value: value(row, 5)?,
            };
            Ok((row.get::<_, String>(0)?, found))
        })?;
        let mut of_runs: HashMap<String, Vec<Found>> = HashMap::new();
        for (run_id, found) in rows {
            of_runs.entry(run_id).or_default().push(found);
        }
        let mut facts = HashMap::new();
        for (run_id, found) in of_runs {
            let judge = match found.len() {
                1 => Judge::default(),
                _ => Judge::of(self.stages(&run_id)?.iter()),
            };
            let names = found.iter().map(|one| (&*one.stage, &*one.metric));
            if let Some(idx) = judge.meant(names, name) {
                facts.insert(run_id, vec![Fact::Number(found[idx].value)]);
            }
        }
        Ok(facts)
    }

    fn field_facts(&self, runs: &[Run], name: &str) -> Result<HashMap<String, Vec<Fact>>, Error> {
        if name == "note" {
            let select = "SELECT run_id, text FROM notes WHERE ?1 = ?1";
            return self.gather(select, name, |row| Ok(Fact::Text(row.get(1)?)));
        }
        let facts = runs.iter().map(|run| (run.id.clone(), field(run, name)));
        Ok(facts.collect())
    }

    fn gather(
        &self,
        select: &str,
        name: &str,
        fact: impl Fn(&Row<'_>) -> rusqlite::Result<Fact>,
    ) -> Result<HashMap<String, Vec<Fact>>, Error> {
        let rows = self.list(select, [name], |row| {
            Ok((row.get::<_, String>(0)?, fact(row)?))
        })?;
        let mut facts: HashMap<String, Vec<Fact>> = HashMap::new();
        for (run_id, fact) in rows {
            facts.entry(run_id).or_default().push(fact);
        }
        Ok(facts)
    }

    /// Every name that a condition could use, with the ends of the long ones.
    fn fact_names(&self) -> Result<HashSet<String>, Error> {
        let mut names: HashSet<String> = FIELDS.iter().map(|&name| name.to_owned()).collect();
        names.extend(["tag".to_owned(), "note".to_owned()]);
        let select = "SELECT DISTINCT name FROM params UNION SELECT DISTINCT name FROM series
            UNION SELECT DISTINCT stages.name || '.' || series.name
            FROM stages JOIN series USING (execution_id)";
        for name in self.texts(select)? {
            let ends = name
                .match_indices('.')
                .map(|(dot, _)| name[dot + 1..].to_owned());
            names.extend(ends);
            names.insert(name);
        }
        Ok(names)
    }

    pub(super) fn search(&self, runs: &[Run], text: &str) -> Result<HashSet<String>, Error> {
        let text = text.to_lowercase();
        let fits = |value: &str| value.to_lowercase().contains(&text);
        let notes = self.list("SELECT run_id, text FROM notes", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let noted = notes
            .into_iter()
            .filter(|(_, note)| fits(note))
            .map(|(run_id, _)| run_id);
        let mut fitting: HashSet<String> = noted.collect();
        for run in runs {
            let values = [&run.name, &run.experiment, &run.file, &run.command];
            if values.into_iter().chain(&run.tags).any(|value| fits(value)) {
                fitting.insert(run.id.clone());
            }
        }
        Ok(fitting)
    }
}

/// Returns the field that a heading stands for, or the name as it is.
fn of_heading(name: &str) -> &str {
    let known = HEADINGS.iter().find(|(heading, _)| *heading == name);
    known.map_or(name, |(_, field)| field)
}

fn is_field(name: &str) -> bool {
    let name = of_heading(name);
    FIELDS.contains(&name) || name == "tag" || name == "note"
}

fn field(run: &Run, name: &str) -> Vec<Fact> {
    let text = |text: &str| Some(Fact::Text(text.to_owned()));
    let time = |at: Millis| {
        let time = chrono::DateTime::from_timestamp_millis(at)?;
        Some(Fact::Text(
            time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        ))
    };
    let fact = match name {
        "id" => text(&run.id),
        "name" => text(&run.name),
        "experiment" => text(&run.experiment),
        "file" => text(&run.file),
        // As text, because a seed of 64 bits is no `f64`.
        "seed" => run.seed.map(|seed| Fact::Text(seed.to_string())),
        "status" => text(run.status.as_str()),
        "started" => time(run.started_at),
        "ended" => run.ended_at.and_then(time),
        "seconds" => run
            .ended_at
            .map(|end| Fact::Number((end - run.started_at) as f64 / 1e3)),
        "device" => text(&run.device),
        "host" => run.host.get("name").and_then(Value::as_str).and_then(text),
        "commit" => run.git_commit.as_deref().and_then(text),
        "dirty" => run
            .git_dirty
            .map(|is_dirty| Fact::Text(is_dirty.to_string())),
        "version" => text(&run.version),
        "command" => text(&run.command),
        "sweep" => run.sweep.as_deref().and_then(text),
        "tag" => return run.tags.iter().map(|tag| Fact::Text(tag.clone())).collect(),
        _ => None,
    };
    fact.into_iter().collect()
}

fn compare(a: &Fact, b: &Fact) -> Ordering {
    match (a.number(), b.number()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.text().cmp(&b.text()),
    }
}

pub(super) fn metric_facts() -> String {
    format!(
        "{FINAL} AND {IS_NO_LOAD} WHERE series.name = ?1 OR stages.name || '.' || series.name = ?1
         OR substr(series.name, -length(?1) - 1) = '.' || ?1
         OR substr(stages.name || '.' || series.name, -length(?1) - 1) = '.' || ?1
         ORDER BY stages.position DESC"
    )
}
