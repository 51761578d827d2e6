"""The identity of a file of generated texts, used in place of a model's."""

from __future__ import annotations

from toxtrail.backends.protocols import Assets
from toxtrail.config.schema import ModelConfig, TextsConfig
from toxtrail.datasets.generated_texts import read_generated_texts
from toxtrail.errors import ConfigError, DataError
from toxtrail.provenance.identity import BaseWeights, ModelIdentity, TextsRecord


def build_texts_identity(
    key: str, config: ModelConfig, texts: TextsConfig, assets: Assets
) -> ModelIdentity:
    """Fetch, verify and read a file of texts completely.

    Raises:
        ConfigError: the URI is a folder.
        DataError: the file cannot be read as configured in params.yaml.
    """
    asset = assets.fetch(config.uri, config.sha256)
    if not asset.path.is_file():
        raise ConfigError(f"models.{key}.uri: {asset.uri} is a folder; name one file of it.")
    try:
        rows = read_generated_texts(asset.path, texts)
    except DataError as error:
        raise DataError(f"models.{key}: {error}") from None
    base = BaseWeights(
        uri=asset.uri,
        resolved=asset.resolved,
        sha256=asset.sha256,
        files=asset.files,
        converted=(),
        architecture="none",
        parameters=0,
        stored_dtype="none",
        quantization=None,
        tokenizer_sha256="none",
        chat_template_sha256=None,
        license=None,
    )
    record = TextsRecord(
        reader=texts.plain(), texts=len(rows), prompts=len({row.prompt for row in rows})
    )
    return ModelIdentity(key=key, base=base, adapters=(), texts=record)
