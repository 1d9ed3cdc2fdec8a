//! The forward pass of face-reidentification-retail-0095 in torch.

use crate::networks::reid::{INPUT_CONSTANTS, Layer, steps};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Embeddings `N x 256` of pictures `N x 3 x 128 x 128` in the order blue, green, red, with
/// values of 0 to 255.
pub(super) fn forward(tensors: &BTreeMap<String, Tensor>, pictures: &Tensor) -> Tensor {
    let [factor, term] = INPUT_CONSTANTS.map(|name| &tensors[name]);
    let mut at = pictures * factor + term;
    for step in steps() {
        let input = at.shallow_clone();
        for one in &step.layers {
            at = layer(tensors, one, &at);
        }
        if let Some(gate) = &step.gate {
            let mut scale = at.mean_dim([2, 3].as_slice(), true, None::<Kind>);
            for one in gate {
                scale = layer(tensors, one, &scale);
            }
            // Not in place: the gradient needs both factors.
            at = &at * scale.sigmoid();
        }
        if step.residual {
            at = input + at;
        }
    }
    at.flatten(1, -1)
}

fn layer(tensors: &BTreeMap<String, Tensor>, layer: &Layer, input: &Tensor) -> Tensor {
    let Layer { name, how, .. } = layer;
    let at = input.conv2d(
        &tensors[&format!("{name}.weight")],
        tensors.get(&format!("{name}.bias")),
        [how.stride as i64; 2],
        [how.padding as i64; 2],
        [1, 1],
        how.groups as i64,
    );
    match tensors.get(&format!("{name}.prelu.slope")) {
        Some(slopes) => at.prelu(slopes),
        None => at,
    }
}
