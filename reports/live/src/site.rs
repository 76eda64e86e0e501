//! The addresses of the site and what answers at each.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};
use tinylm_registry::Thinning;
use tinylm_reports::{Fineness, html, window};
use tinylm_serve::{Body, Door};

use crate::{
    Options, change, follow,
    page::{self, Address, Page},
    shared::Site,
    view::{Asked, Part, Seen, View},
    wrong::Wrong,
};

/// Points that a curve is drawn from where nobody says how wide it is, and the most.
const POINTS: usize = 1_000;
const POINTS_MAX: usize = 8_000;

pub(crate) fn router(options: Options, addr: SocketAddr) -> Router {
    let site = Arc::new(Site::new(options, addr));
    let router = Router::new()
        .route(
            "/page.css",
            get(async || page::asset("text/css", html::STYLE)),
        )
        .route(
            "/page.js",
            get(async || page::asset("text/javascript", html::SCRIPT)),
        )
        .route(
            "/live.css",
            get(async || page::asset("text/css", include_str!("live.css"))),
        )
        .route(
            "/live.js",
            get(async || page::asset("text/javascript", include_str!("live.js"))),
        )
        .route("/charts", get(charts))
        .route("/curve", get(curve))
        .route("/stream", get(stream))
        .route("/change/{run}", post(changed))
        .route("/play/{*rest}", any(play))
        .route("/steps/{run}/{stage}", get(steps))
        .fallback(get(shown))
        .with_state(site);
    let door = Door {
        is_local: addr.ip().is_loopback(),
        api_key: None,
    };
    door.before(router)
}

fn address(uri: &Uri) -> Address {
    Address::parse(uri.path_and_query().map_or("/", |text| text.as_str()))
}

/// The view that an address in `of` names.
fn view_of(uri: &Uri) -> Result<View, Wrong> {
    let of = Address::parse(&address(uri).one("of"));
    View::of(&of).ok_or_else(|| Wrong::absent("no such page"))
}

async fn shown(State(site): State<Arc<Site>>, uri: Uri) -> Response {
    let Some(view) = View::of(&address(&uri)) else {
        return Wrong::absent("no such page").into_response();
    };
    let now_ms = (site.now)();
    let (seen, status) = match site.see(&view, Part::Words).await {
        Ok(seen) => (seen, None),
        Err(wrong) => (Seen::of_wrong(&wrong), Some(wrong.status)),
    };
    let mut data = seen.charts.clone();
    data["live"] = json!({
        "of": uri.path_and_query().map_or("/", |text| text.as_str()),
        "since": now_ms,
        "pieces": page::digests(&seen.pieces),
        "changes": site.allows_changes,
        "run": view.run(),
        "models": site.models,
    });
    let response = Page {
        title: &seen.title,
        bar: bar(&view, &seen, site.allows_changes),
        pieces: &seen.pieces,
        data,
    }
    .response();
    match status {
        Some(status) => (status, response).into_response(),
        None => response,
    }
}

/// What stands above a view: where it is in the site, and what it can be asked.
fn bar(view: &View, seen: &Seen, allows_changes: bool) -> String {
    let link = |place: &str, name: &str| {
        format!(
            " <a href=\"/{}\">{}</a>",
            html::text(place),
            html::text(name)
        )
    };
    match view {
        View::Runs(asked) => search(asked),
        View::Run(run) => {
            let changes = match allows_changes {
                true => CHANGES,
                false => "",
            };
            let is_of_sweep = seen.reports.iter().any(|report| report.run.sweep.is_some());
            let sweep = match is_of_sweep {
                true => link(&format!("sweep/{run}"), "its sweep"),
                false => String::new(),
            };
            sweep + changes
        }
        View::Stage(run, _) => link(&format!("run/{run}"), run),
        View::Compare(_) | View::Sweep(_) => String::new(),
    }
}

const CHANGES: &str = "<form id=\"change\"><input id=\"words\" placeholder=\"tag or note\" aria-label=\"tag or note\">\
    <button data-change=\"tag\">tag</button><button data-change=\"untag\">untag</button><button data-change=\"note\">note</button>\
    <button type=\"button\" data-change=\"stop\">stop the run</button></form>";

fn search(asked: &Asked) -> String {
    let field = |name: &str, value: &str, hint: &str| {
        let value = html::text(value);
        format!(
            "<input name=\"{name}\" value=\"{value}\" placeholder=\"{hint}\" aria-label=\"{hint}\">"
        )
    };
    let pins: String = asked
        .pinned
        .iter()
        .map(|run| {
            format!(
                "<input type=\"hidden\" name=\"pin\" value=\"{}\">",
                html::text(run)
            )
        })
        .collect();
    format!(
        "<form id=\"search\" action=\"/\">{}{}{}{pins}<button>show</button></form>",
        field("q", &asked.search, "search"),
        field("where", &asked.filter, "where: loss < 3"),
        field("sort", &asked.sort, "order: loss, -started"),
    )
}

