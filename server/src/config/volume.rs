//! One entry of `[[volumes]]`: the directories that hold the same bytes.
//!
//! Owns: which entries are taken. Knows nothing of: what lies there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::field::{FieldValue, Kind};

/// Copies that a volume may have.
const PATHS_MAX: usize = 2;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VolumePaths {
    /// One directory, or two that are kept alike.
    pub(crate) paths: Vec<PathBuf>,
}

/// What is wrong with the entries, as the end of a sentence.
pub(super) fn check(volumes: &[VolumePaths]) -> Result<(), String> {
    if volumes.len() > 1 {
        return Err(format!("{} are given; this build keeps one", volumes.len()));
    }
    for VolumePaths { paths } in volumes {
        if paths.is_empty() || paths.len() > PATHS_MAX {
            return Err(format!("paths: {} are given, not 1 or {PATHS_MAX}", paths.len()));
        }
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            return Err(format!("paths: `{}` does not begin with `/`", path.display()));
        }
    }
    Ok(())
}

impl FieldValue for Vec<VolumePaths> {
    const KIND: Kind = Kind::Tables;
    fn to_toml(&self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        Value::try_from(self).ok()
    }
}
