//! Compares two sets of models end to end on the same photos.

use crate::data::photos::{Outcome, process};
use crate::measure::metrics::Scores;
use anyhow::Result;
use facelatch::models::Models;
use facelatch::vision::embed::Embedding;
use serde::Serialize;
use std::path::PathBuf;

/// Figures of a set of models against the set it was made from. Of each photo, the face
/// nearest the centre counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Whole {
    /// Number of photos.
    pub photos: usize,
    /// Photos in which each set finds a face, floating point first.
    pub found: [usize; 2],
    /// Photos in which both sets find the same face, with an IoU of at least 0.5.
    pub same: usize,
    /// Distance between the landmarks of such a face, averaged over the five, pixels: the
    /// mean and the 95th percentile over all such faces.
    pub landmarks: [f32; 2],
    /// Mean cosine between the embeddings of such faces. Each set embeds its own crop
    /// with its own recognizer.
    pub cosine: f32,
    /// True accept rates over all pairs of photos, per false accept rate.
    pub rates: Vec<Rate>,
}

/// True accept rates of both sets at one false accept rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// False accept rate.
    pub far: f64,
    /// True accept rate of each set, floating point first.
    pub tar: [f64; 2],
}

/// Compares two sets on photos, floating point first. `people` is the person of each
/// photo.
pub fn compare(sets: [&Models; 2], photos: &[PathBuf], people: &[&str]) -> Result<Whole> {
    let outcomes =
        [process(sets[0], photos, true, "float"), process(sets[1], photos, true, "int8")];
    let [float, bytes] = outcomes.map(|outcomes| -> Result<Vec<_>> {
        let face = |outcome| match outcome {
            Outcome::Face { face, embedding, .. } => Some((face, embedding?)),
            Outcome::NoFace | Outcome::Unreadable(_) => None,
        };
        Ok(outcomes?.into_iter().map(face).collect())
    });
    let (float, bytes) = (float?, bytes?);
    let (mut distances, mut cosine) = (Vec::new(), 0.0);
    for ((a, of_a), (b, of_b)) in
        float.iter().zip(&bytes).filter_map(|(a, b)| a.as_ref().zip(b.as_ref()))
    {
        if a.rect.iou(&b.rect) >= 0.5 {
            let points = a.landmarks.iter().zip(&b.landmarks);
            distances
                .push(points.map(|(p, q)| (p[0] - q[0]).hypot(p[1] - q[1])).sum::<f32>() / 5.0);
            cosine += of_a.similarity(of_b);
        }
    }
    distances.sort_by(f32::total_cmp);
    let same = distances.len();
    let count = same.max(1) as f32;
    let within = distances.get((same * 95 / 100).min(same.saturating_sub(1))).copied();
    let scores = [&float, &bytes].map(|faces| {
        let embeddings = faces.iter().map(|face| face.as_ref().map(|(_, embedding)| embedding));
        Scores::of_all_pairs(
            &people.iter().zip(embeddings).collect::<Vec<(_, Option<&Embedding>)>>(),
        )
    });
    Ok(Whole {
        photos: photos.len(),
        found: [&float, &bytes].map(|faces| faces.iter().flatten().count()),
        same,
        landmarks: [distances.iter().sum::<f32>() / count, within.unwrap_or(0.0)],
        cosine: cosine / count,
        rates: [1e-2, 1e-3, 1e-4]
            .map(|far| Rate { far, tar: [0, 1].map(|at: usize| scores[at].true_accept_rate(far)) })
            .into(),
    })
}
