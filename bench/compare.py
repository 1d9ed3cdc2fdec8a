#!/usr/bin/env python3
"""Compares the speed of facelatch with ncnn, ONNX Runtime and Python's mtcnn.

Each uses one thread; the results are ratios of times from one run.

    pip install ncnn pnnx onnxruntime numpy pillow [mtcnn==0.1.1 tensorflow-cpu]
    cargo build --release
    bench/compare.py --weights DIR --image photo.jpg

DIR holds det1, det2 and det3 as .param and .bin, MTCNN's weights for ncnn. The recognizer
is converted from the floating-point ONNX file with pnnx. Both programs process the same picture with the same
pyramid, the same number of windows and one face. Runs alternate, so that other load on
the machine affects both; a figure is the median of the runs' medians.

The times of ncnn include only its networks and its own resizing. The work between them
(thresholds, overlaps, alignment) is left out in its favour. The time of mtcnn is its
detection, without an embedding. mtcnn and ONNX Runtime are skipped if not installed.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import ncnn
import numpy as np
from PIL import Image

PYRAMID_FACTOR = 0.709
WINDOW = 12
# Side of the recognizer's input.
SIDE = 128
MEAN = [127.5] * 3
SCALE = [1 / 128.0] * 3


def load(folder, name):
    net = ncnn.Net()
    net.opt.num_threads = 1
    # f32 on both sides.
    net.opt.use_fp16_packed = False
    net.opt.use_fp16_storage = False
    net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    for failed in (net.load_param(f"{folder}/{name}.param"), net.load_model(f"{folder}/{name}.bin")):
        if failed:
            sys.exit(f"{folder}/{name}: cannot be loaded; name the folder of ncnn weights")
    return net


def converted(onnx, folder):
    """Converts the recognizer with pnnx; returns ncnn's network."""
    name = "recognizer"
    copy = f"{folder}/{name}.onnx"
    shutil.copy(onnx, copy)
    shape = f"inputshape=[1,3,{SIDE},{SIDE}]"
    subprocess.run(["pnnx", copy, shape, "fp16=0"], check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return load(folder, f"{name}.ncnn")


def run(net, picture, outputs, name="data"):
    extractor = net.create_extractor()
    extractor.input(name, picture)
    for output in outputs:
        extractor.extract(output)


class Peer:
    """The same work with ncnn; times in milliseconds."""

    def __init__(self, folder, embedder, picture, minimum_face, windows):
        self.pnet, self.rnet, self.onet = (load(folder, name) for name in ("det1", "det2", "det3"))
        self.embedder = embedder
        self.picture = picture
        height, width = picture.shape[:2]
        self.scales = []
        scale = WINDOW / minimum_face
        while min(width, height) * scale >= WINDOW:
            self.scales.append((math.ceil(width * scale), math.ceil(height * scale)))
            scale *= PYRAMID_FACTOR
        self.windows = windows
        side = min(width, height) // 2
        self.window = (width // 4, height // 4, side, side)

    def resized(self, width, height):
        full_height, full_width = self.picture.shape[:2]
        rgb = ncnn.Mat.PixelType.PIXEL_RGB
        mat = ncnn.Mat.from_pixels_resize(self.picture, rgb, full_width, full_height, width, height)
        mat.substract_mean_normalize(MEAN, SCALE)
        return mat

    def crop(self, side):
        height, width = self.picture.shape[:2]
        rgb = ncnn.Mat.PixelType.PIXEL_RGB
        mat = ncnn.Mat.from_pixels_roi_resize(self.picture, rgb, width, height, *self.window, side, side)
        mat.substract_mean_normalize(MEAN, SCALE)
        return mat

    def once(self):
        times = {}
        began = time.perf_counter()
        for width, height in self.scales:
            run(self.pnet, self.resized(width, height), ["prob1", "conv4-2"])
        times["pnet"] = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(self.windows["rnet"]):
            run(self.rnet, self.crop(24), ["prob1", "conv5-2"])
        times["rnet"] = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(self.windows["onet"]):
            run(self.onet, self.crop(48), ["prob1", "conv6-2", "conv6-3"])
        times["onet"] = time.perf_counter() - began
        face = ncnn.Mat(np.zeros((3, SIDE, SIDE), np.float32)).clone()
        began = time.perf_counter()
        run(self.embedder, face, ["out0"], "in0")
        times["embed"] = time.perf_counter() - began
        times["detect"] = times["pnet"] + times["rnet"] + times["onet"]
        times["total"] = times["detect"] + times["embed"]
        return {stage: 1e3 * seconds for stage, seconds in times.items()}

    def medians(self, rounds):
        runs = [self.once() for _ in range(rounds)]
        return {stage: statistics.median(r[stage] for r in runs) for stage in runs[0]}


class Runtime:
    """The recognizer with ONNX Runtime on one thread: the floating-point file and the 8-bit
    file that facelatch runs."""

    def __init__(self, files):
        try:
            import onnxruntime
        except ImportError:
            self.sessions = {}
            return
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.sessions = {
            name: onnxruntime.InferenceSession(file, options, providers=providers)
            for name, file in files.items()
        }

    def medians(self, rounds):
        face = np.zeros((1, 3, SIDE, SIDE), np.float32)
        medians = {}
        for name, session in self.sessions.items():
            times = []
            for _ in range(rounds):
                began = time.perf_counter()
                session.run(None, {session.get_inputs()[0].name: face})
                times.append(time.perf_counter() - began)
            medians[name] = 1e3 * statistics.median(times)
        return medians


class PythonMtcnn:
    """Detection with the Python package mtcnn, on TensorFlow."""

    def __init__(self, picture, minimum_face):
        self.picture, self.detector = picture, None
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
            os.environ[name] = "1"
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        try:
            from mtcnn.mtcnn import MTCNN
        except ImportError:
            return
        self.detector = MTCNN(min_face_size=minimum_face)

    def milliseconds(self):
        began = time.perf_counter()
        # It prints one line per network.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            self.detector.detect_faces(self.picture)
        return 1e3 * (time.perf_counter() - began)


def framed(picture, sides, folder):
    """Cuts the upper part of a picture and scales it to `sides`; returns it and its file."""
    width, height = map(int, sides.split("x"))
    part = min(picture.height, round(picture.width * height / width))
    frame = picture.crop((0, 0, picture.width, part)).resize((width, height), Image.BICUBIC)
    file = f"{folder}/frame.png"
    frame.save(file)
    return frame, file


def ours(arguments):
    command = [arguments.facelatch, "bench", "--json", "--image", arguments.image]
    command += ["--rounds", str(arguments.rounds), "--minimum-face", str(arguments.minimum_face)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    times = {stage: figures["median_ms"] for stage, figures in report["stages"].items()}
    # The other program does not search 10,000 people.
    times["total"] -= times["match"]
    return times, report["windows"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="folder of ncnn weights")
    parser.add_argument("--image", required=True, help="picture with a face")
    parser.add_argument("--frame", metavar="WxH", help="cut and scale the picture to these sides")
    parser.add_argument("--facelatch", default="target/release/facelatch")
    parser.add_argument("--minimum-face", type=float, default=40.0)
    parser.add_argument("--runs", type=int, default=7, help="alternating runs of each side")
    parser.add_argument("--rounds", type=int, default=20, help="pictures a run")
    parser.add_argument("--models", default="models", help="8-bit models, with float/ in it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    picture = Image.open(arguments.image).convert("RGB")
    folder = tempfile.TemporaryDirectory()
    if arguments.frame:
        picture, arguments.image = framed(picture, arguments.frame, folder.name)
    picture = np.ascontiguousarray(picture)
    _, windows = ours(arguments)
    network = "mobilefacenet.onnx"
    embedder = converted(f"{arguments.models}/float/{network}", folder.name)
    peer = Peer(arguments.weights, embedder, picture, arguments.minimum_face, windows)
    peer.medians(2)
    runtime = Runtime(
        {
            "onnxruntime f32": f"{arguments.models}/float/{network}",
            "onnxruntime int8": f"{arguments.models}/{network}",
        }
    )
    python = PythonMtcnn(picture, arguments.minimum_face)
    if python.detector:
        python.milliseconds()
    all_ours, all_theirs, all_runtime, all_python = [], [], [], []
    for _ in range(arguments.runs):
        all_ours.append(ours(arguments)[0])
        all_theirs.append(peer.medians(arguments.rounds))
        all_runtime.append(runtime.medians(arguments.rounds))
        if python.detector:
            all_python.append(python.milliseconds())
    stages = {}
    for stage in ("pnet", "rnet", "onet", "detect", "embed", "total"):
        mine = statistics.median(times[stage] for times in all_ours)
        theirs = statistics.median(times[stage] for times in all_theirs)
        stages[stage] = {"facelatch_ms": mine, "ncnn_ms": theirs, "ratio": mine / theirs}
    for name in runtime.sessions:
        theirs = statistics.median(times[name] for times in all_runtime)
        mine = stages["embed"]["facelatch_ms"]
        stages[f"embed, {name}"] = {"facelatch_ms": mine, "peer_ms": theirs, "ratio": mine / theirs}
    if all_python:
        theirs, mine = statistics.median(all_python), stages["total"]["facelatch_ms"]
        stages["total, mtcnn"] = {"facelatch_ms": mine, "peer_ms": theirs, "ratio": mine / theirs}
    if arguments.json:
        print(json.dumps({"windows": windows, "ncnn": ncnn.__version__, "stages": stages}))
        return
    height, width = picture.shape[:2]
    print(f"{width}x{height}, {windows['rnet']} R-Net and {windows['onet']} O-Net windows, ncnn {ncnn.__version__}")
    print(f"{'stage':24}{'facelatch':>12}{'ncnn':>10}{'ratio':>8}")
    for stage, figures in stages.items():
        print(
            f"{stage:24}{figures['facelatch_ms']:9.2f} ms"
            f"{figures.get('ncnn_ms', figures.get('peer_ms')):7.2f} ms"
            f"{figures['ratio']:8.3f}"
        )


if __name__ == "__main__":
    main()
