#!/usr/bin/env python3
"""Compares an imported ONNX file with the OpenVINO IR that it was made from.

    pip install openvino onnxruntime numpy
    facelatch-tools import openvino FILE.xml --out DIR
    bench/openvino.py FILE.xml DIR/face-reidentification-retail-0095.onnx

Runs the IR in OpenVINO and the ONNX file in ONNX Runtime on the same random pictures, both
in 32-bit floating point on one thread, and prints the largest relative difference: the
largest absolute difference between two embeddings, divided by the largest absolute value of
OpenVINO's. Exits with 1 if it exceeds the limit.
"""

import argparse
import sys

# Python looks for modules in the script's folder first and would import this file.
sys.path.pop(0)

import numpy as np
import onnxruntime
import openvino


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ir", help="FILE.xml, with its .bin next to it")
    parser.add_argument("onnx", help="the imported file")
    parser.add_argument("--pictures", type=int, default=50, help="number of pictures")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random pictures")
    parser.add_argument("--limit", type=float, default=1e-5, help="largest relative difference")
    options = parser.parse_args()

    # Without the hint, OpenVINO may compute in 16 bits.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    original = openvino.Core().compile_model(options.ir, "CPU", settings)
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = 1
    imported = onnxruntime.InferenceSession(
        options.onnx, session, providers=["CPUExecutionProvider"]
    )
    name = imported.get_inputs()[0].name

    random = np.random.default_rng(options.seed)
    worst, cosine = 0.0, 1.0
    for number in range(options.pictures):
        picture = random.integers(0, 256, (1, 3, 128, 128)).astype(np.float32)
        if number % 2:
            # Every second picture is smooth, as faces are: large blocks of one colour.
            picture = np.kron(picture[:, :, :8, :8], np.ones((1, 1, 16, 16), np.float32))
        expected = original(picture)[0].reshape(-1)
        got = imported.run(None, {name: picture})[0].reshape(-1)
        if expected.shape != got.shape or not np.isfinite(got).all():
            sys.exit(f"picture {number}: {got.shape}, expected {expected.shape}, all finite")
        worst = max(worst, float(np.abs(got - expected).max() / np.abs(expected).max()))
        norms = np.linalg.norm(got) * np.linalg.norm(expected)
        cosine = min(cosine, float(got @ expected / norms))
    print(f"pictures                      {options.pictures}")
    print(f"largest relative difference   {worst:.2e}")
    print(f"smallest cosine               {cosine:.9f}")
    if worst > options.limit:
        sys.exit(f"the difference exceeds {options.limit:g}")


if __name__ == "__main__":
    main()
