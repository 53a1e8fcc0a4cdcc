"""Which files hold the weights of a timm backbone."""

from __future__ import annotations

from pathlib import Path

import timm
from timm.models import PretrainedCfg, get_pretrained_cfg

from zoo.errors import UnknownNameError, WeightsError
from zoo.registry import Asset


def timm_assets(backbone: str) -> list[Asset]:
    """Return the files of a backbone, best first: what lies in Hugging Face's cache, its files on the hub, its URL.

    Raises UnknownNameError, and WeightsError for a backbone that timm publishes no weights for.
    """
    config = _config(backbone)
    repository, _, revision = (config.hf_hub_id or "").partition("@")
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if repository:
        from huggingface_hub import try_to_load_from_cache

        for name in names:
            found = try_to_load_from_cache(repository, name, revision=revision or None)
            if isinstance(found, str):
                return [Asset(summary=backbone, file=str(Path(found).absolute()))]
    base = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}"
    kept = repository.replace("/", "--")
    assets = (
        [Asset(summary=backbone, url=f"{base}/{name}", kept_as=f"{kept}--{name}") for name in names]
        if repository
        else []
    )
    if isinstance(config.url, str) and config.url:
        assets.append(Asset(summary=backbone, url=config.url))
    return assets


def _config(backbone: str) -> PretrainedCfg:
    if not timm.is_model(backbone):
        raise UnknownNameError("timm backbone", backbone, timm.list_models())
    try:
        config = get_pretrained_cfg(backbone)
    except RuntimeError as error:
        known = [name for name in timm.list_pretrained() if name.startswith(backbone.partition(".")[0] + ".")]
        raise UnknownNameError("timm backbone", backbone, known) from error
    if config is None or not config.has_weights:
        raise WeightsError(f"timm publishes no weights for {backbone}: choose a backbone of 'timm.list_pretrained()'.")
    return config


__all__ = ["timm_assets"]
