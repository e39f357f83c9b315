"""Every variety of adapter that there is, on a model where it occurs; each is merged as `expect` says, or refused."""

from collections.abc import Callable
from dataclasses import dataclass, field

import peft
import torch
from models import DTYPES, EVOLVED

ALL = tuple(DTYPES)
IN_TORCH = ("f32", "f16", "bf16", "f64")
# PEFT takes initial factors out of float32, float16 and bfloat16; fp8 is given to it widened.
NOT_F64 = tuple(dtype for dtype in ALL if dtype != "f64")
ONE = ("bf16",)

QV = ["q_proj", "v_proj"]
R4 = {"r": 4, "lora_alpha": 8}
LINEAR = {**R4, "target_modules": "all-linear"}
FUSED_EXPERTS = {**R4, "target_modules": QV, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}


@dataclass(frozen=True)
class Variant:
    name: str
    feature: str
    """What this is, for people."""
    model: str = "llama"
    lora: dict = field(default_factory=dict)
    refused: str = ""
    """Code of the reason for which it must be refused; empty where it must be merged."""
    truth: str = "update"
    """`update`: the model plus what training changed of the base, in float64, which is what porting means.
    `applied`: what PEFT's loader makes of the model, in float64."""
    warned: str = ""
    """Code of the reason of which a merge must warn."""
    peft_rounds_more: str = ""
    """Where PEFT rounds more than once, so that its bits are not ours; empty where they are."""
    peft_is_wrong: str = ""
    """How PEFT's merge differs from the truth; empty where it does not."""
    peft_is_wrong_on: tuple[str, ...] = (EVOLVED,)
    peft_raises: str = ""
    """Why PEFT has no merge of this."""
    options: tuple[str, ...] = ()
    """Options of `portllm merge`; BASE stands for the folder of the base."""
    dtypes: tuple[str, ...] = ALL
    target: str = ""
    """Architecture of the evolved model, where it is another than the base's."""
    adapter_dtype: torch.dtype | None = None
    keep_embedding_copies: bool = False
    trains_too: str = ""
    """End of the names of parameters that are trained beside the adapter's own."""
    convert: bool = False
    """Saved with PEFT's `path_initial_model_for_weight_conversion`."""
    saved: tuple[tuple[str, object], ...] = ()
    """Arguments of save_pretrained for the models."""
    target_config: dict = field(default_factory=dict)
    """Changes of the evolved model's config.json; None removes a key."""
    config: Callable[[], peft.PeftConfig] | None = None
    edit: Callable[[dict, dict], None] | None = None
    """Changes the written (config, tensors) in place."""
    handmade: Callable[[], tuple[peft.LoraConfig, dict]] | None = None
    """Makes (config, tensors) of an adapter that today's PEFT reads but no longer writes."""
    together: tuple[tuple[str, float], ...] = ()
    """Other variants and their weights: several patches at once."""


def merged(name: str, feature: str, **arguments) -> Variant:
    return Variant(name, feature, **arguments)


def refused(name: str, code: str, feature: str, **arguments) -> Variant:
    return Variant(name, feature, refused=code, dtypes=ONE, **arguments)


def set_config(**values) -> Callable[[dict, dict], None]:
    return lambda config, tensors: config.update(values)


def make_non_finite(config: dict, tensors: dict) -> None:
    tensors[min(tensors)].view(-1)[3] = float("nan")


def longer_vocabulary(config: dict, tensors: dict) -> None:
    name = "base_model.model.model.embed_tokens.weight"
    tensors[name] = torch.zeros(100, 32, dtype=torch.bfloat16)


def experts_of_transformers_4() -> tuple[peft.LoraConfig, dict]:
    """Mixtral's experts as modules of their own, with names that no longer exist in memory, but still on disk."""
    torch.manual_seed(5)
    sizes = {"w1": (48, 32), "w2": (32, 48), "w3": (48, 32)}
    tensors = {}
    for layer in range(2):
        for expert in range(4):
            for name, (rows, cols) in sizes.items():
                module = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"
                tensors[f"{module}.lora_A.weight"] = torch.randn(4, cols) * 0.1
                tensors[f"{module}.lora_B.weight"] = torch.randn(rows, 4) * 0.05
    return peft.LoraConfig(**R4, target_modules=[*sizes], task_type="CAUSAL_LM"), tensors


