"""Where published checkpoints are: the table `published.json`, torchvision's own list, and timm's on the Hugging Face hub.

Names: `lufficc/…`, `mmcls/…` and others from the table; `torchvision/resnet50.IMAGENET1K_V2`; `timm/resnet50.a1_in1k`. URLs, sizes and figures are
quoted from the `page` of each entry.
"""
from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from saccade.errors import InputError, StorageError


@dataclass(frozen=True)
class Published:
    """One published checkpoint.

    `origin`: its key map ("auto": recognised); `recipe`: the recipe whose model it fills, where there is one; `megabytes` and `sha256` (a prefix of
    the file's digest) where they are known; `figures`: what its authors report on `data`'s usual test set, 0..1; `page`: where this was read.
    """

    name: str
    system: str
    origin: str
    recipe: str | None
    data: str
    url: str
    megabytes: float | None
    sha256: str | None
    licence: str
    figures: Mapping[str, float] = field(default_factory=dict)
    page: str = ""

    @property
    def file(self) -> str:
        """The file's name in the cache: that of the URL, below the name's first part, so that equal names of two sources stay apart."""
        return f"{self.name.partition('/')[0]}/{Path(urlsplit(self.url).path).name}"


def published() -> dict[str, Published]:
    """The table by name."""
    rows = json.loads(resources.files("saccade.weights").joinpath("published.json").read_text(encoding="utf-8"))
    return {row["name"]: Published(**row) for row in rows}


def torchvision_weights() -> dict[str, Published]:
    """The weights that the installed torchvision offers, by name; their file names hold the first eight digits of the digest."""
    from torchvision import models

    result = {}
    for model in models.list_models():
        for weights in models.get_model_weights(model):
            digest = re.search(r"-([0-9a-f]{8,})\.pth$", weights.url)
            data, figures = next(iter(weights.meta.get("_metrics", {}).items()), ("", {}))
            name = f"torchvision/{model}.{weights.name}"
            result[name] = Published(
                name=name,
                system=model,
                origin="torchvision",
                recipe=None,
                data=data,
                url=weights.url,
                megabytes=weights.meta.get("_file_size"),
                sha256=digest[1] if digest else None,
                licence="BSD-3-Clause (code); the data's own terms",
                figures={f"classification/top{key[-1]}": value / 100 for key, value in figures.items() if key.startswith("acc@")},
                page="torchvision.models",
            )
    return result


def find(name: str) -> Published:
    """The published checkpoint `name`. Raises InputError with the nearest names."""
    known = torchvision_weights() if name.startswith("torchvision/") else published()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [n for n in known if name and name in n][:3]
    hint = f" Near: {', '.join(near)}." if near else ""
    raise InputError(f"There is no file, folder or published checkpoint {name!r}.{hint} `saccade weights list` shows what is published.")


def fetch_published(name: str) -> Path:
    """The file of a published checkpoint, downloaded into the cache unless it lies there. Raises InputError, StorageError (see `download`)."""
    if name.startswith("timm/"):
        return _fetch_timm(name.removeprefix("timm/"))
    from saccade.weights.download import fetch

    entry = find(name)
    return fetch(entry.url, entry.file, entry.sha256)


def _fetch_timm(model: str) -> Path:
    """timm's weights from the hub, through its own client, which resumes, checks and caches."""
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    settings = timm.models.get_pretrained_cfg(model) if timm.is_model(model.partition(".")[0]) else None
    hub = settings.hf_hub_id if settings is not None else None
    if settings is None or not isinstance(hub, str):
        known = timm.list_pretrained()
        near = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
        raise InputError(f"timm has no weights {model!r} on its hub.{' Near: ' + ', '.join(near) + '.' if near else ''}")
    repository, file = (hub if hub != "timm/" else f"timm/{model}"), settings.hf_hub_filename or "model.safetensors"
    try:
        return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise StorageError(
            f"Could not download timm/{model} from https://huggingface.co/{repository} ({type(error).__name__}). Check the network, or download "
            f"{file} there by other means and name that file instead."
        ) from None
