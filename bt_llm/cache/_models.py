"""Who a model is, as it is stored under all its names, and how that is read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bt_llm.exceptions import CacheCorruptError
from bt_llm.models import ModelIdentity

__all__ = ["checked_model", "model_document", "model_from_document"]


def model_document(identity: ModelIdentity, names: Sequence[str]) -> dict[str, Any]:
    """Return an identity as it is stored, under every name it is known by."""
    return {
        "names": sorted(names),
        "sha256": identity.sha256,
        "chat_template": identity.chat_template,
        "bos_token": identity.bos_token,
        "eos_token": identity.eos_token,
        "details": dict(identity.details),
    }


def model_from_document(document: Mapping[str, Any], name: str | None = None) -> ModelIdentity:
    """Return the identity of a checked document, under one of its names or the first."""
    texts = {field: document[field] for field in ("sha256", "chat_template", "bos_token", "eos_token")}
    return ModelIdentity(name=name or document["names"][0], details=document["details"], **texts)


def checked_model(sha256: str, document: Any) -> dict[str, Any]:
    """Return the stored document of a model; the input is untrusted."""
    texts = ("sha256", "chat_template", "bos_token", "eos_token")
    right = (
        isinstance(document, dict)
        and set(document) == {"names", "details", *texts}
        and all(isinstance(document[name], str) for name in texts)
        and isinstance(document["names"], list)
        and bool(document["names"])
        and all(isinstance(name, str) for name in document["names"])
        and isinstance(document["details"], dict)
        and document["sha256"] == sha256
    )
    if not right:
        raise CacheCorruptError(
            f"stored identity of model {sha256[:12]}: it is not one; import a pack or record again"
        )
    return dict(document)
