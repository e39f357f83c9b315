"""Tiny models with random weights, of every architecture that a variant needs.

A model has two versions in each dtype: the base, and an evolved version of it, which every weight has drifted away
from. torch cannot compute in fp8, so an fp8 model is one in bfloat16 whose matrices hold values of fp8; only its
files are fp8.
"""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    ConvNextConfig,
    ConvNextModel,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PhiConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    ResNetConfig,
    ResNetModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    VideoMAEConfig,
    VideoMAEModel,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperModel,
)

BASE, EVOLVED = "base", "evolved"
DTYPES = {
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f64": torch.float64,
    "f8e4m3": torch.float8_e4m3fn,
    "f8e5m2": torch.float8_e5m2,
}
SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
NARROW_HEADS = {**GROUPED, "head_dim": 8}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 16, "patch_size": 4}
GPT2 = {"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 1}
SPEECH = {"vocab_size": 96, "num_mel_bins": 8, "d_model": 32, "max_source_positions": 16, "max_target_positions": 16, "pad_token_id": 1}
SPEECH |= {f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 48))}


def causal(config) -> Callable[[], torch.nn.Module]:
    return lambda: AutoModelForCausalLM.from_config(config)


ARCHITECTURES: dict[str, Callable[[], torch.nn.Module]] = {
    "llama": causal(LlamaConfig(**GROUPED, tie_word_embeddings=False)),
    "llama-tied": causal(LlamaConfig(**GROUPED, tie_word_embeddings=True)),
    "llama-biased": causal(LlamaConfig(**GROUPED, attention_bias=True, tie_word_embeddings=False)),
    "llama-one-layer": causal(LlamaConfig(**{**GROUPED, "num_hidden_layers": 1}, tie_word_embeddings=False)),
    "llama-narrow": causal(LlamaConfig(**{**GROUPED, "hidden_size": 16}, tie_word_embeddings=False)),
    "mistral": causal(MistralConfig(**GROUPED, sliding_window=16, tie_word_embeddings=False)),
    "gemma2": causal(Gemma2Config(**NARROW_HEADS, query_pre_attn_scalar=8, sliding_window=16)),
    "qwen3": causal(Qwen3Config(**NARROW_HEADS, tie_word_embeddings=True)),
    "phi": causal(PhiConfig(**SMALL, tie_word_embeddings=False)),
    "phi3": causal(Phi3Config(**GROUPED, tie_word_embeddings=False)),
    "gpt2": causal(GPT2Config(**GPT2)),
    "mixtral": causal(MixtralConfig(**GROUPED, **EXPERTS)),
    "qwen3-moe": causal(Qwen3MoeConfig(**NARROW_HEADS, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, tie_word_embeddings=False)),
    "gpt-oss": causal(GptOssConfig(**NARROW_HEADS, **EXPERTS, sliding_window=16, layer_types=["full_attention", "sliding_attention"])),
    "llama4": causal(Llama4TextConfig(**NARROW_HEADS, **EXPERTS, intermediate_size_mlp=48)),
    "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)),
    "vit": lambda: ViTModel(ViTConfig(**VISION)),
    "videomae": lambda: VideoMAEModel(VideoMAEConfig(**VISION, num_frames=4, tubelet_size=2)),
    "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 1], layer_type="bottleneck")),
    "convnext": lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[16, 24], depths=[1, 1], num_stages=2, patch_size=4)),
    "whisper": lambda: WhisperModel(WhisperConfig(**SPEECH, decoder_start_token_id=2)),
}


@cache
def model(architecture: str, dtype: str, version: str) -> torch.nn.Module:
    """In the dtype, or in bfloat16 for fp8. Shared: copy it before changing it."""
    computed = torch.bfloat16 if is_fp8(dtype) else DTYPES[dtype]
    if version == BASE:
        torch.manual_seed(1)
        made = ARCHITECTURES[architecture]().to(computed)
        add_noise(weights(made), 0.02)
    else:
        made = copy.deepcopy(model(architecture, dtype, BASE))
        torch.manual_seed(2)
        add_noise(weights(made), 0.02)
    if is_fp8(dtype):
        with torch.no_grad():
            for parameter in weights(made):
                if parameter.dim() >= 2:
                    parameter.copy_(parameter.to(DTYPES[dtype]).to(computed))
    return made.eval()


def weights(made: torch.nn.Module) -> list[torch.Tensor]:
    """Parameters and floating-point buffers that the files hold."""
    return [tensor for tensor in made.state_dict().values() if tensor.is_floating_point()]


def add_noise(tensors: list[torch.Tensor], spread: float) -> None:
    seen = set()
    with torch.no_grad():
        for tensor in tensors:
            if tensor.data_ptr() not in seen:
                seen.add(tensor.data_ptr())
                tensor.add_(torch.randn(tensor.shape, dtype=torch.float64).mul(spread).to(tensor.dtype))


def is_fp8(dtype: str) -> bool:
    return dtype.startswith("f8")


def save_model(made: torch.nn.Module, folder: Path, dtype: str, saved: tuple[tuple[str, object], ...] = ()) -> None:
    """The model's files, with names and shapes as transformers writes them; `saved`: arguments of save_pretrained."""
    made.save_pretrained(folder, **dict(saved))
    if not is_fp8(dtype):
        return
    for file in folder.glob("*.safetensors"):
        save_file({name: as_stored(tensor, dtype) for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": str(DTYPES[dtype]).removeprefix("torch.")}, indent=2))


def as_stored(tensor: torch.Tensor, dtype: str) -> torch.Tensor:
    return tensor.to(DTYPES[dtype]) if is_fp8(dtype) and tensor.dim() >= 2 else tensor


@torch.inference_mode()
def outputs(made: torch.nn.Module) -> torch.Tensor | None:
    """What a float64 model computes of fixed inputs; None for Whisper, which reads attributes of layers that PEFT wraps."""
    inputs = INPUTS[made.main_input_name](made.config)
    if inputs is None:
        return None
    # The fast paths of experts have no float64.
    made.config._experts_implementation = "eager"
    computed = made(**{made.main_input_name: inputs})
    pooled = getattr(computed, "pooler_output", None)
    return computed[0] if pooled is None else pooled


INPUTS = {
    "input_ids": lambda config: torch.arange(24).unsqueeze(0) * 7 % config.vocab_size,
    "input_features": lambda config: None,
    "pixel_values": lambda config: torch.linspace(-1, 1, 4 * 3 * 16 * 16, dtype=torch.float64).sin().reshape(FRAMES.get(config.model_type, (4, 3, 16, 16))),
}
FRAMES = {"videomae": (1, 4, 3, 16, 16)}


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            tensors.update({name: opened.get_tensor(name) for name in opened.keys()})
    return tensors
