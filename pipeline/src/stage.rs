//! A stage kind: data in, data out.
//!
//! A kind declares its settings, the roles it reads and a `REVISION` that stands for
//! its code, and does its work in `run`, which sees the world only through
//! [`StageIo`]. It knows neither the graph nor the registry, so a test, a child process
//! and a job on another machine can all run it.

use std::path::Path;

use crate::{
    content::Content,
    error::StageError,
    forecast::{Ahead, Forecast},
    io::StageIo,
    metrics::Metrics,
    outside::Outside,
    parts::{Collection, Conductor},
    remote::{Pin, Remote},
    role::Roles,
    settings::{SettingError, Settings},
    spec::keys::Key,
};

/// Finds what is known of the stages that fill a role.
pub type FindInput<'a> = dyn Fn(&str) -> Ahead + 'a;

/// The part that the author of a kind writes.
pub trait Stage: 'static {
    type Settings: Settings;
    /// Settings that only look at the work: never in the key. Use `NoSettings` where there is nothing.
    type Watch: Settings;

    const KIND: &'static str;
    /// One line for `tinylm stages`.
    const ABOUT: &'static str;
    /// Raised when the same recipe would now make other bytes.
    const REVISION: u32;
    /// The sort of artifact it writes.
    const MAKES: Content;
    /// The numbers it tells and what each says, `*` for a part of a name that the data decides.
    const METRICS: &'static [Key] = &[];
    /// The first role is the one that a plain list of inputs fills.
    const ROLES: Roles;
    /// Heavy kinds run one at a time per device.
    const HEAVY: bool = false;
    /// Whether it computes on the device that was asked for; all others compute on the CPU.
    const ON_DEVICE: bool = false;
    /// Whether the seed is part of the recipe.
    const SEEDED: bool = false;

    /// Returns the settings with everything that follows from others spelled out
    /// (a preset's fields), or says which cannot be.
    fn canonical(settings: Self::Settings) -> Result<Self::Settings, SettingError> {
        Ok(settings)
    }

    /// Returns the sources outside this machine that these settings read.
    fn remotes(_settings: &Self::Settings) -> Vec<Remote> {
        Vec::new()
    }

    /// Asks the outside what `remote` is now. Called once; the answer is kept in the lock file.
    fn resolve(
        _settings: &Self::Settings,
        remote: &Remote,
        _outside: &Outside,
    ) -> Result<Pin, StageError> {
        Err(StageError::new(format!(
            "nothing here can resolve `{}`",
            remote.id
        )))
    }

    /// Returns lines of an artifact in which a person sees what was made, for `tinylm show`.
    fn show(_artifact: &Path) -> Result<Vec<String>, StageError> {
        Ok(Vec::new())
    }

    /// Returns what the stage would make and take, for `tinylm plan -v`, if its kind can tell.
    fn forecast(_settings: &Self::Settings, _input: &FindInput) -> Option<Forecast> {
        None
    }

    /// Whether these settings ask for parts. Then `conduct` is called and `run` is not.
    fn is_in_parts(_settings: &Self::Settings) -> bool {
        false
    }

    /// Has its parts made, and says what they add up to. What it does must depend on the settings and on
    /// the parts alone; it may read their small files and should not read their large ones.
    fn conduct(
        _settings: &Self::Settings,
        _conductor: &dyn Conductor,
    ) -> Result<Collection, StageError> {
        let message = format!("`{}` is not made in parts", Self::KIND);
        Err(StageError::new(message).is_final())
    }

    /// Does the work: reads `io`'s inputs, writes into `io.out()`.
    fn run(
        settings: &Self::Settings,
        watch: &Self::Watch,
        io: &StageIo,
    ) -> Result<Metrics, StageError>;
}
