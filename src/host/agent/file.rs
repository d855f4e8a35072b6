//! Reading a small file of a guest without starting a program there, which in an emulated guest takes a tenth of a second.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{ANSWERS, call};
use crate::error::{Context, Result};
use crate::host::domains::Domains;

/// How much of a file is read, in bytes.
const MOST: usize = 64 * 1024;

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "buf-b64", default)]
    text: String,
}

/// The beginning of a file, at most 64 KiB of it.
///
/// # Errors
/// When the agent does not answer, may not read files, or there is no such file.
pub async fn read_file(domains: &dyn Domains, name: &str, path: &str) -> Result<Vec<u8>> {
    let opened = json!({ "path": path, "mode": "r" });
    let handle: i64 = call(domains, name, "guest-file-open", opened, ANSWERS).await?;
    let wanted = json!({ "handle": handle, "count": MOST });
    let read = call::<Part>(domains, name, "guest-file-read", wanted, ANSWERS).await;
    let closed = json!({ "handle": handle });
    let _ = call::<IgnoredAny>(domains, name, "guest-file-close", closed, ANSWERS).await;
    BASE64_STANDARD.decode(read?.text).context(|| format!("cannot read `{path}` in domain `{name}`"))
}