/// All curves of a view, for the widths that the page draws them in.
async fn charts(State(site): State<Arc<Site>>, uri: Uri) -> Result<Json<Value>, Wrong> {
    let address = address(&uri);
    let fineness = Fineness {
        large: points(&address, "large")?,
        small: points(&address, "small")?,
        is_log: address.has("log"),
    };
    let seen = site.see(&view_of(&uri)?, Part::Curves(fineness)).await?;
    Ok(Json(seen.charts))
}

fn points(address: &Address, name: &str) -> Result<usize, Wrong> {
    let points = number(address, name, POINTS as u64)?;
    Ok(points.clamp(1, POINTS_MAX as u64) as usize)
}

/// A whole number behind a question mark.
fn number(address: &Address, name: &str, default: u64) -> Result<u64, Wrong> {
    match address.one(name) {
        text if text.is_empty() => Ok(default),
        text => text
            .parse()
            .map_err(|_| Wrong::asked(format!("`{name}` is a whole number"))),
    }
}

/// A piece of one curve, in as many points as a screen shows.
async fn curve(State(site): State<Arc<Site>>, uri: Uri) -> Result<Json<Value>, Wrong> {
    let address = address(&uri);
    let id = address.one("id");
    let (execution, metric) = id
        .split_once('/')
        .map(|(execution, metric)| (execution.to_owned(), metric.to_owned()))
        .ok_or_else(|| Wrong::asked("`id` is EXECUTION/METRIC"))?;
    let steps = number(&address, "from", 0)?..=number(&address, "to", u64::MAX)?;
    let thinning = Thinning {
        points_max: points(&address, "points")?,
        is_log: address.has("log"),
    };
    let read = move |registry: &tinylm_registry::Registry| {
        let found = registry.execution(&execution)?;
        let found = found.ok_or_else(|| Wrong::absent(format!("no execution `{execution}`")))?;
        Ok(window(
            registry,
            &found.stage,
            &found,
            &[metric],
            &steps,
            thinning,
        )?)
    };
    let curves = site.readers.ask(read).await?;
    Ok(Json(html::points(&curves)))
}

async fn stream(
    State(site): State<Arc<Site>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Wrong> {
    let view = view_of(&uri)?;
    let place = site.place_to_look_on()?;
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let since = address(&uri).one("since").parse().ok();
    Ok(follow::stream(
        Arc::clone(&site),
        view,
        last.or(since).unwrap_or_else(|| (site.now)()),
        place,
    ))
}

async fn changed(
    State(site): State<Arc<Site>>,
    Path(run): Path<String>,
    request: Request,
) -> Result<Json<Value>, Wrong> {
    // Before anything of the body: whoever may not ask need not be waited for.
    if !site.allows_changes {
        return Err(Wrong::refused(
            "this page only shows; `tinylm ui --allow-changes` lets it change",
        ));
    }
    let wish = wish(&site, request).await?;
    let now_ms = (site.now)();
    let home = site.home.clone();
    let asked =
        tokio::task::spawn_blocking(move || change::change(&home, &run, &wish, now_ms)).await;
    asked.unwrap_or_else(|error| Err(Wrong::broken(error.to_string())))?;
    Ok(Json(json!({ "done": true })))
}

/// What a page asks for. Only as JSON by its header, which forms of other pages cannot send.
async fn wish(site: &Site, request: Request) -> Result<Value, Wrong> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json")) {
        return Err(Wrong {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            message: "a change is `Content-Type: application/json`".to_owned(),
        });
    }
    let body = Body::of(request, &site.bodies).await?;
    serde_json::from_slice(body.bytes())
        .map_err(|error| Wrong::asked(format!("the body is no JSON: {error}")))
}

/// The steps of a model that can be talked to.
async fn steps(
    State(site): State<Arc<Site>>,
    Path((run, stage)): Path<(String, String)>,
) -> Json<Vec<u64>> {
    Json(tokio::task::block_in_place(|| {
        (site.steps)(&format!("{run}/{stage}"))
    }))
}

/// `/play/RUN/STAGE/` and what is below it.
async fn play(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Wrong> {
    let path = request.uri().path().trim_start_matches("/play/").to_owned();
    let n_models = path.split(',').count();
    let parts: Vec<&str> = path.splitn(n_models + 2, '/').collect();
    if parts.len() < n_models + 2 {
        return Err(Wrong::absent("a model is RUN/STAGE/"));
    }
    let models = parts[..=n_models].join("/");
    let rest = format!("/{}", parts[n_models + 1]);
    site.playground.answer(&models, &rest, request).await
}
