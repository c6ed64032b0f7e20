"""Settings that make any causal or masked language-model type of transformers small.

COMMON has what configurations call their sizes; each type takes the names that it knows. BEYOND has what single types
need besides, by `name`, or by `name (masked)` where the masked model needs something else.
"""

from __future__ import annotations

from typing import Any

VOCABULARY = 640

_SIZES: dict[tuple[str, ...], Any] = {
    ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "lru_width"): 32,
    ("word_embed_proj_dim", "input_embedding_size", "output_embedding_size", "sliding_window"): 32,
    ("attention_window_size", "window_size"): 32,
    ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"): 2,
    ("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"): 4,
    ("encoder_attention_heads", "decoder_attention_heads", "linear_num_value_heads"): 4,
    ("num_key_value_heads", "num_kv_heads", "num_experts_per_tok", "moe_k", "linear_num_key_heads"): 2,
    ("head_dim", "linear_key_head_dim", "linear_value_head_dim", "v_head_dim", "q_lora_rank", "kv_lora_rank"): 8,
    ("intermediate_size", "d_inner", "ffn_dim", "dff", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim"): 48,
    ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"): 16,
    ("moe_shared_expert_intermediate_size",): 16,
    ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"): 4,
    ("n_group", "topk_group", "first_k_dense_replace"): 1,
    ("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"): 4,
    ("mamba_n_heads", "mamba_d_head", "mamba_num_heads", "mamba_head_dim"): 8,
    ("mamba_d_state", "mamba_chunk_size", "ssm_state_size", "state_size", "chunk_size"): 4,
    ("mamba_n_groups", "n_groups"): 2,
    ("mamba_d_ssm", "max_position_embeddings", "n_positions", "max_seq_len", "context_length"): 64,
    ("original_max_position_embeddings",): 64,
    ("use_mamba_kernels", "residual_in_fp32"): False,
}
COMMON: dict[str, Any] = {name: value for names, value in _SIZES.items() for name in names}

