//! `tinylm serve`: models answer through OpenAI's API.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use clap::{Args, builder::NonEmptyStringValueParser};
use tinylm_model::{config::ReadPrecision, folder::Which};
use tinylm_pipeline::sys::give_back_freed_memory;
use tinylm_serve::{Options, Served, serve};

use crate::{
    completions,
    device::device,
    failure::Failure,
    manner::{at_least_one, choice, n_threads},
    model,
    output::say,
    project::Project,
    signals::end_as_first_process,
};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// RUN, RUN/STAGE, RUN/STAGE@STEP or model folders; requests call them as they are written here
    #[arg(required = true, add = completions::models())]
    pub(crate) models: Vec<String>,
    /// Where it listens; 0 is any free port
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// Who can reach it: this machine alone, or with 0.0.0.0 everybody on the network
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Only requests with this key are answered
    #[arg(
        long,
        value_name = "KEY",
        env = "TINYLM_API_KEY",
        hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new()
    )]
    api_key: Option<String>,
    /// Answers of a model that are made at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    slots: usize,
    /// Requests that may wait for a place; those beyond are told to come again
    #[arg(long, value_name = "N", default_value_t = 128)]
    queue: usize,
    /// Seconds after which an answer ends where it is, with `stop_reason: time_limit`
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = at_least_one)]
    time_limit: usize,
    /// The weights with the lowest validation loss, or those of the last step
    #[arg(long, value_parser = choice::<Which>(), default_value = "best")]
    weights: Which,
    /// Numbers the weights are rounded to; with bf16 the last digits of what a model computes depend on
    /// what it answers at the same time
    #[arg(long, value_parser = choice::<ReadPrecision>(), default_value = "f32")]
    precision: ReadPrecision,
    /// What reads the models: auto, cpu, cuda, cuda:N or gpu
    #[arg(long, default_value = "auto")]
    device: String,
    /// Threads; without it, one for each core
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
}

pub(crate) fn run(project: &Project, args: &ServeArgs) -> Result<(), Failure> {
    end_as_first_process();
    let device = device(&args.device)?;
    let mut models: Vec<Served> = Vec::new();
    for model in &args.models {
        let name = name(project, model);
        if models.iter().any(|served| served.name == name) {
            let failure = Failure::wrong(format!("two models are called `{name}`"));
            return Err(
                failure.help("name one as RUN/STAGE, or copy its folder under another name")
            );
        }
        let found = model::find(project, model)?;
        let weights = (found.which(args.weights), args.precision);
        models.push(Served::open(name, &found.folder, weights, device)?);
    }
    give_back_freed_memory();
    let names: Vec<String> = models
        .iter()
        .map(|served| format!("`{}`", served.name))
        .collect();
    let options = Options {
        addr: SocketAddr::new(args.host, args.port),
        api_key: args.api_key.clone(),
        n_slots: args.slots,
        n_waiting: args.queue,
        n_threads: n_threads(args.threads),
        time_limit: Duration::from_secs((args.time_limit as u64).min(1 << 31)),
    };
    if !args.host.is_loopback() && args.api_key.is_none() {
        say(
            &project.global,
            "warning: everybody on the network can use it; `--api-key KEY` asks for a key",
        );
    }
    let ready = |addr: SocketAddr| {
        say(
            &project.global,
            &format!("{} at http://{addr}/v1; Ctrl-C ends it", names.join(", ")),
        );
    };
    serve(models, options, ready).map_err(|error| {
        let failure = Failure::wrong(format!(
            "cannot listen at {}:{}: {error}",
            args.host, args.port
        ));
        failure.help("`--port N` takes another port, `--port 0` any that is free")
    })
}

/// What requests call a model: as the person wrote it, and a folder by its last name.
fn name(project: &Project, model: &str) -> String {
    let path = project.current_dir.join(model);
    let folder = path
        .is_dir()
        .then(|| Path::new(model).file_name())
        .flatten();
    folder.map_or_else(
        || model.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
