//! The frame around every view: one page, its scripts and styles, and nothing from elsewhere.

use axum::{
    http::{HeaderName, header},
    response::{Html, IntoResponse, Response},
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tinylm_reports::html::{self, Piece};

/// A path and what stands behind its question mark.
#[derive(Debug, Default)]
pub(crate) struct Address {
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
}

impl Address {
    /// Reads `/path?name=value&...`; what is not UTF-8 is replaced.
    pub(crate) fn parse(text: &str) -> Address {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        Address {
            path: percent_decode_str(path).decode_utf8_lossy().into_owned(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        }
    }

    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let fitting = self.query.iter().filter(|(other, _)| other == name);
        fitting.map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.query.iter().any(|(other, _)| other == name)
    }

    /// The first value of a name; empty without one.
    pub(crate) fn one(&self, name: &str) -> String {
        self.all(name).into_iter().next().unwrap_or_default()
    }
}

/// What a page may do: run this server's scripts and ask this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    /// What stands above the pieces and never changes.
    pub(crate) bar: String,
    pub(crate) pieces: &'a [Piece],
    /// The charts, and what the live script has to know.
    pub(crate) data: Value,
}

impl Page<'_> {
    pub(crate) fn response(&self) -> Response {
        let pieces: String = self.pieces.iter().map(put_piece).collect();
        let page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · tinylm</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <link rel=\"stylesheet\" href=\"/page.css\">\n<link rel=\"stylesheet\" href=\"/live.css\">\n\
             </head>\n<body>\n<nav><a href=\"/\">tinylm</a>{}<span id=\"state\" role=\"status\"></span></nav>\n\
             <main id=\"view\">\n{pieces}</main>\n\
             <script type=\"application/json\" id=\"data\">{}</script>\n\
             <script src=\"/page.js\"></script>\n<script src=\"/live.js\"></script>\n</body>\n</html>\n",
            html::text(self.title),
            self.bar,
            html::data(&self.data),
        );
        (safe(), Html(page)).into_response()
    }
}

fn put_piece(piece: &Piece) -> String {
    let id = html::text(&piece.id);
    format!(
        "<div class=\"piece\" data-piece=\"{id}\">{}</div>\n",
        piece.html
    )
}

fn safe() -> [(HeaderName, &'static str); 4] {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ]
}

/// A script or a style sheet.
pub(crate) fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// Returns the digests of pieces, so that a page knows which it has.
pub(crate) fn digests(pieces: &[Piece]) -> Value {
    let digests = pieces
        .iter()
        .map(|piece| (piece.id.clone(), json!(digest(&piece.html))));
    Value::Object(digests.collect())
}

pub(crate) fn digest(html: &str) -> String {
    tinylm_registry::Digest::of_bytes(html.as_bytes()).to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::parse("/run/a%20b/%c3%a9%zz?run=x&run=y%26&q=loss+%3C+3&&flag");
        assert_eq!(address.path, "/run/a b/é%zz");
        assert_eq!(address.all("run"), ["x", "y&"]);
        assert_eq!(address.one("q"), "loss < 3");
        assert_eq!(
            (address.one("flag"), address.one("none")),
            (String::new(), String::new())
        );
    }
}
