//! The folder through which a driver and its job speak, on a file system that both see.
//!
//! | name | written by | is |
//! |---|---|---|
//! | `job.json` | driver | the order, and the key record that it is to become |
//! | `submission-N.json`, `.id` | driver | what was asked of the scheduler, and its answer |
//! | `reports/N-R-S.jsonl` | job | what submission N, started anew R times, said S-th |
//! | `stop`, `stop-now` | driver | a wish |
//! | `heard` | driver | the last of the reports that a driver has passed on |
//!
//! Two machines see one folder through caches of their own: a name that was looked up before it was
//! there may stay absent for a minute, and a file that grows may stay short. So nothing is looked up
//! by name that the other side makes: folders are listed, every file comes whole by a rename, and none
//! is ever changed.

use std::{collections::VecDeque, fs, time::Duration, time::Instant};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tinylm_registry::{KeyRecord, Place};

use crate::{
    commit::Draft, error::StageError, event::Event, order::Order, processes::child::log_tail,
    resources::Resources, usage::Usage,
};

/// How often the folders of jobs are listed for reports.
pub(crate) const LIST_EVERY: Duration = Duration::from_millis(500);

/// Takes what the scheduler and the job itself print.
pub(crate) const OUTPUT: &str = "slurm.out";

/// A report that was passed on is kept this long, since whoever it was passed to may not have written
/// it down yet.
const KEPT: Duration = Duration::from_secs(10);

/// All that a job needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobFile {
    pub(crate) order: Order,
    pub(crate) draft: Draft,
    pub(crate) resources: Resources,
}

/// A folder that goes with the last who holds it.
pub(crate) struct Temporary(pub(crate) Place);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Left over, it is `gc`'s.
        self.0.remove().ok();
    }
}

/// One call of `sbatch` for a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Submission {
    pub(crate) number: u32,
    pub(crate) resources: Resources,
    /// The mark of the pool that it is in; alone it has a mark of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pool: Option<String>,
    /// The mark of the array that it is in, and its task there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task: Option<String>,
    /// The scheduler's name for it, once it is known.
    #[serde(skip)]
    pub(crate) id: Option<String>,
}

/// The mark of a submission, by which it is found when `sbatch`'s answer was lost.
pub(crate) fn mark(execution_id: &str, submission: u32) -> String {
    format!("tinylm:{execution_id}:{submission}")
}

impl Submission {
    /// The mark of the job that it is in.
    pub(crate) fn mark(&self, execution_id: &str) -> String {
        let own = || mark(execution_id, self.number);
        let shared = self.pool.as_ref().or(self.task.as_ref());
        shared.cloned().unwrap_or_else(own)
    }
}

/// A line of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Began {
        node: String,
        /// The scheduler's name of it, which a driver may not have been told.
        #[serde(default)]
        job: Option<String>,
    },
    Said(Event),
    Ended {
        last: Last,
        usage: Usage,
    },
}

/// The last word of a submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Last {
    Committed(Box<KeyRecord>),
    Failed(StageError),
    Died(StageError),
    OutOfMemory(StageError),
    OutOfTime,
    /// Its node was wanted for another job before there was anything to go on from.
    Taken,
}

/// The folder of one job.
#[derive(Debug, Clone)]
pub(crate) struct JobFolder {
    place: Place,
}

