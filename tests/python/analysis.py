"""numpy as oracle for `portllm analyze`: the figures from their definitions, with P written out in float64.

    analysis.py OUT '[["BASE", "TARGET", "PATCH"], ...]'

makes tiny models and patches in the folder OUT, and prints the figures of each triple of folders.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

SAMPLED_ROWS = 8
SIZES = {"hidden": 48, "heads": 32, "intermediate": 80, "vocabulary": 40}


def main() -> None:
    out, triples = sys.argv[1:]
    torch.set_num_threads(1)
    make(Path(out))
    json.dump([figures(*map(Path, triple)) for triple in json.loads(triples)], sys.stdout)


def figures(base: Path, target: Path, patch: Path) -> dict:
    config = json.loads((patch / "adapter_config.json").read_text())
    adapter = load_file(patch / "adapter_model.safetensors")
    old, new = load_model(base), load_model(target)
    result = {}
    for name, a in adapter.items():
        if not (match := re.fullmatch(r"base_model\.model\.(.*)\.lora_(embedding_)?A(\.weight)?", name)):
            continue
        module, embedding = match[1], match[2] is not None
        b = exact(adapter[name.replace("_A", "_B")])
        a = exact(a)
        alpha = next((value for key, value in config["alpha_pattern"].items() if re.match(rf"(.*\.)?({key})$", module)), config["lora_alpha"])
        scale = float(np.float32(alpha / (np.sqrt(len(a)) if config["use_rslora"] else len(a))))
        left, right = (a.T, b.T) if embedding else (b, a)
        tensor = f"{module}.weight"
        result[tensor] = measure(exact(old[tensor]), exact(new[tensor]), new[tensor].dtype, left, right, scale)
    return result


def load_model(folder: Path) -> dict:
    return {name: tensor for shard in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(shard).items()}


def exact(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


def measure(w: np.ndarray, evolved: np.ndarray, dtype: torch.dtype, left: np.ndarray, right: np.ndarray, scale: float) -> dict:
    d = evolved - w
    p = scale * (left @ right)
    q_a, q_b = basis(right.T), basis(left)
    merged = torch.from_numpy((evolved.astype(np.float32) + p.astype(np.float32))).to(dtype).double().numpy()
    norm = np.linalg.norm
    return {
        "relativeDrift": quotient(norm(d), norm(w)),
        "patchNorm": norm(p),
        # The trace formula of docs/analysis.md, as a check on both.
        "patchNormByTrace": scale * np.sqrt(np.trace((left.T @ left) @ (right @ right.T))),
        "patchSpectralNorm": float(np.sqrt(max(0.0, np.linalg.eigvalsh(p @ p.T if len(p) < p.shape[1] else p.T @ p)[-1]))),
        "patchOverDrift": quotient(norm(p), norm(d)),
        "interference": quotient((d * p).sum(), norm(d) * norm(p)),
        "seen": {"read": seen(norm(d @ q_a), norm(d), q_a), "write": seen(norm(q_b.T @ d), norm(d), q_b)},
        "readDrift": quotient(norm(d @ q_a), norm(w @ q_a)),
        "writeDrift": quotient(norm(q_b.T @ d), norm(q_b.T @ w)),
        "roundingLoss": quotient(norm(merged - evolved - p), norm(p)),
        "rowMatch": row_match(w, evolved),
    }


def basis(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span those of the matrix."""
    u, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    return u[:, singular > singular.max() * max(matrix.shape) * np.finfo(float).eps]


