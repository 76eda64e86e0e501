//! The keys of an experiment file that belong to no kind, with what each is for: for checks,
//! corrections, the reference of the language and its schema.

/// A key, and what it is for.
pub type Key = (&'static str, &'static str);

/// The keys at the top of a file.
pub const FILE_KEYS: [Key; 10] = [
    (
        "name",
        "The experiment's name in listings and reports; without it, that of the file.",
    ),
    (
        "headline",
        "The metric that a run is judged by, as `STAGE.METRIC`; without it, bits per byte of the last model, or the \
         best that there is.",
    ),
    (
        "seed",
        "The seed of everything that draws random numbers. A part of the key of each such stage.",
    ),
    (
        "extends",
        "Another experiment file, which this one changes: stages of the same name are merged setting by setting.",
    ),
    (
        "use",
        "Other experiment files by a name of your choosing: their stages are read as `NAME.STAGE`.",
    ),
    (
        "vars",
        "Values that stand in several places: `${NAME}` in a value is replaced.",
    ),
    (
        "sweep",
        "Lists of values by setting, as `STAGE.path.to.setting`, `vars.NAME` or `seed`: one run for each combination.",
    ),
    (
        "watch",
        "What is written while it runs, for other programs to look at: it changes no byte and no key.",
    ),
    (
        "without",
        "Stages that are left out, such as a source that wants an account: they leave the lists of all others, and \
         what has lost all that filled one of its roles goes too. `-S without=NAME` adds to them, `-S without=null` \
         leaves out none.",
    ),
    ("stages", "The stages by their names."),
];

/// The keys under `watch` at the top of a file.
pub const WATCH_KEYS: [Key; 1] = [(
    "tensorboard",
    "A folder for TensorBoard, which may look on: every number and sample, in a folder a run and stage.",
)];

/// The keys of a stage.
pub const STAGE_KEYS: [Key; 7] = [
    ("kind", "What it does: one of the kinds."),
    (
        "inputs",
        "The stages that it reads: a list where they all fill one role, else a map of role to stage.",
    ),
    ("with", "The settings that decide its bytes."),
    (
        "watch",
        "Settings of what is only looked at while it works: they change no byte and no key.",
    ),
    (
        "retries",
        "How often it is tried again when it fails for a reason that may pass.",
    ),
    (
        "timeout",
        "The longest time that it may work, such as `90s`, `10m` or `1h30m`.",
    ),
    (
        "resources",
        "What it asks of a scheduler (`--executor slurm`): it changes no byte and no key.",
    ),
];

/// The keys under `resources` of a stage.
pub const RESOURCE_KEYS: [Key; 6] = [
    ("cpus", "Processors; it works with as many threads."),
    (
        "memory",
        "Memory, such as `32G`; of a span such as `32G..128G` twice as much is asked for after it was not enough.",
    ),
    (
        "time",
        "The longest time, such as `4h`, or a span. Before it is up, a training saves a checkpoint and goes on in \
         another allocation.",
    ),
    ("gpus", "GPUs."),
    (
        "nodes",
        "Machines that share a training, whose `train` says into how many `leaves` a step is divided.",
    ),
    (
        "ranks",
        "Processes that share it on each machine, also without a scheduler: any number of them makes the same bytes.",
    ),
];

/// Returns the names of keys.
pub fn names(keys: &[Key]) -> impl Iterator<Item = &'static str> + Clone {
    keys.iter().map(|(name, _)| *name)
}
