#!/usr/bin/env python3
"""Prints what an image is made of, as SPDX 2.3: Debian's packages and the crates linked into
the door's program."""

import argparse
import gzip
import hashlib
import json
import re
import subprocess
import tarfile
import io
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

CRATE = re.compile(r"^([A-Za-z0-9_-]+) (\d[^ :]*): (.+)$")


def stanzas(path: Path):
    """Yields the paragraphs of a dpkg status file as dictionaries."""
    for text in path.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", text, re.MULTILINE))
        if fields.get("Status", "").endswith("ok installed"):
            yield fields


def crates(package: Path):
    """Yields (name, version, licence) from the notices in the door's package."""
    data = subprocess.check_output(["dpkg-deb", "--fsys-tarfile", str(package)])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        notices = tar.extractfile("./usr/share/doc/facelatch/licences.gz").read()
    for line in gzip.decompress(notices).decode("utf-8").split("\n" + "-" * 78)[0].splitlines():
        if match := CRATE.match(line):
            yield match.groups()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("status", "package", "image", "lists"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--firmware", type=Path, nargs="*", default=[],
                        help='files of one line, "NAME VERSION ARCHITECTURE"')
    args = parser.parse_args()
    digest = hashlib.sha256()
    with open(args.image, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    digest = digest.hexdigest()
    packages = [{
        "SPDXID": "SPDXRef-image", "name": args.image.name, "versionInfo": str(args.epoch),
        "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
    }]
    links = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
              "relatedSpdxElement": "SPDXRef-image"}]
    installed = list(stanzas(args.status))
    for path in args.firmware:
        installed.append(dict(zip(("Package", "Version", "Architecture"), path.read_text().split())))
    for fields in sorted(installed, key=lambda fields: fields["Package"]):
        name, version = fields["Package"], fields["Version"]
        number = f"SPDXRef-deb-{re.sub('[^A-Za-z0-9.-]', '-', name)}"
        packages.append({
            "SPDXID": number, "name": name, "versionInfo": version,
            "supplier": f"Organization: {fields.get('Maintainer', 'unknown')}",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION", "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "comment": f"licence: {name}/copyright in the image's licences",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}",
            }],
        })
        links.append({"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS",
                      "relatedSpdxElement": number})
    for name, version, licence in sorted(crates(args.package)):
        number = f"SPDXRef-crate-{name.replace('_', '-')}-{re.sub('[^A-Za-z0-9.-]', '-', version)}"
        packages.append({
            "SPDXID": number, "name": name, "versionInfo": version,
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": licence.replace("/", " OR ") if "see" not in licence else "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": f"pkg:cargo/{name}@{version}",
            }],
        })
        links.append({"spdxElementId": "SPDXRef-deb-facelatch", "relationshipType": "STATIC_LINK",
                      "relatedSpdxElement": number})
    lists = sorted(args.lists.glob("*InRelease"))
    print(json.dumps({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": args.image.name,
        "documentNamespace": f"https://facelatch.example/spdx/{digest}",
        "creationInfo": {
            "created": datetime.fromtimestamp(args.epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "creators": ["Tool: packaging/image/sbom.py"],
            "comment": "package lists: " + ", ".join(
                f"{path.name.split('_')[-2]} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
                for path in lists),
        },
        "packages": packages, "relationships": links,
    }, indent=1))


if __name__ == "__main__":
    main()