impl JobFolder {
    pub(crate) fn new(place: Place) -> Self {
        Self { place }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    fn reports(&self) -> Place {
        self.place.below("reports")
    }

    /// Writes all that the job needs; the folder is ready then.
    pub(crate) fn prepare(&self, job: &JobFile) -> Result<(), StageError> {
        // An order may hold an address with a password in it.
        self.place.make_private()?;
        self.reports().create_folder()?;
        self.write("job.json", job)
    }

    pub(crate) fn job(&self) -> Result<JobFile, StageError> {
        read(&self.place.below("job.json"))
    }

    /// Returns whether a driver has made this a job's folder.
    pub(crate) fn is_one(&self) -> bool {
        self.place.below("job.json").is_file()
    }

    /// The end of what the scheduler wrote of the job, once it has written anything.
    pub(crate) fn output_tail(&self) -> String {
        let names = self.names(&self.place).unwrap_or_default();
        match names.iter().any(|name| name == OUTPUT) {
            true => log_tail(&self.place.join(OUTPUT)),
            false => String::new(),
        }
    }

    /// The checkpoints that starts of this job have saved. One that is being written has another name
    /// until it is whole.
    pub(crate) fn saved(&self) -> Vec<String> {
        let saved = self
            .names(&self.place.parent().below("checkpoints"))
            .unwrap_or_default();
        saved
            .into_iter()
            .filter(|name| name.starts_with("step-"))
            .collect()
    }

    /// Writes down what is about to be asked of the scheduler.
    pub(crate) fn submit(&self, submission: &Submission) -> Result<(), StageError> {
        self.write(
            &format!("submission-{}.json", submission.number),
            submission,
        )
    }

    pub(crate) fn submitted(&self, number: u32, id: &str) -> Result<(), StageError> {
        let place = self.place.below(format!("submission-{number}.id"));
        Ok(place.write_atomic(id.as_bytes())?)
    }

    /// Returns the last submission, if there was any.
    pub(crate) fn last_submission(&self) -> Result<Option<Submission>, StageError> {
        let names = self.names(&self.place)?;
        let number = |name: &String| {
            name.strip_prefix("submission-")?
                .strip_suffix(".json")?
                .parse::<u32>()
                .ok()
        };
        let Some(number) = names.iter().filter_map(number).max() else {
            return Ok(None);
        };
        let mut submission: Submission =
            read(&self.place.below(format!("submission-{number}.json")))?;
        submission.id =
            fs::read_to_string(self.place.below(format!("submission-{number}.id"))).ok();
        Ok(Some(submission))
    }

    /// Asks the job to stop.
    pub(crate) fn wish(&self, wish: Wished) -> Result<(), StageError> {
        Ok(self.place.below(wish.name()).write_atomic(b"")?)
    }

    /// Returns what the driver wishes. One that took the folder away wants no more of the job.
    pub(crate) fn wished(&self) -> Option<Wished> {
        let names = self.names(&self.place).ok()?;
        if !names.iter().any(|name| name == "job.json") {
            return Some(Wished::StopNow);
        }
        let is_there = |wish: &Wished| names.iter().any(|name| name == wish.name());
        [Wished::StopNow, Wished::Stop].into_iter().find(is_there)
    }

    /// Takes back a wish that was of an earlier submission.
    pub(crate) fn forget_wishes(&self) -> Result<(), StageError> {
        for wish in [Wished::Stop, Wished::StopNow] {
            self.place.below(wish.name()).remove()?;
        }
        Ok(())
    }

    /// Returns the last word of the job as far as it can be seen: that of a submission, or that it is done.
    pub(crate) fn last_word(&self, submission: u32) -> Result<Option<Last>, StageError> {
        for name in self.names(&self.reports())? {
            for line in self.report(&name)? {
                match line {
                    Line::Ended { last, .. }
                        if matches!(last, Last::Committed(_))
                            || number_of(&name) == Some(submission) =>
                    {
                        return Ok(Some(last));
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }

    /// How many reports are there to be read.
    pub(crate) fn n_reports(&self) -> Result<usize, StageError> {
        self.names(&self.reports()).map(|names| names.len())
    }

    /// Returns how often reports were begun for this submission.
    pub(crate) fn n_begun(&self, submission: u32) -> Result<u32, StageError> {
        let names = self.names(&self.reports())?;
        let of_it = names.iter().filter_map(|name| {
            let mut parts = name.split('-');
            let (number, restart) = (
                parts.next()?.parse::<u32>().ok()?,
                parts.next()?.parse::<u32>().ok()?,
            );
            (number == submission).then_some(restart + 1)
        });
        Ok(of_it.max().unwrap_or(0))
    }

    pub(crate) fn write_report(
        &self,
        name: &str,
        lines: &[Line],
        is_last: bool,
    ) -> Result<(), StageError> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)
                .map_err(|error| unwritable(&self.place, &error))?;
            text.push(b'\n');
        }
        let place = self.reports().below(name);
        // Only the last word must outlive a crash of its machine.
        Ok(if is_last {
            place.write_atomic(&text)
        } else {
            place.replace(&text)
        }?)
    }

    fn report(&self, name: &str) -> Result<Vec<Line>, StageError> {
        let place = self.reports().below(name);
        let text = match fs::read(&place) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StageError::io(&place, &error)),
        };
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(|error| unreadable(&place, &error)))
            .collect()
    }

    /// The whole files of a folder, in the order of their names.
    fn names(&self, folder: &Place) -> Result<Vec<String>, StageError> {
        let entries = folder.list()?;
        let names = entries
            .iter()
            .filter_map(|entry| entry.file_name()?.to_str());
        Ok(names
            .filter(|name| !name.starts_with('.'))
            .map(str::to_owned)
            .collect())
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), StageError> {
        let place = self.place.below(name);
        let text = serde_json::to_vec(value).map_err(|error| unwritable(&place, &error))?;
        Ok(place.write_atomic(&text)?)
    }
}

