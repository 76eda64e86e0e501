//! Kinds that do nothing, with settings of every shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    choices,
    content::Content,
    error::StageError,
    io::StageIo,
    kind::Kind,
    metrics::Metrics,
    role::{Role, Roles},
    settings,
    settings::{LocalPath, NoSettings, SettingError, Settings, Shape, Shaped},
    stage::Stage,
};

pub(super) const CATALOG: &[Kind] = &[
    Kind::of::<Download>(),
    Kind::of::<Normalize>(),
    Kind::of::<Tokenizer>(),
    Kind::of::<Binarize>(),
    Kind::of::<Pretrain>(),
    Kind::of::<Evaluate>(),
    Kind::of::<Command>(),
];

settings! {
    #[exclusive("hub", "path", "url", "rows")]
    pub(super) struct DownloadSettings {
        /// A dataset of the hub.
        pub hub: Option<String> = None,
        /// A file, folder or glob.
        pub path: Option<LocalPath> = None,
        /// An address.
        pub url: Option<String> = None,
        /// The rows themselves.
        pub rows: Option<Vec<Value>> = None,
    }
}

choices! {
    pub enum Template {
        ChatMl = "chatml",
        StartEnd = "start-end",
    }
}

settings! {
    pub(super) struct NormalizeSettings {
        /// How a dialogue is written.
        pub template: Template = Template::ChatMl,
        /// Names of the author's choosing.
        pub renames: BTreeMap<String, String> = BTreeMap::new(),
        /// Rules, each with its own settings.
        pub rules: Vec<Rule> = Vec::new(),
        /// Keep what is wrong.
        pub lenient: bool = false,
    }
}

settings! {
    pub(super) struct Rule {
        /// The text to find.
        pub find: String,
        /// How often.
        pub times: usize = 1,
    }
}

settings! {
    pub(super) struct TokenizerSettings {
        /// How many tokens.
        pub vocab_size: u16 = 4096,
        /// Files of its own.
        pub files: Vec<LocalPath> = Vec::new(),
    }
}

settings! {
    pub(super) struct BinarizeSettings {
        /// The share held back.
        pub validation: f64 = 0.02,
    }
}

settings! {
    #[exclusive("preset", "layers")]
    pub(super) struct ModelSettings {
        /// A known size.
        pub preset: Option<String> = None,
        /// Its own size.
        pub layers: Option<usize> = None,
    }
}

/// A type with words and a typing of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Warmup(Value);

impl Shaped for Warmup {
    fn shape() -> Shape {
        Shape::Own("number, or a share such as 30%", "{}")
    }
}

impl TryFrom<Value> for Warmup {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::Number(_) => Ok(Self(value)),
            Value::String(text) if text.ends_with('%') => Ok(Self(value)),
            _ => Err("data did not match any variant".to_owned()),
        }
    }
}

settings! {
    pub(super) struct TrainSettings {
        /// Passes over the data.
        pub epochs: f64 = 1.0,
        /// The learning rate.
        pub lr: f64 = 1e-3,
        /// Rows of a step.
        #[range(0, 4096)]
        pub batch: usize = 32,
        /// A number of steps or a share of them.
        pub warmup: Warmup = Warmup(Value::from(0)),
    }
}

settings! {
    pub(super) struct PretrainSettings {
        /// What is trained.
        pub model: ModelSettings = ModelSettings { preset: None, layers: None },
        /// How it is trained.
        pub train: TrainSettings =
            TrainSettings { epochs: 1.0, lr: 1e-3, batch: 32, warmup: Warmup(Value::from(0)) },
        /// In place of the file's.
        pub seed: Option<u64> = None,
    }
}

settings! {
    pub(super) struct PretrainWatch {
        /// Prompts answered on the way.
        pub samples: Vec<String> = Vec::new(),
        /// How many are kept.
        pub keep_checkpoints: usize = 2,
    }
}

settings! {
    pub(super) struct CommandSettings {
        /// The program.
        pub run: Vec<String>,
        /// What it makes.
        pub outputs: Vec<String>,
        /// Its own files.
        pub files: Vec<LocalPath> = Vec::new(),
    }
}

macro_rules! stages {
    ($($stage:ident $name:literal $makes:ident $settings:ty, $watch:ty, $roles:expr, $seeded:literal $(, $canonical:path)?;)+) => {$(
        pub(super) struct $stage;

        impl Stage for $stage {
            type Settings = $settings;
            type Watch = $watch;

            const KIND: &'static str = $name;
            const ABOUT: &'static str = "A stage of a test.";
            const REVISION: u32 = 1;
            const MAKES: Content = Content::$makes;
            const ROLES: Roles = $roles;
            const SEEDED: bool = $seeded;

            $(fn canonical(settings: Self::Settings) -> Result<Self::Settings, SettingError> {
                $canonical(settings)
            })?

            fn run(_: &Self::Settings, _: &Self::Watch, _: &StageIo) -> Result<Metrics, StageError> {
                Ok(Metrics::default())
            }
        }
    )+};
}

stages! {
    Download "download" Files DownloadSettings, NoSettings, Roles::Fixed(&[]), false;
    Normalize "normalize" Documents NormalizeSettings, NoSettings,
        Roles::Fixed(&[Role::many("sources", "what is read")]), false;
    Tokenizer "tokenizer" Tokenizer TokenizerSettings, NoSettings,
        Roles::Fixed(&[Role::one("documents", "what it is trained on").optional().takes(&[Content::Documents])]), false;
    Binarize "binarize" Shards BinarizeSettings, NoSettings,
        Roles::Fixed(&[
            Role::one("documents", "the text").takes(&[Content::Documents]),
            Role::one("tokenizer", "what cuts it").takes(&[Content::Tokenizer]),
            Role::one("validation", "an official split").optional().takes(&[Content::Documents]),
        ]), false;
    Pretrain "pretrain" Model PretrainSettings, PretrainWatch,
        Roles::Fixed(&[Role::one("shards", "the tokens").takes(&[Content::Shards])]), true, canonical_pretrain;
    Evaluate "evaluate" Figures NoSettings, NoSettings,
        Roles::Fixed(&[
            Role::one("model", "what is measured").takes(&[Content::Model]),
            Role::one("shards", "what it is measured on").takes(&[Content::Shards]),
        ]), false;
    Command "command" Anything CommandSettings, NoSettings, Roles::Any, false;
}

fn canonical_pretrain(settings: PretrainSettings) -> Result<PretrainSettings, SettingError> {
    if settings.train.lr <= 0.0 {
        return Err(SettingError::new("train.lr", "must be above 0").help("try `1e-3`"));
    }
    Ok(settings)
}

/// The names of every setting, which the fuzzing tests draw from.
pub(super) fn setting_names() -> Vec<&'static str> {
    let train = TrainSettings::list();
    let names = CATALOG.iter().flat_map(|kind| (kind.settings)());
    names.chain(train).map(|setting| setting.name).collect()
}
