//! Who may ask: pages of other origins may not, and a key may be wanted.
//!
//! A server on loopback is in reach of every page that its user opens. Such a page cannot choose the
//! `Host` of a request unless its own name leads to this machine, and it cannot leave out `Origin`:
//! both are looked at. No header of the answer lets another origin read it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

use crate::error::ApiError;

/// The one way into a server.
pub struct Door {
    /// Whether it is reached from this machine alone.
    pub is_local: bool,
    pub api_key: Option<String>,
}

async fn pass(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    // The page asks for the key itself.
    let is_open = matches!(request.uri().path(), "/" | "/health");
    match door.check(request.headers(), is_open) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

impl Door {
    /// Stands before all that a router answers.
    pub fn before(self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(Arc::new(self), pass))
    }

    fn check(&self, headers: &HeaderMap, is_open: bool) -> Result<(), ApiError> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let is_one = |name| headers.get_all(name).iter().count() == 1;
        let host = text(header::HOST).filter(|_| is_one(header::HOST));
        let host = host.unwrap_or("");
        if self.is_local && !is_loopback(host) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!("this server is for its own machine, and `{host}` is not its name"),
            ));
        }
        if let Some(origin) = text(header::ORIGIN)
            && origin.split_once("://").map(|(_, host)| host) != Some(host)
        {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!("pages of `{origin}` may not use this server"),
            ));
        }
        let Some(key) = &self.api_key else {
            return Ok(());
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.filter(|_| is_one(header::AUTHORIZATION));
        match given.and_then(|value| key_of(value.as_bytes())) {
            _ if is_open => Ok(()),
            Some(given) if is_same(given, key.as_bytes()) => Ok(()),
            _ => Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "the header `Authorization: Bearer KEY` must have this server's key",
            )
            .code("invalid_api_key")),
        }
    }
}

/// What stands behind `Bearer`, whose case means nothing to HTTP.
fn key_of(given: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = given.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
}

/// Whether a `Host` names the machine itself.
fn is_loopback(host: &str) -> bool {
    let named = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']'),
        None => Some(host.split_at(host.find(':').unwrap_or(host.len()))),
    };
    let Some((name, port)) = named else {
        return false;
    };
    let is_digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_digits);
    let local = |ip: IpAddr| ip.to_canonical().is_loopback();
    let word = name.strip_suffix('.').unwrap_or(name);
    is_port && (word.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(local))
}

/// Compares in a time that does not tell how much was right.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b));
    a.len() == b.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answer(door: &Door, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        door.check(&map, false)
            .map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_local_server_is_called_by_its_own_names_and_by_its_own_pages() {
        let door = Door {
            is_local: true,
            api_key: None,
        };
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "localhost",
            "LOCALHOST.:8080",
            "127.0.0.2",
        ] {
            assert_eq!(answer(&door, &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "[::1].evil.example",
            "localhost:80@evil.example",
            "127.0.0.1:8080:evil",
            "[::1",
            "0.0.0.0",
            "",
        ] {
            assert_eq!(answer(&door, &[("host", host)]), 403, "{host}");
        }
        let own = ("host", "localhost:8080");
        assert_eq!(answer(&door, &[own, ("host", "evil.example")]), 403);
        assert_eq!(
            answer(&door, &[own, ("origin", "http://localhost:8080")]),
            200
        );
        for origin in ["http://evil.example", "null", "http://localhost:3000"] {
            assert_eq!(answer(&door, &[own, ("origin", origin)]), 403, "{origin}");
        }
    }

    #[test]
    fn a_key_is_asked_for_where_there_is_one() {
        let door = Door {
            is_local: false,
            api_key: Some("secret".to_owned()),
        };
        let host = ("host", "models.example");
        assert_eq!(answer(&door, &[host]), 401);
        for wrong in ["Bearer secre", "Bearer secretx", "secret", "Bearer "] {
            assert_eq!(
                answer(&door, &[host, ("authorization", wrong)]),
                401,
                "{wrong}"
            );
        }
        let lower = ("authorization", "bearer secret");
        assert_eq!(answer(&door, &[host, lower]), 200);
        let right = ("authorization", "Bearer secret");
        assert_eq!(answer(&door, &[host, right]), 200);
        let wrong = ("authorization", "Bearer other");
        for two in [[host, right, wrong], [host, wrong, right]] {
            assert_eq!(answer(&door, &two), 401, "{two:?}");
        }
        let door = Door {
            api_key: Some("sécret".to_owned()),
            ..door
        };
        for (given, status) in [("Bearer sécret", 200), ("Bearer sécre", 401)] {
            let given = HeaderValue::from_bytes(given.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, given)]);
            let told = door.check(&headers, false).err();
            assert_eq!(told.map_or(200, |error| error.status.as_u16()), status);
        }
    }
}
