#!/usr/bin/env python3
"""Makes a signed set of models for the tests: the shipped networks with a self-test.

    signed.py FOLDER KEY PROGRAM...

FOLDER gets the set, KEY is the file of an ed25519 key (PEM; made if it is missing), PROGRAM
is the door's program with what runs it. Prints the public key as models.trusted_keys has it.
facelatch-tools does the same for real sets, with more checks; it needs libtorch.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2]
MODELS = SOURCES / "models"
PICTURES = ("astronaut.jpg", "grace_hopper.jpg")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def openssl(*arguments, **options) -> bytes:
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, **options).stdout


def self_test(folder: Path, program: list):
    """Records what the networks find in two pictures."""
    vectors = []
    for name in PICTURES:
        shutil.copyfile(SOURCES / "assets" / name, folder / name)
        said = subprocess.run([*program, "embed", "--json", "--nearest", "--models", str(MODELS),
                               str(folder / name)], check=True, capture_output=True, text=True).stdout
        face = json.loads(said)["faces"][0]
        vectors.append({"picture": {"file": name, "sha256": digest(folder / name)},
                        "box": face["box"], "landmarks": face["landmarks"], "embedding": face["embedding"],
                        "tolerance": {"iou": 0.95, "landmarks": 0.5, "cosine": 0.999}})
    (folder / "selftest.json").write_text(json.dumps({"format": 1, "vectors": vectors}))


def blob(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def main():
    folder, key, program = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*MODELS.glob("*.onnx"), MODELS / "covered.json"):
        shutil.copyfile(path, folder / path.name)
    self_test(folder, program)
    manifest = (MODELS / "manifest.toml").read_text()
    manifest += f'\n[selftest]\nfile = "selftest.json"\nsha256 = "{digest(folder / "selftest.json")}"\n'
    manifest = 'signed_at = "2026-12-01T00:00:00Z"\n' + manifest
    (folder / "manifest.toml").write_text(manifest)
    if not key.exists():
        key.write_bytes(openssl("genpkey", "-algorithm", "ed25519"))
    public = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")[-32:]
    line = "ssh-ed25519 " + base64.b64encode(blob(b"ssh-ed25519", public)).decode()
    message = folder / "message"
    message.write_bytes(b"facelatch model set\0" + hashlib.sha256(manifest.encode()).digest())
    signature = openssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", message)
    message.unlink()
    (folder / "manifest.sig").write_text(
        f'purpose = "model set"\nkey = "{line}"\nsignature = "{base64.b64encode(signature).decode()}"\n')
    print(line)


if __name__ == "__main__":
    main()
