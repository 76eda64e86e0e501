//! Many jobs by one question: the parts of a stage as an array job.
//!
//! Each part has a folder as any job; the array's own folder has only the list that says which task carries
//! out which. Whoever brings the last of those that come together asks the scheduler for all, and whoever
//! has waited a moment in vain for the others asks for those that came: a part may turn out to be made
//! already, and then it never comes. What is about to be asked is written down before, as for one job, and
//! found again by the array's mark and the task's number.
//!
//! A task that has to be submitted again is so alone.

use std::{
    collections::HashMap,
    env, fs,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tinylm_registry::{Home, names};

use super::{
    commands::{self, Submitted},
    folder::{OUTPUT, Temporary, mark, read, unwritable},
    node,
    pool::{Entry, pool_at},
    site::Asked,
    tracked::Tracked,
};
use crate::{error::StageError, executor::Together};

/// So long after the last that came one waits for others that were said to come. All do, unless one is found to be
/// made already; each has folders to make first, which may take its time.
const QUIET: Duration = Duration::from_secs(3);
/// So often one looks whether that has passed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const LIST: &str = "tasks.json";

/// The arrays that are being put together.
#[derive(Default)]
pub(crate) struct Arrays(Mutex<HashMap<String, Arc<Array>>>);

struct Array {
    mark: String,
    folder: Arc<Temporary>,
    state: Mutex<State>,
    bell: Condvar,
}

struct State {
    tasks: Vec<Entry>,
    last_came: Instant,
    is_closed: bool,
    /// What the scheduler said.
    answer: Option<Submitted>,
}

impl Arrays {
    /// Submits a job together with others; returns once the scheduler was asked.
    pub(crate) fn submit(
        &self,
        home: &Home,
        tracked: &mut Tracked,
        together: &Together,
        asked: &Asked,
    ) -> Result<(), StageError> {
        let (array, task) = self.join(home, tracked, together)?;
        tracked.keep(Arc::clone(&array.folder));
        let mut state = array.state();
        loop {
            if let Some(answer) = state.answer.clone() {
                drop(state);
                return tracked.submitted(task_of(answer, task));
            }
            let waited = state.last_came.elapsed();
            let is_full = state.tasks.len() == together.n;
            if !state.is_closed && (is_full || waited >= QUIET) {
                state.is_closed = true;
                let tasks = state.tasks.clone();
                drop(state);
                self.forget(&together.name, &array);
                let answer = array.ask(&tasks, tracked, together, asked);
                state = array.state();
                state.answer = Some(answer);
                array.bell.notify_all();
                continue;
            }
            let wait = array.bell.wait_timeout(state, LOOK_EVERY);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the next place in the array that is being put together.
    fn join(
        &self,
        home: &Home,
        tracked: &mut Tracked,
        together: &Together,
    ) -> Result<(Arc<Array>, usize), StageError> {
        let mut arrays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = arrays.get(&together.name).cloned();
        if let Some(array) = known
            && let Some(task) = array.take_place(tracked)?
        {
            return Ok((array, task));
        }
        let array = Arc::new(Array::new(home)?);
        arrays.insert(together.name.clone(), Arc::clone(&array));
        match array.take_place(tracked)? {
            Some(task) => Ok((array, task)),
            None => Err(StageError::new(
                "nobody has seen the array, and it is closed",
            )),
        }
    }

    fn forget(&self, name: &str, array: &Arc<Array>) {
        let mut arrays = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if arrays
            .get(name)
            .is_some_and(|known| Arc::ptr_eq(known, array))
        {
            arrays.remove(name);
        }
    }
}

impl Array {
    fn new(home: &Home) -> Result<Self, StageError> {
        let name = names::new_id();
        let place = home.pools().below(&name);
        place.create_folder()?;
        Ok(Self {
            mark: mark(&format!("array-{name}"), 1),
            folder: Arc::new(Temporary(place)),
            state: Mutex::new(State {
                tasks: Vec::new(),
                last_came: Instant::now(),
                is_closed: false,
                answer: None,
            }),
            bell: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the task that a job becomes; none where the list is closed.
    fn take_place(&self, tracked: &mut Tracked) -> Result<Option<usize>, StageError> {
        let mut state = self.state();
        if state.is_closed {
            return Ok(None);
        }
        let task = state.tasks.len();
        let entry = tracked.join(format!("{}/{task}", self.mark))?;
        state.tasks.push(entry);
        state.last_came = Instant::now();
        Ok(Some(task))
    }

    fn ask(
        &self,
        tasks: &[Entry],
        tracked: &Tracked,
        together: &Together,
        asked: &Asked,
    ) -> Submitted {
        let place = &self.folder.0;
        let list = place.below(LIST);
        let written = serde_json::to_vec(tasks)
            .map_err(|error| unwritable(&list, &error))
            .and_then(|text| Ok(list.write_atomic(&text)?));
        if let Err(error) = written {
            return Submitted::Refused(error.to_string());
        }
        let name = tracked.name_of_all();
        let output = place.join("%a.out");
        let mut flags = commands::usual_flags(&name, &self.mark, &output);
        let last = tasks.len().saturating_sub(1);
        flags.push(format!("--array=0-{last}%{}", together.at_once.max(1)));
        flags.extend(tracked.flags(asked));
        let words = format!(
            "exec-array {}",
            commands::quoted(&place.display().to_string())
        );
        let script = commands::script(&asked.site, &asked.program, &words);
        commands::submit(&flags, &script)
    }
}

/// A task's own name, as the scheduler has it.
fn task_of(answer: Submitted, task: usize) -> Submitted {
    match answer {
        Submitted::Job(id) => Submitted::Job(format!("{id}_{task}")),
        other => other,
    }
}

/// Carries out the task of an array that this job is; returns the exit code.
pub fn exec_array(program: &Path, folder: &Path) -> Result<i32, StageError> {
    let place = pool_at(folder)?;
    let tasks: Vec<Entry> = read(&place.below(LIST))?;
    let task = env::var("SLURM_ARRAY_TASK_ID").ok();
    let number = task.as_ref().and_then(|task| task.parse::<usize>().ok());
    let Some(entry) = number.and_then(|number| tasks.get(number)) else {
        let message = format!("`{}` has no task {task:?}", folder.display());
        return Err(StageError::new(message).is_final());
    };
    // What the scheduler writes about this task is then found with the job's own folder.
    let output = place.join(format!("{}.out", number.unwrap_or_default()));
    fs::hard_link(output, entry.folder.join(OUTPUT)).ok();
    node::exec_job(program, &entry.folder, entry.submission)
}
