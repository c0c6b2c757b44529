"""Tiny Llama models as GGUF files, written with the format's own package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

LAYERS, HIDDEN, WIDTH, HEADS, KV_HEADS, HEAD = 2, 32, 64, 4, 2, 8
WORDS = ("cat", "dog", "red", "says", "meow", "which", "pet")
PACKED = GGMLQuantizationType.Q8_0
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level tokenizer with a token for each word and its space."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = [chr(byte) for byte in shown] + [chr(256 + place) for place in range(len(hidden))]
    tokens, merges = ["<unk>", "<s>", "</s>", *letters], []
    for word in WORDS:
        head = "Ġ"
        for letter in word:
            merges.append(f"{head} {letter}")
            head += letter
            tokens.append(head)
    return list(dict.fromkeys(tokens)), list(dict.fromkeys(merges))


def weights(seed: int, *, tied: bool = False) -> dict[str, np.ndarray]:
    """Random weights by their transformers names."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    made = {"model.embed_tokens.weight": draw(len(vocabulary()[0]), HIDDEN)}
    made["model.norm.weight"] = 1 + draw(HIDDEN)
    if not tied:
        made["lm_head.weight"] = draw(len(vocabulary()[0]), HIDDEN)
    for layer in range(LAYERS):
        home = f"model.layers.{layer}"
        for name, shape in (
            ("self_attn.q_proj", (HEADS * HEAD, HIDDEN)),
            ("self_attn.k_proj", (KV_HEADS * HEAD, HIDDEN)),
            ("self_attn.v_proj", (KV_HEADS * HEAD, HIDDEN)),
            ("self_attn.o_proj", (HIDDEN, HEADS * HEAD)),
            ("mlp.gate_proj", (WIDTH, HIDDEN)),
            ("mlp.up_proj", (WIDTH, HIDDEN)),
            ("mlp.down_proj", (HIDDEN, WIDTH)),
        ):
            made[f"{home}.{name}.weight"] = draw(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{home}.{name}.weight"] = 1 + draw(HIDDEN)
    return made


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs side by side, as the format has them; transformers has them half apart."""
    order = [
        head * HEAD + half * HEAD // 2 + place
        for head in range(heads)
        for place in range(HEAD // 2)
        for half in (0, 1)
    ]
    return weight[order]


def write(
    path: Path,
    tensors: dict[str, np.ndarray],
    *,
    packed: bool = True,
    architecture: str = "llama",
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a tiny Llama as GGUF, its feed-forward weights quantised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_context_length(64)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens, merges = vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(merges)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in (extra or {}).items():
        if isinstance(value, np.ndarray):
            writer.add_tensor(name, value)
        else:
            writer.add_string(name, value)
    for name, tensor in tensors.items():
        given, kind = as_gguf(name, tensor)
        if packed and ".ffn_" in given and "norm" not in given:
            writer.add_tensor(given, quantize(kind, PACKED), raw_dtype=PACKED)
        else:
            writer.add_tensor(given, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_gguf(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        return outer[name], tensor
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    if NAMES[part] in ("attn_q", "attn_k"):
        tensor = interleaved(tensor, HEADS if NAMES[part] == "attn_q" else KV_HEADS)
    return f"blk.{layer}.{NAMES[part]}.weight", tensor


def as_read(name: str, tensor: np.ndarray) -> np.ndarray:
    """What a reader must get: the numbers that a packed tensor stands for."""
    if ".mlp." not in name:
        return tensor
    return dequantize(quantize(tensor, PACKED), PACKED)


def twin(tensors: dict[str, np.ndarray]) -> Any:
    """The same model built without any file."""
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary()[0]),
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
    return model