/// What a driver may wish of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wished {
    Stop,
    StopNow,
}

impl Wished {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::StopNow => "stop-now",
        }
    }
}

/// Reads a job's reports, each once.
pub(crate) struct Reader {
    folder: JobFolder,
    last: String,
    /// What an earlier driver passed on: of that, only numbers are told again.
    heard: String,
    read: VecDeque<(Instant, Place)>,
    /// How long a report stays that was passed on.
    kept: Duration,
}

impl Reader {
    pub(crate) fn new(folder: JobFolder) -> Self {
        let heard = fs::read_to_string(folder.place.below("heard")).unwrap_or_default();
        Self {
            folder,
            last: String::new(),
            heard,
            read: VecDeque::new(),
            kept: KEPT,
        }
    }

    /// Returns the lines that are new.
    pub(crate) fn news(&mut self) -> Result<Vec<Line>, StageError> {
        let mut news = Vec::new();
        for name in self.folder.names(&self.folder.reports())? {
            if name <= self.last {
                continue;
            }
            let lines = self.folder.report(&name)?;
            let was_heard = name <= self.heard;
            let is_last = lines.iter().any(|line| matches!(line, Line::Ended { .. }));
            news.extend(
                lines
                    .into_iter()
                    .filter(|line| !was_heard || counts_twice(line)),
            );
            if !is_last {
                self.read
                    .push_back((Instant::now(), self.folder.reports().below(&name)));
            }
            self.last = name;
        }
        if !news.is_empty() {
            self.folder
                .place
                .below("heard")
                .replace(self.last.as_bytes())?;
        }
        self.tidy();
        Ok(news)
    }

    /// Removes what has long been passed on, so that a training of days leaves no thousands of files.
    /// The last one stays: by it the next start of the job knows that it is another.
    fn tidy(&mut self) {
        let is_old = |(read, _): &mut (Instant, Place)| read.elapsed() > self.kept;
        while self.read.len() > 1
            && let Some((_, report)) = self.read.pop_front_if(is_old)
        {
            report.remove().ok();
        }
    }
}

/// Whether a line that is passed on twice is recorded once.
fn counts_twice(line: &Line) -> bool {
    match line {
        Line::Ended { .. } | Line::Began { .. } => true,
        Line::Said(event) => !matches!(
            event,
            Event::Info { .. } | Event::Note { .. } | Event::Warning { .. } | Event::Sample { .. }
        ),
    }
}

/// The submission whose report this is.
fn number_of(name: &str) -> Option<u32> {
    name.split('-').next()?.parse().ok()
}

/// The name of a report.
pub(crate) fn report_name(submission: u32, restart: u32, n: u32) -> String {
    format!("{submission:04}-{restart:04}-{n:07}.jsonl")
}

pub(crate) fn read<T: DeserializeOwned>(place: &Place) -> Result<T, StageError> {
    let text = fs::read(place).map_err(|error| StageError::io(place, &error))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(place, &error))
}

fn unreadable(place: &Place, error: &serde_json::Error) -> StageError {
    StageError::new(format!("`{}` cannot be read", place.display())).cause(error)
}

pub(crate) fn unwritable(place: &Place, error: &serde_json::Error) -> StageError {
    StageError::new(format!("`{}` cannot be written", place.display())).cause(error)
}

#[cfg(test)]
mod tests {
    use tinylm_registry::{Digest, Home};

    use super::*;

