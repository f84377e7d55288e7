"""Key names of DETR in Hugging Face transformers (`DetrForObjectDetection`), as version 5 writes them and as the hub's files of version 4 have them.

Queries, keys and values are three matrices there and one packed matrix here; heads and layers are named differently, the tensors are the same.
Reading takes either version's names, writing gives version 5's. Left out: its segmentation model, whose mask head is another one.
"""
from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from saccade.weights.key_map import KeyMap, Tensors

_WHOLE = {  # theirs -> ours
    "model.query_position_embeddings.": "query_embed.", "model.input_projection.": "input_proj.", "class_labels_classifier.": "class_embed.",
    "bbox_predictor.": "bbox_embed.", "model.backbone.model.": "backbone.body.", "model.decoder.layernorm.": "transformer.decoder.norm.",
    "model.encoder.layernorm.": "transformer.encoder.norm.", "model.encoder.layers.": "transformer.encoder.layers.",
    "model.decoder.layers.": "transformer.decoder.layers.",
}
_ENCODER = {"self_attn_layer_norm": "norm1", "final_layer_norm": "norm2", "mlp.fc1": "linear1", "mlp.fc2": "linear2"}
_DECODER = {
    "self_attn_layer_norm": "norm1", "encoder_attn_layer_norm": "norm2", "final_layer_norm": "norm3", "mlp.fc1": "linear1", "mlp.fc2": "linear2",
    "encoder_attn.": "cross_attn.",
}
_PARTS = ("q_proj", "k_proj", "v_proj")


def to_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under our names, projections packed."""
    result: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        ours = _ours(_as_version_5(key))
        found = re.fullmatch(r"(.*_attn)\.([qkv]_proj)\.(weight|bias)", ours)
        if found is None:
            result[ours] = value
        else:
            packed.setdefault(f"{found[1]}.in_proj_{found[3]}", {})[found[2]] = value
    for key, parts in packed.items():
        if len(parts) == len(_PARTS):
            result[key] = torch.cat([parts[part] for part in _PARTS])
        else:  # an incomplete file: what there is keeps a name that the load report can show
            result |= {f"{key.replace('in_proj_', part + '.')}": value for part, value in parts.items()}
    return result


def from_saccade(tensors: Tensors, module: nn.Module) -> dict[str, Tensor]:
    """`tensors` under the names of transformers 5, projections apart."""
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        theirs = _theirs(key)
        found = re.fullmatch(r"(.*_attn)\.in_proj_(weight|bias)", theirs)
        if found is None:
            result[theirs] = value
        else:
            result |= {f"{found[1]}.{part}.{found[2]}": piece for part, piece in zip(_PARTS, value.chunk(3), strict=True)}
    return result


def recognises(keys: Collection[str]) -> bool:
    """Whether these are the keys of a `DetrForObjectDetection`."""
    return "model.query_position_embeddings.weight" in keys and "class_labels_classifier.weight" in keys


def _as_version_5(key: str) -> str:
    key = key.replace("model.backbone.conv_encoder.model.", "model.backbone.model.").replace("_attn.out_proj.", "_attn.o_proj.")
    return re.sub(r"(layers\.\d+)\.(fc[12])\.", r"\1.mlp.\2.", key)


def _layer_names(key: str) -> dict[str, str]:
    return _DECODER if "decoder.layers." in key else _ENCODER if "encoder.layers." in key else {}


def _ours(key: str) -> str:
    for theirs, ours in _WHOLE.items():
        if key.startswith(theirs):
            key = ours + key.removeprefix(theirs)
            break
    for theirs, ours in _layer_names(key).items():
        key = key.replace(f".{theirs}", f".{ours}")
    return key.replace("_attn.o_proj.", "_attn.out_proj.")


def _theirs(key: str) -> str:
    for theirs, ours in _layer_names(key).items():
        key = key.replace(f".{ours}", f".{theirs}")
    key = key.replace("_attn.out_proj.", "_attn.o_proj.")
    for theirs, ours in _WHOLE.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key


KEY_MAP = KeyMap("transformers_detr", recognises, to_saccade, from_saccade)
