//! What depends on a key, and what is done only after that was read: destroying, retiring.
//!
//! Owns: the plain words, and the typed confirmation. Knows nothing of: how things are counted.
//!
//! Invariants
//! - The words go to standard error, so that a script's standard output is one document.
//! - Without `--yes`, nothing is done unless the key's id or an alias of it was typed.

use std::io::{BufRead as _, Write as _};

use serde_json::{Value, json};

use super::super::{EXIT_DONE, EXIT_REFUSED};
use super::{Found, list_of, number, text, time};
use crate::cli::{Failure, Outcome, output};

async fn ask(found: &mut Found) -> Result<Value, Failure> {
    let input = json!({"KeyId": found.id});
    Ok(found.api.call("KluisKms.DescribeKeyImpact", &input).await?)
}

pub(super) async fn show(mut found: Found, is_json: bool) -> Outcome {
    let impact = ask(&mut found).await?;
    if is_json {
        output::json(&impact)?;
    } else {
        output::line(&words(&impact))?;
    }
    Ok(EXIT_DONE)
}

pub(super) async fn destroy(mut found: Found, days: u16, yes: bool, is_json: bool) -> Outcome {
    let impact = ask(&mut found).await?;
    let statement = format!(
        "{}\n\nThe key stops working now and is destroyed in {days} days. After that this node \
         reads nothing of\nthis again, for anybody; `kluis key erasure-report` then says how far \
         that holds for old copies of its\ndisks. Until then `kluis key cancel` calls it off.",
        words(&impact)
    );
    confirm(&mut found, &statement, yes).await?;
    let input = json!({"KeyId": found.id, "PendingWindowInDays": days});
    let answer = found.api.call("TrentService.ScheduleKeyDeletion", &input).await?;
    if is_json {
        output::json(&answer)?;
    } else {
        let line = format!("key {} is destroyed on {}", found.id, time(&answer, "DeletionDate"));
        output::line(&line)?;
    }
    Ok(EXIT_DONE)
}

pub(super) async fn retire(
    mut found: Found,
    material: u32,
    (force, yes): (bool, bool),
    is_json: bool,
) -> Outcome {
    let impact = ask(&mut found).await?;
    let under = |field: &str| {
        let rows = list_of(&impact, field).iter();
        let of_it = rows.filter(|row| number(row, "Material") == u64::from(material));
        of_it.map(|row| number(row, "Count")).sum::<u64>()
    };
    let (bucket_keys, ciphertexts) = (under("BucketKeys"), under("ApiCiphertexts"));
    let statement = format!(
        "Material {material} of key {} is erased for good.\nUnder it: {bucket_keys} bucket keys, \
         and up to {ciphertexts} ciphertexts made through the API,\nwhich only their holders can \
         find. Counted {}; {}",
        found.id,
        time(&impact, "CountedDate"),
        text(&impact, "Coverage")
    );
    confirm(&mut found, &statement, yes).await?;
    let input = json!({"KeyId": found.id, "Material": material, "Force": force});
    let answer = found.api.call("KluisKms.RetireKeyMaterial", &input).await?;
    if is_json {
        output::json(&answer)?;
    } else {
        output::line(&format!("material {material} of key {} is retired", found.id))?;
    }
    Ok(EXIT_DONE)
}

/// The impact as sentences.
pub(super) fn words(impact: &Value) -> String {
    let sum =
        |field: &str| list_of(impact, field).iter().map(|row| number(row, "Count")).sum::<u64>();
    let names: Vec<_> = list_of(impact, "DefaultOf").iter().filter_map(Value::as_str).collect();
    let mut lines = vec![
        format!("Under key {}:", text(impact, "KeyId")),
        format!(
            "  {} objects with {} bytes in {} buckets, and {} open uploads",
            number(impact, "Objects"),
            number(impact, "Bytes"),
            number(impact, "Buckets"),
            number(impact, "OpenUploads")
        ),
        format!("  {} bucket keys", sum("BucketKeys")),
        format!(
            "  up to {} ciphertexts made through the API, wherever they are kept",
            sum("ApiCiphertexts")
        ),
    ];
    if !names.is_empty() {
        lines.push(format!("  it is the default key of {}", names.join(", ")));
    }
    lines.push(format!("Counted {}; {}", time(impact, "CountedDate"), text(impact, "Coverage")));
    lines.join("\n")
}

/// Shows the statement and waits for the key's name.
async fn confirm(found: &mut Found, statement: &str, yes: bool) -> Result<(), Failure> {
    eprintln!("{statement}");
    if yes {
        return Ok(());
    }
    eprint!("\nType the key's alias or id to go on: ");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    std::io::stdin().lock().read_line(&mut typed).map_err(Failure::could_not_run)?;
    let aliases = found.aliases().await?;
    if is_name(typed.trim(), &found.id, &aliases) {
        return Ok(());
    }
    let message = "that is not the key's alias or id; nothing was changed".to_owned();
    Err(Failure { code: EXIT_REFUSED, message })
}

/// Whether what was typed names the key.
pub(super) fn is_name(typed: &str, id: &str, aliases: &[String]) -> bool {
    let is_alias = |alias: &String| {
        !typed.is_empty() && (alias == typed || alias.strip_prefix("alias/") == Some(typed))
    };
    typed == id || aliases.iter().any(is_alias)
}
