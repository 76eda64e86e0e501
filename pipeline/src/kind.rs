//! A [`Stage`] with its types erased, so that a catalog can be a list.

use std::{fmt, path::Path};

use serde_json::Value;

use crate::{
    content::Content,
    error::StageError,
    forecast::Forecast,
    io::StageIo,
    metrics::Metrics,
    outside::Outside,
    parts::{Collection, Conductor},
    remote::{Pin, Remote},
    role::Roles,
    settings::{Device, Setting, SettingError, Settings, plain},
    spec::keys::Key,
    stage::{FindInput, Stage},
};

type TypeFn = fn(&Value) -> Result<Value, SettingError>;
type ResolveFn = fn(&Value, &Remote, &Outside) -> Result<Pin, StageError>;
type ShowFn = fn(&Path) -> Result<Vec<String>, StageError>;
type ForecastFn = fn(&Value, &FindInput) -> Option<Forecast>;
type ConductFn = fn(&Value, &dyn Conductor) -> Result<Collection, StageError>;
type RunFn = fn(&Value, &Value, &StageIo) -> Result<Metrics, StageError>;

/// A [`Stage`] with its types erased.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub revision: u32,
    pub makes: Content,
    pub metrics: &'static [Key],
    pub roles: Roles,
    pub heavy: bool,
    pub on_device: bool,
    pub seeded: bool,
    pub settings: fn() -> Vec<Setting>,
    pub exclusive: &'static [&'static [&'static str]],
    pub watch: fn() -> Vec<Setting>,
    /// Types settings whose defaults are filled in and returns their canonical form.
    pub canonical: TypeFn,
    /// Types what stands under `watch`.
    pub canonical_watch: TypeFn,
    pub remotes: fn(&Value) -> Vec<Remote>,
    pub resolve: ResolveFn,
    pub show: ShowFn,
    pub forecast: ForecastFn,
    /// The kinds of its parts, if it can be made in parts.
    pub parts: &'static [Kind],
    pub is_in_parts: fn(&Value) -> bool,
    pub conduct: ConductFn,
    pub run: RunFn,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Kind {
    pub const fn of<S: Stage>() -> Self {
        Self {
            name: S::KIND,
            about: S::ABOUT,
            revision: S::REVISION,
            makes: S::MAKES,
            metrics: S::METRICS,
            roles: S::ROLES,
            heavy: S::HEAVY,
            on_device: S::ON_DEVICE,
            seeded: S::SEEDED,
            settings: S::Settings::list,
            exclusive: S::Settings::EXCLUSIVE,
            watch: S::Watch::list,
            canonical: |value| {
                let typed = S::canonical(typed::<S::Settings>(value)?)?;
                Ok(plain(&typed))
            },
            canonical_watch: |value| Ok(plain(&typed::<S::Watch>(value)?)),
            remotes: |value| typed(value).map_or_else(|_| Vec::new(), |s| S::remotes(&s)),
            resolve: |value, remote, outside| S::resolve(&typed(value)?, remote, outside),
            show: S::show,
            forecast: |value, input| S::forecast(&typed(value).ok()?, input),
            parts: &[],
            is_in_parts: |value| typed(value).is_ok_and(|settings| S::is_in_parts(&settings)),
            conduct: |value, conductor| S::conduct(&typed(value)?, conductor),
            run: |settings, watch, io| S::run(&typed(settings)?, &typed(watch)?, io),
        }
    }

    /// The kind with those of its parts.
    #[must_use]
    pub const fn with_parts(mut self, parts: &'static [Kind]) -> Self {
        self.parts = parts;
        self
    }

    /// Returns whether a stage of this kind may tell a number of this name.
    pub fn tells(&self, metric: &str) -> bool {
        let fits = |(known, _): &Key| match known.split_once('*') {
            None => *known == metric,
            Some((start, end)) => {
                let rest = metric.strip_prefix(start);
                rest.is_some_and(|rest| rest.len() > end.len() && rest.ends_with(end))
            }
        };
        self.metrics.iter().any(fits)
    }

    /// Returns where a stage of this kind computes in a run on `asked`.
    pub fn device(&self, asked: Device) -> Device {
        match self.on_device {
            true => asked,
            false => Device::Cpu,
        }
    }
}

/// Returns `value` as settings of type `S`, or which setting is wrong.
pub fn typed<S: Settings>(value: &Value) -> Result<S, SettingError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        SettingError::new(path, error.into_inner().to_string())
    })
}