_ROBERTA = {"max_position_embeddings": 66}  # positions begin behind the padding's
_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16}
_LATENT = {"num_key_value_heads": 4}
_ROTATED = _LATENT | {"head_dim": 4}  # of the rotary part
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ROPES = {"sliding_attention": _ROPE, "full_attention": _ROPE}
_SMALL = {name: COMMON[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")} | {
    "num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": 64, "vocab_size": VOCABULARY
}  # fmt: skip
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
_BLT = _SMALL | {"num_key_value_heads": 4, "hidden_size_global": 32, "cross_attn_k": 1}
_REFORMER = {
    "attention_head_size": 8, "feed_forward_size": 48, "attn_layers": ["local", "local"], "axial_pos_shape": (8, 8),
    "axial_pos_embds_dim": (16, 16), "local_attn_chunk_length": 8, "hash_seed": 0,
}  # fmt: skip
_TWO_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"]}
_GEMMA4 = _TWO_WINDOWS | {"global_head_dim": 8, "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}

BEYOND: dict[str, dict[str, Any]] = {
    "axk1": _ROTATED, "deepseek_v3": _ROTATED, "youtu": _ROTATED,
    "bailing_hybrid": _LATENT | {
        "model_max_length": 64, "num_expert_group": 1, "num_experts_per_token": 2, "layer_group_size": 2,
        "num_nextn_predict_layers": 0, "num_mtp_layers": 0,
    },
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "patch_size": 2, "patch_in_forward": False, "cross_attn_k": 1, "encoder_hash_byte_group_size": [3],
        "encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_nb_functions": 1, "patcher_config": _SMALL,
        "encoder_config": _BLT, "decoder_config": _BLT | {"cross_attn_all_layers": True}, "global_config": _SMALL,
    },
    "cohere_compass_text": _TWO_WINDOWS | {"rope_parameters": _ROPES},
    "cpmant": {"dim_head": 8, "dim_ff": 48, "prompt_length": 4, "position_bias_num_buckets": 8},
    "data2vec-text": _ROBERTA,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "rope_parameters": _ROPE,
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    },
    "deberta": _DEBERTA, "deberta-v2": _DEBERTA, "roberta": _ROBERTA, "camembert": _ROBERTA, "mpnet": _ROBERTA,
    "xlm-roberta": _ROBERTA, "xlm-roberta-xl": _ROBERTA, "roberta-prelayernorm": _ROBERTA, "ibert": _ROBERTA,
    "deepseek_v4": {
        "num_key_value_heads": 1, "o_groups": 2, "o_lora_rank": 8, "index_n_heads": 2, "index_head_dim": 8,
        "index_topk": 4, "num_nextn_predict_layers": 0, "layer_types": ["sliding_attention"] * 2, "hc_mult": 2,
        "mlp_layer_types": ["moe"] * 2, "partial_rotary_factor": 0.5,
    },
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": _LATENT | {
        "index_topk": 4, "index_head_dim": 8, "index_n_heads": 2, "shared_experts_intermediate_size": 16,
        "layer_types": ["sliding_attention", "indexed_attention"], "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4, "swa_q_lora_rank": 8, "swa_kv_lora_rank": 8, "swa_head_dim": 8,
        "swa_qk_nope_head_dim": 4, "swa_v_head_dim": 8,
    },
    "esmc": {"num_key_value_heads": 4},
    "esm": {"position_embedding_type": "rotary"},
    "falcon": {"new_decoder_architecture": True},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": 8},
    "gemma3n_text": _TWO_WINDOWS | {
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "laurel_rank": 4,
        "altup_num_inputs": 2, "num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": _GEMMA4, "gemma4_unified_text": _GEMMA4,
    "git": {"vision_config": _VISION | {"image_size": 16, "patch_size": 8}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_oss": {"rope_parameters": None},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hy_v4": _LATENT | {"index_topk": 4, "index_head_dim": 8, "index_n_heads": 2, "hc_mult": 2},
    "inkling2_text": {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "sliding_window_size": 32,
        "d_rel": 4, "rel_extent": 16, "layer_types": ["hybrid_sliding", "hybrid"], "n_layers_per_attn_res_block": 1,
        "unpadded_vocab_size": VOCABULARY,
    },
    "jamba": {
        "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "kimi_linear": _LATENT | {
        "layer_types": ["linear_attention", "full_attention"], "linear_head_dim": 8, "linear_num_heads": 4,
        "mlp_layer_types": ["dense", "sparse"], "model_max_length": 64,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48, "block_multiple_of": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": _LATENT | {
        "ffn_hidden_size": 48, "head_dim": 4, "moe_topk": 2, "zero_expert_num": 2, "expert_ffn_hidden_size": 16
    },
    "longformer": {"attention_window": [4, 4]},
    "luke": _ROBERTA | {"entity_vocab_size": 20, "entity_emb_size": 8},
    "mamba2": {"num_heads": 8},
    "mllama_text_model": {"cross_attention_layers": [2], "num_hidden_layers": 3},
    "mobilebert": {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 16},
    "mpt": {"expansion_ratio": 2},
    "mra": _ROBERTA,
    "musicgen_decoder": {"num_codebooks": 1},
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "moe"]},
    "neomme": {"embedding_rank": 16, "head_dim": 16, "patch_size": 4, "embedding_dim": 16},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64},
    "perceiver": {
        "num_latents": 4, "d_latents": 32, "num_blocks": 1, "num_self_attends_per_block": 2, "qk_channels": 32,
        "num_self_attention_heads": 4, "num_cross_attention_heads": 4, "max_position_embeddings": 6, "v_channels": 32,
    },
    "phi4_multimodal": {
        "vision_config": _VISION | {"image_size": 28, "patch_size": 14, "crop_size": 28},
        "audio_config": _VISION | {
            "num_blocks": 1, "ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 32, "input_size": 16,
        },
    },
    "prophetnet": {
        "num_encoder_layers": 2, "num_decoder_layers": 2, "num_decoder_attention_heads": 4, "ngram": 2,
        "num_encoder_attention_heads": 4,
    },
    "qwen4_exp_text": {
        "layer_types": ["linear_attention", "indexed_attention"], "hc_count": 2, "hc_lowrank": 8,
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4,
        "indexer_compress_ratio": 1,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": _REFORMER, "reformer (masked)": _REFORMER | {"is_decoder": False},
    "rwkv": {"attention_hidden_size": 32},
    "squeezebert": dict.fromkeys(
        (f"{part}_groups" for part in ("q", "k", "v", "post_attention", "intermediate", "output")), 1
    ),
    "xlstm": {"hidden_size": 128, "ffn_round_up_to_multiple_of": 16, "qk_dim_factor": 0.5, "v_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zamba": {
        "num_hidden_layers": 4, "num_key_value_heads": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
        "n_mamba_heads": 2, "mamba_dt_rank": 4, "layers_block_type": ["mamba", "hybrid"] * 2,
    },
    "zamba2": {
        "num_hidden_layers": 4, "num_key_value_heads": 4, "layers_block_type": ["mamba", "hybrid"] * 2,
        "mamba_ngroups": 2, "n_mamba_heads": 8, "mamba_headdim": 8, "num_mem_blocks": 1,
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip


def settings(label: str, default: Any) -> dict[str, Any]:
    """The small settings of the type that `default`, its configuration, is of; layers of each kind that it has."""
    own = default.to_dict()
    known = set(own) | set(getattr(default, "attribute_map", {}))
    small = {name: value for name, value in COMMON.items() if name in known and not isinstance(own.get(name), list)}
    if kinds := list(dict.fromkeys(own.get("layer_types") or ())):
        small["layer_types"] = (kinds * 2)[: max(2, len(kinds))]
        small["num_hidden_layers"] = len(small["layer_types"])
    if kinds := own.get("mlp_layer_types"):
        small["mlp_layer_types"] = [kinds[0], *[kinds[-1]] * (small["num_hidden_layers"] - 1)]
    if "q_lora_rank" in small:
        small["num_key_value_heads"] = 4  # what is read back from a latent has keys for each head
    return small | BEYOND.get(label, BEYOND.get(label.removesuffix(" (masked)"), {}))
