//! `warrenctl plugin check`: inspection, then a probe like the one before a reload swaps a plugin in.

use serde_json::json;
use warren::host::probe;

use super::trial::{Trial, TrialArgs, not_created, spawner};
use crate::Global;
use crate::exit::{Code, VerbError};
use crate::output::{clean, print, print_json, short_digest};

pub(super) const EXAMPLES: &str = "\
Exit status: 0 it starts; 65 the file is no plugin that can be loaded; 78 it refuses the settings; 70 it crashes or hangs.

Examples:
  warrenctl plugin check target/release/libmine.so
  warrenctl plugin check libmine.so --settings '{\"directory\": \"/tmp\"}'
  warrenctl plugin check libmine.so --settings @settings.json
  warrenctl plugin check /usr/lib/warren/plugins/orders.so --handler orders";

pub(super) fn run(global: &Global, args: &TrialArgs) -> Result<(), VerbError> {
    let trial = Trial::prepare(global, args)?;
    let spawner = spawner()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| VerbError::new(Code::Software, e))?;
    let probed = runtime.block_on(probe(&trial.spec, &spawner));
    let plugin = &trial.spec.plugin;
    if global.json {
        let error = probed.as_ref().err();
        print_json(&json!({
            "ok": probed.is_ok(),
            "path": plugin.path,
            "name": plugin.manifest.name,
            "version": plugin.manifest.version,
            "sha256": plugin.sha256,
            "error": error.map(|error| json!({"code": error.code, "message": error.message})),
        }))?;
    } else if probed.is_ok() {
        let manifest = &plugin.manifest;
        print(&format!(
            "{} {} ({}) starts\n",
            clean(&manifest.name),
            clean(&manifest.version),
            short_digest(&plugin.sha256)
        ))?;
    }
    probed.map_err(|error| not_created(&trial.spec, &error))
}
