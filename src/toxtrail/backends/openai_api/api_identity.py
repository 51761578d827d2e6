"""The identity of a model that is known by its name on a server only."""

from __future__ import annotations

from toxtrail.provenance.identity import ApiRecord, BaseWeights, ModelIdentity


def build_api_identity(key: str, name: str) -> ModelIdentity:
    """Return the card of a name on a server; the server is not contacted.

    Args:
        key: in `models` of params.yaml.
        name: of the model on the server.
    """
    base = BaseWeights(
        uri=f"api:{name}",
        resolved="none",
        sha256="none",
        files=(),
        converted=(),
        architecture="none",
        parameters=0,
        stored_dtype="none",
        quantization=None,
        tokenizer_sha256="none",
        chat_template_sha256=None,
        license=None,
    )
    return ModelIdentity(key=key, base=base, adapters=(), api=ApiRecord(model=name))
