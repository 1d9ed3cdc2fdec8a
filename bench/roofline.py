#!/usr/bin/env python3
"""Compares the speed of the recognizer with the peak of this processor.

    pip install onnx
    cargo build --release
    bench/roofline.py

Counts the products of each layer and the bytes that it moves (input, weights and output,
each once), measures the peak rate of one core for both, and compares the resulting bound
with the time of `facelatch bench`. The kernel is the one that `bench` chooses or that
FACELATCH_KERNEL forces. x86-64 only.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import onnx
from onnx import numpy_helper, shape_inference


def peaks():
    source = pathlib.Path(__file__).with_name("roofline.c")
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/roofline"
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {name: float(rate) for name, rate in map(str.split, lines.splitlines())}


def layers(path):
    """Yields name, products and bytes of each layer."""
    graph = shape_inference.infer_shapes(onnx.load(path)).graph
    constants = {tensor.name: numpy_helper.to_array(tensor).shape for tensor in graph.initializer}
    # The output of a dequantizer has the shape of its input.
    shapes = {
        value.name: [side.dim_value or 1 for side in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.input, *graph.output]
    }
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") and node.input[0] in constants:
            shapes[node.output[0]] = list(constants[node.input[0]])
    shapes.update({name: list(shape) for name, shape in constants.items()})

    def size(name):
        count = 1
        for side in shapes[name]:
            count *= side
        return count

    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul"):
            continue
        weights, output = shapes[node.input[1]], node.output[0]
        if node.op_type == "Conv":
            products = size(output) * size(node.input[1]) // weights[0]
        else:
            products = size(node.input[1])
        moved = size(node.input[0]) + size(node.input[1]) + size(output)
        yield node.name or output, products, moved


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--facelatch", default="target/release/facelatch")
    parser.add_argument("--model", default="models/mobilefacenet.onnx")
    arguments = parser.parse_args()
    rates = peaks()
    for name, rate in rates.items():
        unit = "products" if name.startswith("avx") else "bytes"
        print(f"{name:12} {rate / 1e9:8.1f} G {unit} a second")
    command = [arguments.facelatch, "bench", "--json", "--rounds", "300"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    kernel, took = report["kernel"], report["stages"]["embed"]["median_ms"] / 1e3
    all_layers = list(layers(arguments.model))
    products = sum(layer[1] for layer in all_layers)
    moved = sum(layer[2] for layer in all_layers)
    peak = rates[kernel]
    # A layer takes at least the time for its products, or for its bytes from the L2 cache.
    least = sum(max(p / peak, m / rates["L2"]) for _, p, m in all_layers)
    print(f"{len(all_layers)} layers, {products / 1e6:.1f} M products, {moved / 1e6:.2f} MB moved")
    print(f"products alone   {products / peak * 1e3:.3f} ms at {kernel}'s peak")
    print(f"bytes alone      {moved / rates['L2'] * 1e3:.3f} ms out of L2")
    print(f"roof             {least * 1e3:.3f} ms")
    print(f"embed            {took * 1e3:.3f} ms, {least / took * 100:.0f} % of the roof, "
          f"{products / took / 1e9:.0f} G products a second")


if __name__ == "__main__":
    main()
