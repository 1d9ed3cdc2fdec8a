//! Attributes and constants of ONNX nodes.

use super::model::{Result, Window, fault};
use tract_onnx::pb;

pub(super) fn attribute<'n>(node: &'n pb::NodeProto, name: &str) -> Option<&'n pb::AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

pub(super) fn int(node: &pb::NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, |attribute| attribute.i)
}

pub(super) fn float(node: &pb::NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, |attribute| attribute.f)
}

/// Strides and paddings, which must be the same both ways.
pub(super) fn window(node: &pb::NodeProto, (height, width): (usize, usize)) -> Result<Window> {
    let same = |name: &str, default: i64| match attribute(node, name) {
        None => Some(default),
        Some(attribute) => {
            let first = attribute.ints.first().copied().unwrap_or(default);
            attribute.ints.iter().all(|value| *value == first).then_some(first)
        }
    };
    let plain = same("dilations", 1) == Some(1)
        && attribute(node, "auto_pad").is_none_or(|pad| matches!(&pad.s[..], b"" | b"NOTSET"));
    match (same("strides", 1), same("pads", 0)) {
        (Some(stride @ 1..=64), Some(padding @ 0..=64)) if plain => {
            Ok(Window { height, width, stride: stride as usize, padding: padding as usize })
        }
        _ => fault(&node.name, "strides, paddings and dilations must be the same on all sides"),
    }
}

const FLOAT: i32 = pb::tensor_proto::DataType::Float as i32;
const UINT8: i32 = pb::tensor_proto::DataType::Uint8 as i32;
const INT8: i32 = pb::tensor_proto::DataType::Int8 as i32;
const INT64: i32 = pb::tensor_proto::DataType::Int64 as i32;
const INT32: i32 = pb::tensor_proto::DataType::Int32 as i32;

pub(super) fn is_unsigned(constant: &pb::TensorProto) -> bool {
    constant.data_type == UINT8
}

pub(super) fn floats(node: &pb::NodeProto, constant: &pb::TensorProto) -> Result<Vec<f32>> {
    if constant.data_type != FLOAT {
        return fault(&node.name, format!("{} must be floating point", constant.name));
    }
    if constant.raw_data.is_empty() {
        return Ok(constant.float_data.clone());
    }
    let (values, _) = constant.raw_data.as_chunks::<4>();
    Ok(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

pub(super) fn ints(node: &pb::NodeProto, constant: &pb::TensorProto) -> Result<Vec<i32>> {
    let raw = &constant.raw_data;
    match constant.data_type {
        INT8 | UINT8 | INT32 if raw.is_empty() => Ok(constant.int32_data.clone()),
        INT8 => Ok(raw.iter().map(|byte| i32::from(byte.cast_signed())).collect()),
        UINT8 => Ok(raw.iter().map(|byte| i32::from(*byte)).collect()),
        INT32 => {
            let (values, _) = raw.as_chunks::<4>();
            Ok(values.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
        }
        _ => fault(&node.name, format!("{} must be of whole numbers", constant.name)),
    }
}

/// Whole numbers of 64 bits, such as axes.
pub(super) fn longs(node: &pb::NodeProto, constant: &pb::TensorProto) -> Result<Vec<i64>> {
    if constant.data_type != INT64 {
        return fault(&node.name, format!("{} must be of 64-bit whole numbers", constant.name));
    }
    if constant.raw_data.is_empty() {
        return Ok(constant.int64_data.clone());
    }
    let (values, _) = constant.raw_data.as_chunks::<8>();
    Ok(values.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}
