//! What a page may change, where its server was started to allow it: tags, notes, a wish to stop.

use serde_json::Value;
use tinylm_registry::{Home, Registry, tag as tag_of};

use crate::wrong::Wrong;

/// Changes a run as a page asks, `{"tag": ...}`, `{"untag": ...}`, `{"note": ...}` or `{"stop": true}`.
pub(crate) fn change(home: &Home, run: &str, wish: &Value, now_ms: i64) -> Result<(), Wrong> {
    let registry = Registry::open(home)?;
    let run = registry.find_run(run)?;
    let text = |name: &str| {
        wish[name]
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    if let Some(tag) = text("tag") {
        let tag = tag_of(tag).map_err(Wrong::asked)?;
        registry.add_tag(&run.id, &tag)?;
    } else if let Some(tag) = text("untag") {
        if !registry.remove_tag(&run.id, tag)? {
            return Err(Wrong::asked(format!("{} has no tag `{tag}`", run.name)));
        }
    } else if let Some(note) = text("note") {
        registry.add_note(&run.id, note, now_ms)?;
    } else if wish["stop"] == true {
        if !home.ask_to_stop(&run.id)? {
            return Err(Wrong::asked(format!("{} is not going on", run.name)));
        }
    } else {
        return Err(Wrong::asked("a change is a tag, untag, note or stop"));
    }
    Ok(())
}