PATTERNS = {"rank_pattern": {"v_proj": 8}, "alpha_pattern": {"q_proj": 24, "layers.1.mlp.down_proj": 6}}
OVERLAPPING_RANKS = {"v_proj": 6, "layers.1.self_attn.v_proj": 2}
OVERLAPPING_ALPHAS = {"self_attn.q_proj": 12, "layers.0.self_attn.q_proj": 20}
FUSED_ON_DISK = (("save_original_format", False),)
SHARDED = (("max_shard_size", "20KB"),)
REPLACE = ("--absolute", "replace")
ROUNDS_BASE = "the base, once the initialisation has been taken out of it"
ROUNDS_UPDATE = "the update, before it is added"
IN_TURN = "after each patch"
WITH_BASE = ("--base", "BASE")
UNTIE = ("--tied", "untie")
OVERWRITES = "a full copy overwrites what the model has learned since"

PLAIN = [
    merged("plain", "LoRA on q and v", lora={**R4, "target_modules": QV}),
    merged("all-linear", "LoRA on every linear layer", lora=LINEAR),
    merged("odd-scale", "scale 7/3, which float32 does not hold", lora={**LINEAR, "r": 3, "lora_alpha": 7}),
    merged("rank-1", "rank 1", lora={**LINEAR, "r": 1, "lora_alpha": 1}),
    merged("rank-64", "a rank larger than the matrix", lora={**LINEAR, "r": 64, "lora_alpha": 16}),
    merged("regex-targets", "target_modules as a regular expression", lora={**R4, "target_modules": r".*\.layers\.1\..*(q|down)_proj"}),
    merged("some-layers", "layers_to_transform", lora={**R4, "target_modules": QV, "layers_to_transform": [1]}),
    merged("gaussian", "init_lora_weights=gaussian", lora={**R4, "target_modules": QV, "init_lora_weights": "gaussian"}),
    merged("orthogonal", "init_lora_weights=orthogonal", lora={**R4, "target_modules": QV, "init_lora_weights": "orthogonal"}),
    merged(
        "mica",
        "init_lora_weights=mica",
        lora={**R4, "target_modules": QV, "init_lora_weights": "mica"},
        dtypes=NOT_F64,
        peft_rounds_more="the factors, to the dtype of the base",
    ),
    merged("adapter-bf16", "factors in bf16", lora=LINEAR, adapter_dtype=torch.bfloat16),
    merged("adapter-f16", "factors in f16", lora=LINEAR, adapter_dtype=torch.float16),
    merged("sharded", "a model in several files", lora=LINEAR, saved=SHARDED),
    merged("mistral", "Mistral", model="mistral", lora=LINEAR),
    merged("gemma2", "Gemma 2, whose tied embeddings are left alone", model="gemma2", lora=LINEAR),
    merged("qwen3", "Qwen 3, whose tied embeddings are left alone", model="qwen3", lora=LINEAR),
    merged("phi", "Phi, with biases", model="phi", lora=LINEAR),
    merged("phi3", "Phi 3, with fused qkv and gate_up", model="phi3", lora=LINEAR),
    merged("rslora", "use_rslora", lora={**LINEAR, "use_rslora": True}),
    merged("rslora-patterns", "use_rslora with rank_pattern", lora={**LINEAR, **PATTERNS, "use_rslora": True}),
    merged("patterns", "rank_pattern and alpha_pattern", lora={**LINEAR, **PATTERNS}),
    merged("lm-head", "LoRA on an output head that is not tied", lora={**R4, "target_modules": [*QV, "lm_head"]}),
    merged("embeddings", "LoRA on embeddings", lora={**R4, "target_modules": [*QV, "embed_tokens"]}, peft_rounds_more=ROUNDS_UPDATE),
    merged("gpt2", "Conv1D with fan_in_fan_out", model="gpt2", lora={**R4, "target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    merged("gpt2-square", "Conv1D with square matrices", model="gpt2", lora={**R4, "target_modules": ["attn.c_proj"], "fan_in_fan_out": True}),
]

OVERLAPS = [
    merged(
        "overlapping-in-file-order",
        "overlapping patterns, whose first key in the file wins",
        lora={**R4, "target_modules": QV, "rank_pattern": OVERLAPPING_RANKS, "alpha_pattern": OVERLAPPING_ALPHAS},
        edit=set_config(rank_pattern=OVERLAPPING_RANKS, alpha_pattern=OVERLAPPING_ALPHAS),
        warned="overlapping-patterns",
    ),
    merged(
        "overlapping-reloaded",
        "overlapping patterns that PEFT's saving has sorted, so that another key wins than in training",
        lora={**R4, "target_modules": QV, "alpha_pattern": OVERLAPPING_ALPHAS},
        truth="applied",
        warned="overlapping-patterns",
    ),
]

LAYERS = [
    merged("lora-bias", "lora_bias", model="llama-biased", lora={**R4, "target_modules": QV, "lora_bias": True}),
    merged("conv2d", "Conv2d, 1×1 and 3×3", model="resnet", lora={**R4, "target_modules": r"encoder.*convolution"}),
    merged(
        "conv2d-patches",
        "Conv2d 4×4 of patch embeddings, lora_bias",
        model="vit",
        lora={**R4, "target_modules": ["projection"], "lora_bias": True},
    ),
    merged("conv1d", "Conv1d", model="whisper", lora={**R4, "target_modules": ["conv1", "conv2", "q_proj"]}),
    merged("conv3d", "Conv3d", model="videomae", lora={**R4, "target_modules": ["projection"]}),
    merged(
        "multihead-attention",
        "torch.nn.MultiheadAttention: in_proj once, out_proj twice, as PEFT up to 0.21 trains it",
        model="siglip",
        lora={**R4, "target_modules": ["head.attention", "fc1"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts",
        "fused experts of Mixtral, gate_up and down, one by one on disk",
        model="mixtral",
        lora=FUSED_EXPERTS,
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-gate-up",
        "only the gate_up of fused experts",
        model="mixtral",
        lora={**FUSED_EXPERTS, "target_parameters": ["mlp.experts.gate_up_proj"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-down",
        "only the down of fused experts, in one layer",
        model="mixtral",
        lora={**FUSED_EXPERTS, "target_parameters": ["1.mlp.experts.down_proj"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-router",
        "the router as a parameter",
        model="mixtral",
        lora={**FUSED_EXPERTS, "target_parameters": ["mlp.gate.weight"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-converted",
        "w1, w2, w3 as targets, which PEFT turns into fused ones",
        model="mixtral",
        lora={**R4, "target_modules": ["w1", "w2", "w3"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-transformers-4",
        "an adapter with a pair for each expert",
        model="mixtral",
        handmade=experts_of_transformers_4,
        truth="applied",
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-transformers-4-fused",
        "an adapter with a pair for each expert, onto experts that are fused on disk",
        model="mixtral",
        handmade=experts_of_transformers_4,
        saved=FUSED_ON_DISK,
        truth="applied",
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "experts-fused-on-disk",
        "fused experts of Mixtral, fused on disk",
        model="mixtral",
        lora=FUSED_EXPERTS,
        saved=FUSED_ON_DISK,
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged("experts-qwen3", "fused experts of Qwen 3", model="qwen3-moe", lora=FUSED_EXPERTS, peft_rounds_more=ROUNDS_UPDATE),
    merged("experts-gpt-oss", "fused experts of GPT-OSS, stored (in, out)", model="gpt-oss", lora=FUSED_EXPERTS, peft_rounds_more=ROUNDS_UPDATE),
    merged(
        "experts-llama4",
        "fused experts of Llama 4, which PEFT takes for (out, in)",
        model="llama4",
        lora={**FUSED_EXPERTS, "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "parameter-of-linear",
        "target_parameters on a plain matrix",
        lora={**R4, "target_modules": [], "target_parameters": ["q_proj.weight"]},
        peft_rounds_more=ROUNDS_UPDATE,
    ),
]

DORA = [
    merged("dora", "DoRA", lora={**LINEAR, "use_dora": True}, truth="applied"),
    merged("dora-rslora", "DoRA with use_rslora and patterns", lora={**LINEAR, **PATTERNS, "use_dora": True, "use_rslora": True}, truth="applied"),
    merged(
        "dora-embeddings",
        "DoRA on embeddings, normed by column",
        lora={**R4, "target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
        truth="applied",
    ),
    merged(
        "dora-gpt2",
        "DoRA on Conv1D",
        model="gpt2",
        lora={**R4, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "use_dora": True},
        truth="applied",
    ),
    merged(
        "dora-conv2d",
        "DoRA on Conv2d",
        model="resnet",
        lora={**R4, "target_modules": r"encoder.*convolution", "use_dora": True},
        truth="applied",
    ),
    merged("dora-conv1d", "DoRA on Conv1d", model="whisper", lora={**R4, "target_modules": ["conv1", "conv2"], "use_dora": True}, truth="applied"),
    merged("dora-conv3d", "DoRA on Conv3d", model="videomae", lora={**R4, "target_modules": ["projection"], "use_dora": True}, truth="applied"),
]

ABSOLUTE = [
    merged(
        "bias-all",
        "bias=all",
        model="llama-biased",
        lora={**R4, "target_modules": ["q_proj"], "bias": "all"},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "bias-lora-only",
        "bias=lora_only",
        model="llama-biased",
        lora={**R4, "target_modules": QV, "bias": "lora_only"},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "bias-and-lora-bias",
        "bias=lora_only with lora_bias",
        model="llama-biased",
        lora={**R4, "target_modules": QV, "bias": "lora_only", "lora_bias": True},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "bias-gpt2",
        "bias=all on GPT-2, layer norms too",
        model="gpt2",
        lora={**R4, "target_modules": ["c_attn"], "fan_in_fan_out": True, "bias": "all"},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "bias-replace",
        "bias=all, replaced on demand",
        model="llama-biased",
        lora={**R4, "target_modules": ["q_proj"], "bias": "all"},
        options=REPLACE,
        truth="applied",
    ),
    merged(
        "modules-to-save",
        "modules_to_save, head and norms",
        lora={**R4, "target_modules": QV, "modules_to_save": ["lm_head", "input_layernorm"]},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "head-to-save",
        "modules_to_save, the head alone",
        lora={**R4, "target_modules": QV, "modules_to_save": ["lm_head"]},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "modules-to-save-gpt2",
        "modules_to_save with a bias",
        model="gpt2",
        lora={**R4, "target_modules": ["c_attn"], "fan_in_fan_out": True, "modules_to_save": ["c_fc"]},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "modules-to-save-replace",
        "modules_to_save, replaced on demand",
        lora={**R4, "target_modules": QV, "modules_to_save": ["lm_head", "input_layernorm"]},
        options=REPLACE,
        truth="applied",
    ),
    merged(
        "trained-tokens",
        "trainable_token_indices",
        lora={**R4, "target_modules": QV, "trainable_token_indices": [3, 5, 6, 90]},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "trained-tokens-of-two",
        "trainable_token_indices of embedding and head",
        lora={**R4, "target_modules": QV, "trainable_token_indices": {"embed_tokens": [8, 3], "lm_head": [1]}},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "trained-tokens-tied",
        "trainable_token_indices with tied embeddings",
        model="qwen3",
        lora={**R4, "target_modules": QV, "trainable_token_indices": [3, 5, 6, 90]},
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
    merged(
        "trained-tokens-replace",
        "trainable_token_indices, replaced on demand",
        lora={**R4, "target_modules": QV, "trainable_token_indices": [3, 5, 6, 90]},
        options=REPLACE,
        truth="applied",
    ),
    merged(
        "embeddings-with-own-copy",
        "LoRA on embeddings, with the base's embedding beside it",
        lora={**R4, "target_modules": ["embed_tokens"]},
        keep_embedding_copies=True,
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    merged(
        "embeddings-with-trained-copy",
        "LoRA on embeddings that were trained themselves, too",
        lora={**R4, "target_modules": ["embed_tokens"]},
        keep_embedding_copies=True,
        trains_too="embed_tokens.base_layer.weight",
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
        peft_rounds_more=ROUNDS_UPDATE,
    ),
    # The copies of an fp8 model are bf16, so that they are not seen to be the base's own, and −0 + 0 is not −0.
    merged(
        "unmarked-copies",
        "save_embedding_layers without targeting them",
        dtypes=IN_TORCH,
        lora={**R4, "target_modules": QV},
        keep_embedding_copies=True,
        options=WITH_BASE,
        peft_is_wrong=OVERWRITES,
    ),
]

INITIALISED = [
    merged(
        "pissa",
        "PiSSA",
        lora={**LINEAR, "init_lora_weights": "pissa"},
        dtypes=NOT_F64,
        options=WITH_BASE,
        peft_rounds_more=ROUNDS_BASE,
        peft_is_wrong="the loader takes the factors of the evolved model",
    ),
    merged(
        "pissa-rslora",
        "PiSSA with use_rslora",
        lora={**LINEAR, "init_lora_weights": "pissa", "use_rslora": True},
        dtypes=NOT_F64,
        options=WITH_BASE,
        peft_rounds_more=ROUNDS_BASE,
        peft_is_wrong="the loader takes the factors of the evolved model",
    ),
    merged(
        "pissa-patterns",
        "PiSSA with rank_pattern",
        lora={**LINEAR, **PATTERNS, "init_lora_weights": "pissa"},
        dtypes=NOT_F64,
        options=WITH_BASE,
        peft_rounds_more=ROUNDS_BASE,
        peft_is_wrong="the loader takes the factors of the evolved model",
    ),
    merged(
        "pissa-gpt2",
        "PiSSA on Conv1D",
        model="gpt2",
        lora={**R4, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "init_lora_weights": "pissa"},
        dtypes=NOT_F64,
        options=WITH_BASE,
        peft_rounds_more=ROUNDS_BASE,
        peft_is_wrong="the loader takes the factors of the evolved model",
    ),
    merged(
        "pissa-with-embeddings",
        "PiSSA, with plain LoRA on embeddings",
        lora={**R4, "target_modules": ["embed_tokens", "q_proj"], "init_lora_weights": "pissa"},
        dtypes=NOT_F64,
        options=WITH_BASE,
        peft_rounds_more=ROUNDS_BASE,
        peft_is_wrong="the loader takes the factors of the evolved model",
    ),
    merged(
        "pissa-converted",
        "PiSSA, converted by PEFT",
        lora={**LINEAR, "init_lora_weights": "pissa"},
        dtypes=NOT_F64,
        convert=True,
        truth="applied",
    ),
    merged(
        "olora",
        "OLoRA",
        lora={**LINEAR, "init_lora_weights": "olora"},
        dtypes=NOT_F64,
        options=WITH_BASE,
        peft_rounds_more=ROUNDS_BASE,
        peft_is_wrong="the loader takes the factors of the evolved model",
    ),
    merged(
        "olora-converted",
        "OLoRA, converted by PEFT",
        lora={**LINEAR, "init_lora_weights": "olora"},
        dtypes=NOT_F64,
        convert=True,
        truth="applied",
    ),
]

TIED = [
    merged(
        "untied-head",
        "LoRA on a tied head, untied on demand",
        model="llama-tied",
        lora={**R4, "target_modules": [*QV, "lm_head"]},
        options=UNTIE,
        peft_is_wrong="the embedding changes too",
        peft_is_wrong_on=("base", "evolved"),
    ),
    merged(
        "untied-sharded",
        "LoRA on a tied head of a model in several files, untied on demand: the index names the new head",
        model="llama-tied",
        lora={**R4, "target_modules": [*QV, "lm_head"]},
        saved=SHARDED,
        dtypes=ONE,
        options=UNTIE,
        peft_is_wrong="the embedding changes too",
        peft_is_wrong_on=("base", "evolved"),
    ),
    merged(
        "untied-together",
        "ensure_weight_tying, untied on demand: a pair of factors for each end",
        model="qwen3",
        lora={**R4, "target_modules": [*QV, "embed_tokens"], "ensure_weight_tying": True},
        options=UNTIE,
        peft_is_wrong="the shared weight gets the product of each end",
        peft_is_wrong_on=("base", "evolved"),
    ),
    merged(
        "untied-embeddings",
        "LoRA on tied embeddings, untied on demand",
        model="llama-tied",
        lora={**R4, "target_modules": [*QV, "embed_tokens"]},
        options=UNTIE,
        peft_is_wrong="the head changes too",
        peft_is_wrong_on=("base", "evolved"),
    ),
]

SEVERAL = [
    merged("two-patches", "two patches, weights 0.7 and −0.3", together=(("all-linear", 0.7), ("rslora", -0.3)), peft_rounds_more=IN_TURN),
    merged(
        "four-patches",
        "four patches of different ranks",
        together=(("all-linear", 1.0), ("odd-scale", 0.5), ("rank-64", 0.25), ("patterns", 2.0)),
        peft_rounds_more=IN_TURN,
    ),
    merged("dora-weighted", "DoRA with weight 0.5", together=(("dora", 0.5),), peft_raises="PEFT gives DoRA no weight"),
    merged(
        "plain-and-dora",
        "plain LoRA and DoRA on the same tensors",
        together=(("all-linear", 1.0), ("dora", 0.5)),
        peft_raises="PEFT norms the second with the first merged",
    ),
    merged(
        "tokens-and-embeddings",
        "trained tokens and LoRA on the same embedding",
        together=(("trained-tokens", 1.0), ("embeddings", 0.5)),
        options=WITH_BASE,
        peft_raises="PEFT gives trained tokens no weight",
    ),
    merged(
        "absolute-twice",
        "two patches with full copies of the same tensors",
        together=(("modules-to-save", 1.0), ("head-to-save", -0.5)),
        options=WITH_BASE,
        peft_raises="PEFT gives full copies no weight",
    ),
    merged(
        "plain-and-absolute",
        "two patches, one of them with full copies",
        together=(("lm-head", 1.0), ("modules-to-save", 0.5)),
        options=WITH_BASE,
        peft_raises="PEFT gives full copies no weight",
    ),
]

REFUSED = [
    refused("bias-without-base", "trained-bias", "bias=all without the base", model="llama-biased", lora={**R4, "target_modules": QV, "bias": "all"}),
    refused(
        "modules-to-save-without-base",
        "modules-to-save",
        "modules_to_save without the base",
        lora={**R4, "target_modules": QV, "modules_to_save": ["lm_head"]},
    ),
    refused(
        "trained-tokens-without-base",
        "trainable-tokens",
        "trainable_token_indices without the base",
        lora={**R4, "target_modules": QV, "trainable_token_indices": [3]},
    ),
    refused(
        "pissa-without-base",
        "base-changing-initialisation",
        "PiSSA without the base",
        lora={**R4, "target_modules": QV, "init_lora_weights": "pissa"},
    ),
    refused(
        "pissa-random",
        "base-changing-initialisation",
        "PiSSA with a randomised SVD",
        lora={**R4, "target_modules": QV, "init_lora_weights": "pissa_niter_4"},
        options=WITH_BASE,
    ),
    refused(
        "pissa-dora",
        "base-changing-initialisation",
        "PiSSA with DoRA",
        lora={**R4, "target_modules": QV, "init_lora_weights": "pissa", "use_dora": True},
        options=WITH_BASE,
    ),
    refused(
        "corda",
        "base-changing-initialisation",
        "CorDA",
        lora={**R4, "target_modules": QV},
        edit=set_config(init_lora_weights="corda"),
        options=WITH_BASE,
    ),
    refused(
        "loftq",
        "base-changing-initialisation",
        "LoftQ",
        lora={**R4, "target_modules": QV},
        edit=set_config(init_lora_weights="loftq"),
        options=WITH_BASE,
    ),
    refused(
        "lora-ga",
        "base-changing-initialisation",
        "LoRA-GA",
        lora={**R4, "target_modules": QV},
        edit=set_config(init_lora_weights="lora_ga"),
        options=WITH_BASE,
    ),
    refused("tied-head", "tied-weights", "LoRA on a tied head", model="llama-tied", lora={**R4, "target_modules": [*QV, "lm_head"]}),
    refused("tied-embeddings", "tied-weights", "LoRA on tied embeddings", model="llama-tied", lora={**R4, "target_modules": [*QV, "embed_tokens"]}),
    refused(
        "tied-modules-to-save",
        "tied-weights",
        "modules_to_save of tied embeddings",
        model="qwen3",
        lora={**R4, "target_modules": QV, "modules_to_save": ["embed_tokens"]},
        options=WITH_BASE,
    ),
    refused(
        "tied-together",
        "tied-weights",
        "ensure_weight_tying, whose factors for the two ends may differ",
        model="qwen3",
        lora={**R4, "target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    refused(
        "grouped-convolution",
        "convolution",
        "Conv2d with groups > 1",
        model="convnext",
        lora={"r": 16, "lora_alpha": 8, "target_modules": ["stages.0.layers.0.dwconv"]},
    ),
    refused("layer-replication", "layer-replication", "layer_replication", lora={**R4, "target_modules": QV, "layer_replication": [[0, 2], [1, 2]]}),
    refused(
        "replaced-twice",
        "patches-conflict",
        "two patches that replace the same tensor",
        together=(("modules-to-save", 1.0), ("modules-to-save-replace", 1.0)),
        options=REPLACE,
    ),
    refused("replaced-in-part", "patches-conflict", "a replacement with a weight", together=(("modules-to-save", 0.5),), options=REPLACE),
    refused(
        "replaced-and-changed",
        "patches-conflict",
        "a replacement of what another patch changes",
        together=(("lm-head", 1.0), ("modules-to-save", 1.0)),
        options=REPLACE,
    ),
    refused("alora", "activated-lora", "alora_invocation_tokens", lora={**R4, "target_modules": QV, "alora_invocation_tokens": [5, 6]}),
    refused("kasa", "kasa", "KaSA", lora={**R4, "target_modules": QV}, edit=set_config(kasa_config={"beta": 1e-4})),
    refused("monteclora", "monteclora", "MonteCLoRA", lora={**R4, "target_modules": QV}, edit=set_config(monteclora_config={"samples": 4})),
    refused("arrow", "arrow", "Arrow", lora={**R4, "target_modules": QV}, edit=set_config(arrow_config={"top_k": 2})),
    refused("bdlora", "bdlora", "block-diagonal LoRA", lora={**R4, "target_modules": QV}, edit=set_config(use_bdlora={"nblocks": 2})),
    refused("velora", "velora", "VeLoRA", lora={**R4, "target_modules": QV}, edit=set_config(velora_config={"groups": 2})),
    refused("megatron", "megatron", "Megatron layers", lora={**R4, "target_modules": QV}, edit=set_config(megatron_config={"hidden": 1})),
    refused("ia3", "peft-type", "IA3", config=lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])),
    refused("loha", "peft-type", "LoHa", config=lambda: peft.LoHaConfig(r=4, alpha=8, target_modules=QV)),
    refused("lokr", "peft-type", "LoKr", config=lambda: peft.LoKrConfig(r=4, alpha=8, target_modules=QV)),
    refused("adalora", "peft-type", "AdaLoRA", config=lambda: peft.AdaLoraConfig(target_modules=QV, total_step=100)),
    refused("vera", "peft-type", "VeRA", config=lambda: peft.VeraConfig(r=4, target_modules=["q_proj"])),
    refused("prompt-tuning", "peft-type", "prompt tuning", config=lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    refused(
        "unknown-key",
        "unknown-config-key",
        "a key that PEFT does not know",
        lora={**R4, "target_modules": QV},
        edit=set_config(new_variant_of_lora={"depth": 2}),
    ),
    refused("qalora", "qalora", "use_qalora", lora={**R4, "target_modules": QV}, edit=set_config(use_qalora=True)),
    refused("factors-f64", "factor-dtype", "factors in f64", lora={**R4, "target_modules": QV}, adapter_dtype=torch.float64),
    refused("lora-bias-without-bias", "lora-bias", "lora_bias on layers without a bias", lora={**R4, "target_modules": QV, "lora_bias": True}),
    refused(
        "tied-by-omission",
        "tied-weights",
        "LoRA on a head that the config ties by default",
        model="llama-tied",
        lora={**R4, "target_modules": ["lm_head"]},
        target_config={"tie_word_embeddings": None},
    ),
    refused(
        "quantized",
        "quantized-target",
        "a quantized target",
        lora={**R4, "target_modules": QV},
        target_config={"quantization_config": {"quant_method": "gptq", "bits": 4}},
    ),
    refused(
        "renamed-in-memory",
        "missing-tensor",
        "modules whose names transformers 5 changed only in memory",
        model="vit",
        lora={**R4, "target_modules": ["q_proj"]},
    ),
    refused("non-finite", "invalid_file", "NaN in a factor", lora={**R4, "target_modules": QV}, edit=make_non_finite),
    refused("fewer-layers", "fewer-layers", "a target with fewer layers", target="llama-one-layer", lora={**R4, "target_modules": QV}),
    refused("smaller-target", "shape-mismatch", "a target of another size", target="llama-narrow", lora={**R4, "target_modules": QV}),
    refused(
        "untargeted",
        "untargeted-module",
        "tensors that the config does not target",
        lora={**R4, "target_modules": QV},
        edit=set_config(target_modules=["q_proj"]),
    ),
    refused(
        "longer-vocabulary",
        "vocabulary-size",
        "an embedding that was resized",
        lora={**R4, "target_modules": QV},
        edit=longer_vocabulary,
        options=WITH_BASE,
    ),
]

VARIANTS = [*PLAIN, *OVERLAPS, *LAYERS, *DORA, *ABSOLUTE, *INITIALISED, *TIED, *SEVERAL, *REFUSED]
