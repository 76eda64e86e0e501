//! The real binary, end to end: one story for each promise.

mod adapters;
mod bucket;
mod chance;
mod chatting;
#[allow(dead_code, reason = "the tests of pages use more of it")]
#[path = "../../reports/tests/browser/chromium.rs"]
mod chromium;
mod claims;
mod clients;
mod collecting;
mod combined;
mod curves;
mod damage;
mod documents;
mod experiments;
mod exporting;
mod freshness;
mod harness;
mod history;
mod hostile;
#[path = "../../stages/tests/hub/mod.rs"]
#[allow(dead_code, reason = "the tests of the stages use the rest")]
mod hub;
mod importing;
mod interruption;
mod limits;
mod listings;
mod living;
mod measuring;
mod mistakes;
mod numbers;
mod nvidia;
mod older;
mod outside;
mod own_files;
mod parts;
mod paths;
mod preferences;
mod ranks;
mod reading;
mod readme;
mod records;
mod remote_store;
mod running;
#[path = "../../registry/remote/tests/s3/mod.rs"]
mod s3;
mod scaling;
mod schema;
mod server;
mod serving;
mod sharing;
#[path = "../skipped/mod.rs"]
mod skipped;
mod speaking;
mod sweeps;
mod talk;
mod terminal;
mod training;
mod verifying;
