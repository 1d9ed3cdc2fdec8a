//! `people alike`: people of the gallery who resemble each other.

use crate::cli::common_args::CommonArgs;
use anyhow::Result;
use facelatch::access::gallery::{Alike, MOST_PAIRS};
use facelatch::config::Config;
use facelatch::service::files::open_store;
use facelatch::storage::gallery::Purpose;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;

/// Lists pairs of people whose templates reach the threshold of this door.
pub fn run(common: &CommonArgs, config: &Config, as_json: bool) -> Result<ExitCode> {
    let models = common.models(config)?;
    let (model, size) = (models.recognizer_id()?, models.recognizer()?.embedding_size);
    let gallery = open_store(&config.gallery_file(), Purpose::Read)?.load(&model, size)?.gallery;
    let rate = config.recognition.false_accept_rate;
    let threshold = models.thresholds()?.for_attempt(rate, gallery.templates()).similarity;
    let pairs = gallery.alike(threshold);
    let mut out = anstream::stdout().lock();
    for Alike { one, other, similarity, covered } in &pairs {
        let name = |person| gallery.name(person).unwrap_or_default();
        let stricter = |person| gallery.traits(person).map_or(0.0, |traits| traits.stricter);
        let (a, b) = (name(*one), name(*other));
        if as_json {
            let line = json!({
                "people": [a, b], "similarity": similarity, "threshold": threshold,
                "stricter": [stricter(*one), stricter(*other)], "covered": covered,
            });
            writeln!(out, "{line}")?;
        } else {
            let how = if *covered { "; stricter thresholds tell them apart" } else { "" };
            writeln!(out, "{a} and {b}: similarity {similarity:.3}, asked {threshold:.3}{how}")?;
        }
    }
    if pairs.len() >= MOST_PAIRS {
        log::warn!("there are more pairs; these are the first {MOST_PAIRS} found");
    }
    if pairs.is_empty() && !as_json {
        writeln!(out, "nobody resembles anybody else at similarity {threshold:.3}")?;
    }
    Ok(ExitCode::SUCCESS)
}