    fn folder() -> (tempfile::TempDir, JobFolder) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let place = home.attempt_dir(&Digest::of_bytes(b"key"), "execution");
        (dir, JobFolder::new(place))
    }

    fn metric(step: u64) -> Line {
        let name = "loss".to_owned();
        Line::Said(Event::Metric {
            name,
            step: Some(step),
            value: 1.0,
            at: 0,
        })
    }

    fn info() -> Line {
        let message = "hello".to_owned();
        Line::Said(Event::Info { message })
    }

    fn ended(last: Last) -> Line {
        Line::Ended {
            last,
            usage: Usage::default(),
        }
    }

    #[test]
    fn nobody_else_may_read_an_order() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, folder) = folder();
        folder.place.make_private().unwrap();
        let mode = fs::metadata(&folder.place).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn reports_are_read_once_each_and_in_order_and_those_of_an_earlier_start_no_more() {
        let (_dir, folder) = folder();
        folder
            .write_report(&report_name(1, 0, 0), &[metric(1)], false)
            .unwrap();
        let mut reader = Reader::new(folder.clone());
        assert_eq!(reader.news().unwrap(), [metric(1)]);
        folder
            .write_report(&report_name(1, 1, 0), &[metric(2)], false)
            .unwrap();
        assert_eq!(reader.news().unwrap(), [metric(2)]);
        // A node that was only out of sight speaks again.
        folder
            .write_report(&report_name(1, 0, 1), &[metric(9)], false)
            .unwrap();
        assert_eq!(reader.news().unwrap(), []);
        assert_eq!(folder.n_begun(1).unwrap(), 2);
        assert_eq!(folder.n_begun(2).unwrap(), 0);
    }

    #[test]
    fn what_was_passed_on_goes_but_the_next_start_still_knows_that_it_is_another() {
        let (_dir, folder) = folder();
        let mut reader = Reader::new(folder.clone());
        reader.kept = Duration::ZERO;
        for n in 0..5 {
            folder
                .write_report(&report_name(1, 0, n), &[metric(n.into())], false)
                .unwrap();
            reader.news().unwrap();
        }
        assert_eq!(
            folder.names(&folder.reports()).unwrap(),
            [report_name(1, 0, 4)]
        );
        assert_eq!(folder.n_begun(1).unwrap(), 1);
    }

    #[test]
    fn a_second_driver_hears_numbers_again_and_words_once() {
        let (_dir, folder) = folder();
        folder
            .write_report(&report_name(1, 0, 0), &[info(), metric(1)], false)
            .unwrap();
        assert_eq!(Reader::new(folder.clone()).news().unwrap().len(), 2);
        folder
            .write_report(&report_name(1, 0, 1), &[info(), metric(2)], false)
            .unwrap();
        let news = Reader::new(folder).news().unwrap();
        assert_eq!(news, [metric(1), info(), metric(2)]);
    }

    #[test]
    fn the_last_word_is_that_of_a_submission_and_done_is_done_for_all() {
        let (_dir, folder) = folder();
        folder
            .write_report(&report_name(1, 0, 0), &[ended(Last::OutOfTime)], true)
            .unwrap();
        assert_eq!(folder.last_word(1).unwrap(), Some(Last::OutOfTime));
        assert_eq!(folder.last_word(2).unwrap(), None);
    }

    #[test]
    fn a_wish_is_seen_until_it_is_forgotten_and_a_folder_that_is_gone_is_one() {
        let (_dir, folder) = folder();
        assert_eq!(folder.wished(), Some(Wished::StopNow), "there is no job");
        folder.place.below("job.json").write_atomic(b"{}").unwrap();
        assert_eq!(folder.wished(), None);
        folder.wish(Wished::Stop).unwrap();
        assert_eq!(folder.wished(), Some(Wished::Stop));
        folder.wish(Wished::StopNow).unwrap();
        assert_eq!(folder.wished(), Some(Wished::StopNow));
        folder.forget_wishes().unwrap();
        assert_eq!(folder.wished(), None);
    }

    #[test]
    fn a_submission_is_known_by_what_was_asked_also_where_the_answer_was_lost() {
        let (_dir, folder) = folder();
        assert_eq!(folder.last_submission().unwrap(), None);
        for number in [1, 2, 10] {
            folder
                .submit(&Submission {
                    number,
                    resources: Resources::default(),
                    pool: None,
                    task: None,
                    id: None,
                })
                .unwrap();
        }
        folder.submitted(2, "17").unwrap();
        let last = folder.last_submission().unwrap().unwrap();
        assert_eq!((last.number, last.id), (10, None));
    }
}
