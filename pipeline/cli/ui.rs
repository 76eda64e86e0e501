//! `tinylm ui`: the registry as a page that lives.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use clap::Args;
use tinylm_live::{Options, show};
use tinylm_model::{config::ReadPrecision, folder::Which};
use tinylm_pipeline::{Content, Device};
use tinylm_serve::Served;

use crate::{
    failure::Failure,
    manner::n_threads,
    model,
    output::say,
    project::{Project, now_ms},
    signals::end_as_first_process,
};

#[derive(Debug, Args)]
pub(crate) struct UiArgs {
    /// Where it listens; 0 is any free port
    #[arg(short, long, default_value_t = 8090)]
    port: u16,
    /// Who can reach it: this machine alone, or with 0.0.0.0 everybody on the network
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Let the page tag runs, write notes and ask runs to stop
    #[arg(long)]
    allow_changes: bool,
}

pub(crate) fn ui(project: &Project, args: &UiArgs) -> Result<(), Failure> {
    end_as_first_process();
    let home = project.checked_home()?;
    if args.allow_changes {
        home.refuse_read_only()?;
    }
    if !args.host.is_loopback() {
        say(
            &project.global,
            "warning: everybody on the network can see all runs and talk to their models",
        );
    }
    let opener = Project::new(project.global.clone())?;
    let open = move |name: &str| {
        let told = |failure: Failure| failure.render(false).to_string();
        let found = model::find(&opener, name).map_err(told)?;
        let weights = (found.which(Which::Best), ReadPrecision::F32);
        let served = Served::open(name.to_owned(), &found.folder, weights, Device::Cpu);
        served.map_err(|error| told(error.into()))
    };
    let lister = Project::new(project.global.clone())?;
    let steps = move |name: &str| {
        let found = model::find(&lister, name);
        found.map_or_else(|_| Vec::new(), |found| found.steps())
    };
    let models = project.catalog.iter();
    let models = models.filter(|kind| kind.makes == Content::Model);
    let options = Options {
        addr: SocketAddr::new(args.host, args.port),
        home,
        allows_changes: args.allow_changes,
        open: Arc::new(open),
        steps: Arc::new(steps),
        models: models.map(|kind| kind.name.to_owned()).collect(),
        n_threads: n_threads(None),
        now: now_ms,
    };
    let ready = |addr: SocketAddr| {
        say(&project.global, &format!("http://{addr}/; Ctrl-C ends it"));
    };
    show(options, ready).map_err(|error| {
        let message = format!("cannot listen at {}:{}: {error}", args.host, args.port);
        Failure::wrong(message).help("`--port N` takes another port, `--port 0` any that is free")
    })
}
