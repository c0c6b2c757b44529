"""Tiny random models of every decoder family, each with what is peculiar to it switched on."""

from __future__ import annotations

from typing import Any

import torch
import transformers

VOCABULARY = 96

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 56, "n_positions": 64}

# name -> (config class, options); the model class is whatever AutoModelForCausalLM makes of it.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox_parallel": (
        "GPTNeoXConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "use_parallel_residual": True,
        },
    ),
    "gpt_neox_sequential": (
        "GPTNeoXConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
        },
    ),
    "llama": ("LlamaConfig", {**_LLAMA, "mlp_bias": True, "attention_bias": True}),
    "llama_tied": ("LlamaConfig", {**_LLAMA, "tie_word_embeddings": True}),
    "olmo": ("OlmoConfig", _LLAMA),
    "olmo2": ("Olmo2Config", _LLAMA),
    "olmo3": ("Olmo3Config", {**_LLAMA, "sliding_window": 4}),
    "gpt2": ("GPT2Config", _GPT2),
    "gpt2_reordered": (
        "GPT2Config",
        {**_GPT2, "reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True},
    ),
    "gptj": ("GPTJConfig", {**_GPT2, "rotary_dim": 4}),
    "qwen2": ("Qwen2Config", _LLAMA),
    "qwen2_window": (
        "Qwen2Config",
        {**_LLAMA, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3Config", _LLAMA),
    "mistral_window": ("MistralConfig", {**_LLAMA, "sliding_window": 4}),
    "phi": ("PhiConfig", {**_LLAMA, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3Config", {**_LLAMA, "pad_token_id": 0, "sliding_window": 5}),
    "opt_pre": (
        "OPTConfig",
        {
            "hidden_size": 32,
            "ffn_dim": 56,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
            "do_layer_norm_before": True,
        },
    ),
    "opt_post": (
        "OPTConfig",
        {
            "hidden_size": 32,
            "ffn_dim": 56,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
        },
    ),
    "gemma": ("GemmaConfig", _LLAMA),
    "gemma2": (
        "Gemma2Config",
        {
            **_LLAMA,
            "sliding_window": 4,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 16,
        },
    ),
    "gemma3": ("Gemma3TextConfig", {**_LLAMA, "sliding_window": 4, "query_pre_attn_scalar": 16}),
    "cohere": ("CohereConfig", {**_LLAMA, "logit_scale": 0.5, "use_qk_norm": True}),
    "cohere2": ("Cohere2Config", {**_LLAMA, "sliding_window": 4, "logit_scale": 0.5}),
    "granite": (
        "GraniteConfig",
        {**_LLAMA, "residual_multiplier": 0.5, "embedding_multiplier": 3.0, "logits_scaling": 2.0},
    ),
    "stablelm": (
        "StableLmConfig",
        {**_LLAMA, "use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
    ),
    "smollm3": ("SmolLM3Config", {**_LLAMA, "pad_token_id": 0}),
    "apertus": ("ApertusConfig", _LLAMA),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "falcon_alibi": (
        "FalconConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "alibi": True,
            "multi_query": False,
            "new_decoder_architecture": False,
            "parallel_attn": False,
            "bias": True,
        },
    ),
    "falcon_rotary": (
        "FalconConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
        },
    ),
    "mpt": (
        "MptConfig",
        {"d_model": 32, "n_heads": 4, "n_layers": 3, "expansion_ratio": 2, "max_seq_len": 64},
    ),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 56,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
    ),
}


def make(name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A random model of the family, with weights large enough that nothing is near linear."""
    kind, options = FAMILIES[name]
    config = getattr(transformers, kind)(**{"vocab_size": VOCABULARY, **options, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.25) if weight.dim() > 1 else weight.data.add_(
                0.2 * torch.randn_like(weight)
            )
    return model
