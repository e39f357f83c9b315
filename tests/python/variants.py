"""Tiny models with random weights and adapters of every variety, as PEFT writes them.

Written to OUT/<variant>/{base,adapter}, listed in OUT/variants.json:
{"seed", "versions", "variants": [{"name", "mergeable", "feature", "base", "adapter"}]}.
`mergeable` says whether rule lora-f32/1 covers it; the others are to be refused, naming `feature`.
"""

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 1}

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SMALL, tie_word_embeddings=False)),
    "llama-tied": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "llama-biased": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SMALL, attention_bias=True, tie_word_embeddings=False)),
    "mistral": lambda: AutoModelForCausalLM.from_config(MistralConfig(**SMALL, sliding_window=16, tie_word_embeddings=False)),
    "gemma2": lambda: AutoModelForCausalLM.from_config(Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8, sliding_window=16)),
    "mixtral": lambda: AutoModelForCausalLM.from_config(MixtralConfig(**SMALL, num_local_experts=4, tie_word_embeddings=False)),
    "gpt2": lambda: AutoModelForCausalLM.from_config(GPT2Config(**GPT2)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)),
    "vit": lambda: ViTModel(ViTConfig(**VISION)),
}
QV = ["q_proj", "v_proj"]
R4 = {"r": 4, "lora_alpha": 8}
ALL = "all-linear"


@dataclass(frozen=True)
class Variant:
    name: str
    mergeable: bool
    feature: str
    model: str = "llama"
    lora: dict = field(default_factory=dict)
    config: Callable[[], peft.PeftConfig] | None = None
    dtype: torch.dtype = torch.bfloat16
    adapter_dtype: torch.dtype | None = None
    keep_embedding_copies: bool = False
    edit: Callable[[dict, dict], None] | None = None
    """Changes the written (config, tensors) in place."""


def merges(name: str, feature: str, **arguments) -> Variant:
    return Variant(name, True, feature, **arguments)


def refused(name: str, feature: str, **arguments) -> Variant:
    return Variant(name, False, feature, **arguments)


def set_config(**values) -> Callable[[dict, dict], None]:
    return lambda config, tensors: config.update(values)


def make_non_finite(config: dict, tensors: dict) -> None:
    tensors[min(tensors)].view(-1)[3] = float("nan")


OVERLAPPING_RANKS = {"v_proj": 6, "layers.1.self_attn.v_proj": 2}
OVERLAPPING_ALPHAS = {"self_attn.q_proj": 12, "layers.0.self_attn.q_proj": 20}
PATTERNS = {"rank_pattern": {"v_proj": 8}, "alpha_pattern": {"q_proj": 24, "layers.1.mlp.down_proj": 6}}