def quotient(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None


def seen(part: float, whole: float, q: np.ndarray) -> dict | None:
    chance = q.shape[1] / q.shape[0]
    if chance == 0 or whole == 0:
        return None
    return {"share": (part / whole) ** 2, "chance": chance, "lift": (part / whole) ** 2 / chance}


def row_match(w: np.ndarray, evolved: np.ndarray) -> dict | None:
    rows = len(w)
    taken = min(rows, SAMPLED_ROWS)
    # Rows that are zero, such as those of tokens that never came, have no direction.
    kept = evolved.any(axis=1)
    sampled = [row for row in ((2 * k + 1) * rows // (2 * taken) for k in range(taken)) if w[row].any() and kept[row]]
    if kept.sum() < 2 or not sampled:
        return None
    lengths = np.where(kept, np.linalg.norm(evolved, axis=1), np.inf)
    cosines = (w[sampled] @ evolved.T) / np.outer(np.linalg.norm(w[sampled], axis=1), lengths)
    cosines[:, ~kept] = -np.inf
    own = (np.arange(len(sampled)), sampled)
    same = cosines[own].copy()
    cosines[own] = -np.inf
    best = cosines.max(axis=1)
    return {"sampled": len(sampled), "elsewhere": int((best > same).sum()), "same": same.mean(), "bestOther": best.mean()}


def make(out: Path) -> None:
    rng = np.random.default_rng(7)
    base = model(rng)
    drifted = {name: value + 0.05 * value.std() * rng.standard_normal(value.shape) for name, value in base.items()}
    permuted = permute(drifted, rng.permutation(SIZES["intermediate"]))
    # The update of the first layer's q_proj undoes the patch, and lies nowhere else.
    patch = adapter(rng)
    opposed = dict(drifted) | {Q: base[Q] - 0.3 * 2.0 * patch[f"{PEFT}{Q_MODULE}.lora_B.weight"] @ patch[f"{PEFT}{Q_MODULE}.lora_A.weight"]}
    nearly = {name: value @ np.diag(np.logspace(0, -12, value.shape[1])) if "lora_B" in name else value for name, value in patch.items()}
    dependent = {name: np.repeat(value[:, :1], value.shape[1], axis=1) if "lora_B" in name else value for name, value in patch.items()}
    untrained = {name: np.zeros_like(value) if "lora_B" in name else value for name, value in patch.items()}
    models = {"base": (base, torch.bfloat16), "base-f32": (base, torch.float32), "drifted": (drifted, torch.bfloat16), "drifted-f16": (drifted, torch.float16), "permuted": (permuted, torch.bfloat16), "opposed": (opposed, torch.float32)}
    patches = {"patch": patch, "patch-nearly-dependent": nearly, "patch-dependent": dependent, "patch-untrained": untrained}
    for name, (tensors, dtype) in models.items():
        save(out / name / "model.safetensors", tensors, dtype)
        config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "tie_word_embeddings": False, "num_hidden_layers": 2, "vocab_size": SIZES["vocabulary"], "hidden_size": SIZES["hidden"]}
        (out / name / "config.json").write_text(json.dumps(config))
    for name, tensors in patches.items():
        save(out / name / "adapter_model.safetensors", tensors, torch.float32)
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": False, "alpha_pattern": {}, "rank_pattern": {}, "target_modules": ["q_proj", "up_proj", "down_proj"], "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "task_type": "CAUSAL_LM"}
        (out / name / "adapter_config.json").write_text(json.dumps(config))


PEFT = "base_model.model."
Q_MODULE = "model.layers.0.self_attn.q_proj"
Q = f"{Q_MODULE}.weight"


def shapes() -> dict:
    hidden, heads, intermediate = SIZES["hidden"], SIZES["heads"], SIZES["intermediate"]
    return {f"model.layers.{layer}.{module}": shape for layer in range(2) for module, shape in {"self_attn.q_proj": (heads, hidden), "mlp.up_proj": (intermediate, hidden), "mlp.down_proj": (hidden, intermediate)}.items()}


def model(rng: np.random.Generator) -> dict:
    tensors = {f"{module}.weight": 0.05 * rng.standard_normal(shape) for module, shape in shapes().items()}
    vocabulary = (SIZES["vocabulary"], SIZES["hidden"])
    return tensors | {"model.embed_tokens.weight": rng.standard_normal(vocabulary), "lm_head.weight": rng.standard_normal(vocabulary)}


def adapter(rng: np.random.Generator) -> dict:
    tensors = {}
    for module, (rows, cols) in shapes().items():
        tensors[f"{PEFT}{module}.lora_A.weight"] = rng.standard_normal((4, cols)) / np.sqrt(cols)
        tensors[f"{PEFT}{module}.lora_B.weight"] = 0.05 * rng.standard_normal((rows, 4))
    return tensors


def permute(tensors: dict, order: np.ndarray) -> dict:
    """The same function with the units between up_proj and down_proj in another order."""
    return {name: value[order] if "up_proj" in name else value[:, order] if "down_proj" in name else value for name, value in tensors.items()}


def save(path: Path, tensors: dict, dtype: torch.dtype) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.from_numpy(np.ascontiguousarray(value)).to(dtype) for name, value in tensors.items()}, path)


if __name__ == "__main__":
    main()
