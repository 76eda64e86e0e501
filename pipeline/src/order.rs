//! One stage to be carried out, as plain data: it can cross to a process or to another machine.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::io::Assignment;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub kind: String,
    pub settings: Value,
    pub watch: Value,
    pub assignment: Assignment,
}