VARIANTS = [
    merges("plain", "plain", lora={**R4, "target_modules": QV}),
    merges("all-linear", "plain", lora={**R4, "target_modules": ALL}),
    merges("odd-scale", "plain, scale 7/3", lora={"r": 3, "lora_alpha": 7, "target_modules": ALL}),
    merges("rank-1", "plain", lora={"r": 1, "lora_alpha": 1, "target_modules": ALL}),
    merges("rank-64", "plain, r larger than the matrix", lora={"r": 64, "lora_alpha": 16, "target_modules": ALL}),
    merges("regex-targets", "plain", lora={**R4, "target_modules": r".*\.layers\.1\..*(q|down)_proj"}),
    merges("some-layers", "layers_to_transform", lora={**R4, "target_modules": QV, "layers_to_transform": [1]}),
    merges("gaussian", "init_lora_weights=gaussian", lora={**R4, "target_modules": QV, "init_lora_weights": "gaussian"}),
    merges("adapter-bf16", "bf16 factors", lora={**R4, "target_modules": ALL}, adapter_dtype=torch.bfloat16),
    merges("adapter-f16", "f16 factors", lora={**R4, "target_modules": ALL}, adapter_dtype=torch.float16),
    merges("base-f16", "f16 base", lora={**R4, "target_modules": ALL}, dtype=torch.float16),
    merges("base-f32", "f32 base", lora={**R4, "target_modules": ALL}, dtype=torch.float32),
    merges("mistral", "plain, GQA", model="mistral", lora={**R4, "target_modules": ALL}),
    merges("gemma2", "plain, tied embeddings left alone", model="gemma2", lora={**R4, "target_modules": ALL}),
    merges("rslora", "use_rslora", lora={**R4, "use_rslora": True, "target_modules": ALL}),
    merges("rslora-patterns", "use_rslora with rank_pattern", lora={**R4, **PATTERNS, "use_rslora": True, "target_modules": ALL}),
    merges("patterns", "rank_pattern and alpha_pattern", lora={**R4, **PATTERNS, "target_modules": ALL}),
    merges(
        "overlapping-patterns",
        "overlapping patterns, file order not alphabetical",
        lora={**R4, "target_modules": QV, "rank_pattern": OVERLAPPING_RANKS, "alpha_pattern": OVERLAPPING_ALPHAS},
        edit=set_config(rank_pattern=OVERLAPPING_RANKS, alpha_pattern=OVERLAPPING_ALPHAS),
    ),
    merges(
        "overlapping-alphas-sorted",
        "overlapping alpha_pattern as PEFT sorts it",
        lora={**R4, "target_modules": QV, "alpha_pattern": OVERLAPPING_ALPHAS},
    ),
    merges("fan-in-fan-out", "fan_in_fan_out", model="gpt2", lora={**R4, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    merges(
        "fan-in-fan-out-square",
        "fan_in_fan_out on square matrices",
        model="gpt2",
        lora={**R4, "target_modules": ["attn.c_proj"], "fan_in_fan_out": True},
    ),
    merges("embeddings", "embeddings", lora={**R4, "target_modules": [*QV, "embed_tokens"]}),
    merges("lm-head", "untied output head", lora={**R4, "target_modules": [*QV, "lm_head"]}),
    refused("embeddings-with-copy", "base_layer.weight", lora={**R4, "target_modules": ["embed_tokens"]}, keep_embedding_copies=True),
    refused("dora", "use_dora", lora={**R4, "target_modules": QV, "use_dora": True}),
    refused("lora-bias", "lora_bias", model="llama-biased", lora={**R4, "target_modules": QV, "lora_bias": True}),
    refused("bias-all", "bias=all", model="llama-biased", lora={**R4, "target_modules": QV, "bias": "all"}),
    refused("bias-lora-only", "bias=lora_only", model="llama-biased", lora={**R4, "target_modules": QV, "bias": "lora_only"}),
    refused("modules-to-save", "modules_to_save", lora={**R4, "target_modules": QV, "modules_to_save": ["lm_head"]}),
    refused("trainable-tokens", "trainable_token_indices", lora={**R4, "target_modules": QV, "trainable_token_indices": [3, 5, 8]}),
    refused("pissa", "init_lora_weights=pissa", lora={**R4, "target_modules": QV, "init_lora_weights": "pissa"}),
    refused("olora", "init_lora_weights=olora", lora={**R4, "target_modules": QV, "init_lora_weights": "olora"}),
    refused("tied-lm-head", "tied lm_head", model="llama-tied", lora={**R4, "target_modules": [*QV, "lm_head"]}),
    refused("tied-embeddings", "tied embed_tokens", model="llama-tied", lora={**R4, "target_modules": [*QV, "embed_tokens"]}),
    refused("layer-replication", "layer_replication", lora={**R4, "target_modules": QV, "layer_replication": [[0, 2], [1, 2]]}),
    refused("alora", "alora_invocation_tokens", lora={**R4, "target_modules": QV, "alora_invocation_tokens": [5, 6]}),
    refused(
        "target-parameters",
        "target_parameters",
        model="mixtral",
        lora={**R4, "target_modules": QV, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    refused("conv2d", "Conv2d", model="vit", lora={**R4, "target_modules": ["projection"]}),
    refused("multihead-attention", "MultiheadAttention", model="siglip", lora={**R4, "target_modules": ["head.attention"]}),
    refused("ia3", "peft_type=IA3", config=lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])),
    refused("loha", "peft_type=LOHA", config=lambda: peft.LoHaConfig(r=4, alpha=8, target_modules=QV)),
    refused("lokr", "peft_type=LOKR", config=lambda: peft.LoKrConfig(r=4, alpha=8, target_modules=QV)),
    refused("adalora", "peft_type=ADALORA", config=lambda: peft.AdaLoraConfig(target_modules=QV, total_step=100)),
    refused("vera", "peft_type=VERA", config=lambda: peft.VeraConfig(r=4, target_modules=["q_proj"])),
    refused("prompt-tuning", "peft_type=PROMPT_TUNING", config=lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    refused("unknown-key", "new_variant_of_lora", lora={**R4, "target_modules": QV}, edit=set_config(new_variant_of_lora={"depth": 2})),
    refused("qalora", "use_qalora", lora={**R4, "target_modules": QV}, edit=set_config(use_qalora=True)),
    refused("corda", "init_lora_weights=corda", lora={**R4, "target_modules": QV}, edit=set_config(init_lora_weights="corda")),
    refused("loftq", "init_lora_weights=loftq", lora={**R4, "target_modules": QV}, edit=set_config(init_lora_weights="loftq")),
    refused("non-finite", "NaN in a factor", lora={**R4, "target_modules": QV}, edit=make_non_finite),
]


def make_variants(out: Path, only: list[str] | None, seed: int) -> dict:
    transformers.utils.logging.set_verbosity_error()
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    unknown = set(only or []) - {variant.name for variant in VARIANTS}
    if unknown:
        raise SystemExit(f"no variant named {sorted(unknown)}; there are {[variant.name for variant in VARIANTS]}")
    rows = []
    for variant in chosen:
        write_variant(variant, out / variant.name, seed)
        rows.append(
            {
                "name": variant.name,
                "mergeable": variant.mergeable,
                "feature": variant.feature,
                "base": f"{variant.name}/base",
                "adapter": f"{variant.name}/adapter",
            }
        )
    index = {"seed": seed, "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}, "variants": rows}
    (out / "variants.json").write_text(json.dumps(index, indent=1) + "\n")
    return index


def write_variant(variant: Variant, folder: Path, seed: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    model = MODELS[variant.model]().to(variant.dtype)
    randomise(model.parameters(), 0.02)
    model.save_pretrained(folder / "base")
    config = variant.config() if variant.config else LoraConfig(task_type=None if variant.model in ("vit", "siglip") else "CAUSAL_LM", **variant.lora)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, config)
        randomise([p for p in wrapped.parameters() if p.requires_grad], 0.05)
        # With no name PEFT does not ask the Hub whether the vocabulary was resized.
        written = wrapped.peft_config["default"]
        written.base_model_name_or_path = None
        if isinstance(getattr(written, "target_modules", None), set):
            written.target_modules = sorted(written.target_modules)
        wrapped.save_pretrained(folder / "adapter", save_embedding_layers=True if variant.keep_embedding_copies else False)
    rewrite(variant, folder / "adapter")


def randomise(parameters, spread: float) -> None:
    """Adds noise, so that nothing is left at an initial value such as a zero B."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float32).mul(spread).to(parameter.dtype))


def rewrite(variant: Variant, adapter: Path) -> None:
    config_file, tensors_file = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    config, tensors = json.loads(config_file.read_text()), load_file(tensors_file)
    if variant.adapter_dtype is not None:
        tensors = {name: tensor.to(variant.adapter_dtype) for name, tensor in tensors.items()}
    if variant.edit is not None:
        variant.edit(config, tensors)
    if variant.adapter_dtype is not None or variant.edit is not None:
        config_file.write_text(json.dumps(config, indent=2))
        save_file(tensors, tensors_file, metadata={"format": "pt"})
