"""Describe weights for model cards, and resolve cards to verified folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path

from toxtrail.backends.checkpoint_files.converted_copies import ConvertedCopy
from toxtrail.backends.checkpoint_files.pickled_weights import safetensors_copy
from toxtrail.backends.checkpoint_files.weight_files import (
    checkpoint_files,
    has_only_pickled_weights,
    refuse_outside_names,
    refuse_unhashed_vocabulary,
    stored_tensors,
)
from toxtrail.backends.huggingface.weights.adapters import base_claim, check_adapter
from toxtrail.backends.huggingface.weights.card_metadata import read_readme
from toxtrail.backends.huggingface.weights.gguf import converted_gguf
from toxtrail.backends.huggingface.weights.pretrained import (
    chat_template_sha256,
    load_tokenizer,
    meta_model,
    read_config,
    tokenizer_sha256,
)
from toxtrail.backends.huggingface.weights.tokenizer import (
    NamedFolder,
    refuse_unknown_tokens,
    tokenizer_differences,
    tokenizer_of,
)
from toxtrail.backends.protocols import Asset, Assets, Progress
from toxtrail.config.asset_uris import COMMIT, HfUri, parse_uri
from toxtrail.errors import BackendError
from toxtrail.provenance.identity import Adapter, BaseWeights, FileHash, sha256_file
from toxtrail.provenance.identity_caveats import other_base

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
           "I8": "int8", "U8": "uint8"}  # fmt: skip


class HuggingFaceWeights:
    """Weights that transformers can load: a repo, a folder, or one GGUF file."""

    def __init__(self, assets: Assets, cache: Path, progress: Progress) -> None:
        self._assets = assets
        self._cache = cache
        self._progress = progress

    def describe(self, uri: str, sha256: str | None) -> BaseWeights:
        """Fetch weights and hash everything that affects their output.

        Raises:
            BackendError: no safetensors, code from the repo would be needed, a file is damaged or
                not hashed, or the file differs from its pin.
        """
        asset = self._assets.fetch(uri, sha256)
        copy = self._converted(asset)
        folder = copy.folder if copy else asset.path
        hashed = {file.path for file in (copy.files if copy else asset.files)}
        refuse_adapter(folder, uri)
        refuse_outside_names(folder, uri, hashed)
        model = meta_model(folder, uri)
        dtype = stored_dtype(checkpoint_files(folder, uri, hashed), uri)
        tokenizer = load_tokenizer(folder, uri)
        refuse_unhashed_vocabulary(tokenizer.vocab_files_names, folder, uri, hashed)
        return BaseWeights(
            uri=uri,
            resolved=asset.resolved,
            sha256=asset.sha256,
            files=asset.files,
            converted=copy.files if copy else (),
            architecture=type(model).__name__,
            parameters=sum(weight.numel() for weight in model.parameters()),
            stored_dtype=dtype,
            quantization=(copy and copy.quantization) or quantization(folder, uri),
            tokenizer_sha256=tokenizer_sha256(tokenizer),
            chat_template_sha256=chat_template_sha256(tokenizer),
            license=(copy and copy.license) or readme_license(folder),
        )

    def describe_adapter(
        self, key: str, uri: str, sha256: str | None, base: BaseWeights
    ) -> Adapter:
        """Fetch a LoRA adapter, and check that it fits the base and changes it. Pickled weights are
        converted to safetensors first.

        Raises:
            BackendError: no weights, pickled ones with more than tensors, a missing or unexpected
                tensor, all `lora_B` zero, or a file that is not hashed would be read.
        """
        asset, adapter, copy = self._fetch_adapter(uri, sha256)
        base_files = NamedFolder(base.uri, self.folder(base))
        embeddings = check_adapter(adapter.folder, base_files.folder, uri)
        before, tokenizer = tokenizer_of(base_files, ()), tokenizer_of(base_files, (adapter,))
        refuse_unknown_tokens(tokenizer, before, embeddings, uri)
        differences = tokenizer_differences(tokenizer, before)
        return Adapter(
            key=key, uri=uri, resolved=asset.resolved, sha256=asset.sha256, files=asset.files,
            converted=copy.files if copy else (), training=None,
            other_base=other_base(base_claim(asset.path), base.uri),
            **differences._asdict(),
        )  # fmt: skip

    def require_fitting_adapter(self, uri: str, base_folder: Path) -> None:
        """Fetch a LoRA adapter, and check that it fits the model of base_folder/config.json and
        changes it. The weights of the base are not read.

        Raises:
            BackendError: as `describe_adapter`, without what depends on the base's tokenizer.
        """
        check_adapter(self._fetch_adapter(uri, None)[1].folder, base_folder, uri)

    def _fetch_adapter(
        self, uri: str, sha256: str | None
    ) -> tuple[Asset, NamedFolder, ConvertedCopy | None]:
        """Return an adapter as fetched, and its folder with safetensors, which may be a copy."""
        asset = self._assets.fetch(uri, sha256)
        refuse_outside_names(asset.path, uri, {file.path for file in asset.files})
        copy = self._safetensors_copy(asset)
        return asset, NamedFolder(uri, copy.folder if copy else asset.path), copy

    def folder(self, base: BaseWeights) -> Path:
        """Return the folder that from_pretrained loads, with every file hashed again.

        Raises:
            BackendError: a file differs from the card (the message has both hashes).
        """
        asset = self._assets.fetch(pinned_uri(base.uri, base.resolved), base.sha256)
        root = asset.path if asset.path.is_dir() else asset.path.parent
        self.verify(root, base.files, base.uri)
        if not base.converted:
            hashed = {file.path for file in base.files}
            refuse_outside_names(asset.path, base.uri, hashed)
            checkpoint_files(asset.path, base.uri, hashed)
            return asset.path
        return _recorded_copy(self._converted(asset), base.converted, base.uri)

    def adapter_folder(self, adapter: Adapter, trained: Path) -> Path:
        """Return the folder of an adapter, with every file hashed again.

        Args:
            trained: models/<variant>/adapters, the folder of adapters trained here.
        """
        if adapter.uri is None:
            folder, asset, name = trained / adapter.key, None, f"adapter {adapter.key}"
        else:
            asset = self._assets.fetch(pinned_uri(adapter.uri, adapter.resolved), adapter.sha256)
            folder, name = asset.path, adapter.uri
        self.verify(folder, adapter.files, name)
        refuse_outside_names(folder, name, {file.path for file in adapter.files})
        if asset is None or not adapter.converted:
            return folder
        return _recorded_copy(self._safetensors_copy(asset), adapter.converted, name)

    def verify(self, root: Path, files: Iterable[FileHash], name: str) -> None:
        """Hash files and compare them with a card.

        Raises:
            BackendError: one is missing or differs.
        """
        listed = tuple(files)
        label = f"verify {name}"
        with self._progress.bar(label, sum(file.size for file in listed), "bytes") as advance:
            for file in listed:
                actual = (
                    sha256_file(root / file.path) if (root / file.path).is_file() else "no file"
                )
                if actual != file.sha256:
                    raise BackendError(
                        f"{name}: {file.path} differs from the model card: found {actual}, the "
                        f"card has {file.sha256}. Delete {root.name} and fetch or create it again."
                    )
                advance(file.size)

    def _converted(self, asset: Asset) -> ConvertedCopy | None:
        """Return the safetensors copy of a GGUF file or of pickled weights; None if the weights are
        safetensors."""
        is_gguf = asset.path.is_file()
        if is_gguf and asset.path.suffix.lower() != ".gguf":
            raise BackendError(
                f"{asset.uri}: {asset.path.name} is a single file, but not a GGUF file. Give a "
                "folder with config.json and safetensors, or a .gguf file."
            )
        if not is_gguf:
            return self._safetensors_copy(asset)
        with self._progress.bar(f"convert {asset.path.name}", None, "files") as advance:
            copy = converted_gguf(asset.path, asset.sha256, self._cache)
            advance(1)
        return copy

    def _safetensors_copy(self, asset: Asset) -> ConvertedCopy | None:
        """Return the safetensors copy of pickled weights; None if they are safetensors."""
        if not has_only_pickled_weights([file.path for file in asset.files]):
            return None
        with self._progress.bar(f"convert {asset.path.name}", None, "files") as advance:
            copy = safetensors_copy(asset, self._cache)
            advance(1)
        return copy


def _recorded_copy(copy: ConvertedCopy | None, recorded: tuple[FileHash, ...], name: str) -> Path:
    """Return the folder of a converted copy.

    Raises:
        BackendError: it differs from the one on the model card.
    """
    if copy is None or copy.files != recorded:
        raise BackendError(
            f"{name}: these libraries convert its weights to others than those on its model card. "
            "Install the versions of requirements.txt, or run the stage that writes its model.json "
            "again."
        )
    return copy.folder


def pinned_uri(uri: str, resolved: str | None) -> str:
    """Replace a branch in the address with the commit, so that a moved branch has no effect."""
    address = parse_uri(uri)
    if not isinstance(address, HfUri) or not COMMIT.fullmatch(resolved or ""):
        return uri
    return str(replace(address, revision=resolved))


def refuse_adapter(folder: Path, name: str) -> None:
    """Raise if the folder is an adapter: transformers would load another base model for it."""
    if (folder / "adapter_config.json").exists():
        raise BackendError(
            f"{name} is an adapter, not a model. Set uri to the base and adapter.uri to this."
        )


def stored_dtype(files: Iterable[Path], name: str) -> str:
    """Return the stored dtypes, the most frequent first: `bfloat16`, `uint8+float16`.

    Raises:
        BackendError: a file is not an intact safetensors file.
    """
    sizes: Counter[str] = Counter()
    for path in files:
        for tensor in stored_tensors(path, name).values():
            sizes[_DTYPES.get(tensor.dtype, tensor.dtype.lower())] += prod(tensor.shape)
    return "+".join(dtype for dtype, _ in sizes.most_common())


def quantization(folder: Path, name: str) -> str | None:
    """Return the quantization in config.json: `bitsandbytes 4-bit`."""
    settings = getattr(read_config(folder, name), "quantization_config", None)
    if settings is None:
        return None
    values = settings if isinstance(settings, dict) else settings.to_dict()
    bits = values.get("bits") or (4 if values.get("load_in_4bit") else None)
    method = str(values.get("quant_method", "unknown method"))
    return f"{method} {bits}-bit" if bits else method


def readme_license(folder: Path) -> str | None:
    """Return `license:` of the model card's front matter."""
    license_name = read_readme(folder).values.get("license")
    return str(license_name) if license_name else None
