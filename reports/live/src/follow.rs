//! A view as a stream: what it looks like now, then whatever changes.
//!
//! Two kinds of news: pieces of the page that read otherwise than before, whole, and points that
//! curves have grown by. A page that lost its connection names the last news it has had (a moment in
//! time) and is sent the points since; points are known by their steps, so that one sent twice is one.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures_util::stream;
use serde_json::{Map, Value, json};
use tinylm_registry::{Registry, Status};
use tinylm_reports::{Report, Tail, html};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    page::digest,
    shared::Site,
    view::{Part, Seen, View},
    wrong::Wrong,
};

/// Time passes on a page too, and a run may die without a word.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// News of this time are told together.
const TOGETHER: Duration = Duration::from_millis(200);
/// What was written at one moment may be seen a little later.
const SLACK_MS: i64 = 3_000;

/// Somebody who looks at a view.
struct Follower {
    view: View,
    /// Of what was read last, by piece.
    digests: HashMap<String, String>,
    order: Vec<String>,
    tails: Vec<Tail>,
    /// The moment up to which the page has all points.
    since_ms: i64,
}

/// Streams a view to a page that has all points up to a moment, for as long as it keeps its place.
pub(crate) fn stream(
    site: Arc<Site>,
    view: View,
    since_ms: i64,
    place: OwnedSemaphorePermit,
) -> Response {
    let follower = Follower {
        view,
        digests: HashMap::new(),
        order: Vec::new(),
        tails: Vec::new(),
        since_ms: since_ms - SLACK_MS,
    };
    let beats = site.pulse.listen();
    let news = stream::unfold(
        (site, Some(follower), (beats, place)),
        |(site, follower, (mut beats, place))| async move {
            let mut follower = follower?;
            loop {
                let asked = site.readers.ask({
                    let site = Arc::clone(&site);
                    move |registry| {
                        let news = follower.news(registry, &site)?;
                        Ok((follower, news))
                    }
                });
                let (back, news) = match asked.await {
                    Ok(answer) => answer,
                    // The page is told, and may come again.
                    Err(wrong) => {
                        let event = Event::default()
                            .event("wrong")
                            .data(wrong.message.replace('\n', " "));
                        return Some((Ok::<_, Infallible>(event), (site, None, (beats, place))));
                    }
                };
                follower = back;
                if let Some(news) = news {
                    tokio::time::sleep(TOGETHER).await;
                    return Some((Ok(news), (site, Some(follower), (beats, place))));
                }
                // Whoever wrote is gone with the server: nobody is left to tell.
                let _ = tokio::time::timeout(AT_LEAST_EVERY, beats.changed()).await;
            }
        },
    );
    Sse::new(news)
        .keep_alive(KeepAlive::default())
        .into_response()
}

impl Follower {
    /// Returns what is new since it was last asked.
    fn news(&mut self, registry: &Registry, site: &Site) -> Result<Option<Event>, Wrong> {
        let now_ms = (site.now)();
        let seen = self.view.see(registry, &site.home, Part::Words, now_ms)?;
        let points = self.points(registry, &seen.reports)?;
        let news =
            json!({ "pieces": self.pieces(&seen), "order": self.order(&seen), "points": points });
        let is_news = ["pieces", "points"]
            .iter()
            .any(|name| news[name].as_object().is_none_or(|map| !map.is_empty()))
            || !news["order"].is_null();
        let event = Event::default()
            .id(now_ms.to_string())
            .data(news.to_string());
        Ok(is_news.then_some(event))
    }

    /// The pieces that are not what they were.
    fn pieces(&mut self, seen: &Seen) -> Map<String, Value> {
        let mut changed = Map::new();
        for piece in &seen.pieces {
            let digest = digest(&piece.html);
            if self.digests.get(&piece.id) != Some(&digest) {
                changed.insert(piece.id.clone(), json!([digest, piece.html]));
                self.digests.insert(piece.id.clone(), digest);
            }
        }
        changed
    }

    /// The order of all pieces, where that is new.
    fn order(&mut self, seen: &Seen) -> Value {
        let order: Vec<String> = seen.pieces.iter().map(|piece| piece.id.clone()).collect();
        if order == self.order {
            return Value::Null;
        }
        self.order.clone_from(&order);
        json!(order)
    }

    /// The points that came; null where curves were cut or begun anew, so that the page asks for all.
    fn points(&mut self, registry: &Registry, reports: &[Report]) -> Result<Value, Wrong> {
        let is_first = self.order.is_empty();
        let mut is_anew = false;
        let mut grown = Vec::new();
        for (stage, execution) in running(reports) {
            if !self
                .tails
                .iter()
                .any(|tail| tail.execution_id() == execution.id)
            {
                is_anew |= !is_first;
                let tail = Tail::new(registry, stage, execution, self.since_ms)?;
                self.tails.push(tail);
            }
        }
        let going: HashSet<&str> = running(reports).map(|(_, one)| one.id.as_str()).collect();
        let mut kept = Vec::new();
        for mut tail in self.tails.drain(..) {
            match tail.more(registry)? {
                Some(curves) => grown.extend(curves),
                None => {
                    is_anew = true;
                    continue;
                }
            }
            // What has ended has had its last word now.
            if going.contains(tail.execution_id()) {
                kept.push(tail);
            }
        }
        self.tails = kept;
        let shown: HashSet<(&str, &str)> = curves(reports).collect();
        grown.retain(|curve| shown.contains(&(curve.execution.as_str(), curve.metric.as_str())));
        Ok(match is_anew {
            true => Value::Null,
            false => html::points(&grown),
        })
    }
}

/// The curves that are shown.
fn curves(reports: &[Report]) -> impl Iterator<Item = (&str, &str)> {
    let curves = reports.iter().flat_map(|report| &report.curves);
    curves.map(|curve| (curve.execution.as_str(), curve.metric.as_str()))
}

/// The executions whose curves are shown and may grow.
fn running(reports: &[Report]) -> impl Iterator<Item = (&str, &tinylm_registry::Execution)> {
    let shown: HashSet<&str> = curves(reports).map(|(execution, _)| execution).collect();
    let stages = reports.iter().flat_map(|report| &report.stages);
    stages.filter_map(move |stage| {
        let execution = stage.execution.as_ref()?;
        let is_ours = execution.status == Status::Running && shown.contains(execution.id.as_str());
        is_ours.then_some((stage.row.name.as_str(), execution))
    })
}
