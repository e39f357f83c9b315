"""What PEFT's own PiSSA and OLoRA take out of layers of several spectra, beside float64 decompositions by numpy.

    initial_factors.py --out FILE

FILE is a safetensors file with, for every case, `case`, the base's weight as stored; `case.<method>.exact`, the product by
numpy's SVD or QR in float64; and, where the base is float32 and PEFT does not round its factors, `case.<method>.peft`, the
product that PEFT takes out. Prints the cases as JSON.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

RANK = 6
ALPHA = 9


def spectra() -> dict[str, torch.Tensor]:
    noise = numpy.random.default_rng(7)

    def with_values(rows: int, cols: int, values: numpy.ndarray) -> torch.Tensor:
        left, _ = numpy.linalg.qr(noise.standard_normal((rows, len(values))))
        right, _ = numpy.linalg.qr(noise.standard_normal((cols, len(values))))
        return torch.from_numpy((left * values) @ right.T)

    places = numpy.arange(1, 201)
    # A trained layer: a bulk of noise under a heavy tail, with a few outliers.
    trained = 0.02 * torch.from_numpy(noise.standard_normal((300, 200))) + with_values(300, 200, 3 * places**-0.6)
    return {
        "noise": torch.from_numpy(noise.standard_normal((260, 220))),
        "power": with_values(200, 320, 5 * places**-0.8),
        "geometric": with_values(320, 200, 0.9**places),
        "trained": trained,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(2)
    tensors, cases = {}, []
    for spectrum, values in spectra().items():
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            name = f"{spectrum} {dtype}".replace("torch.", "")
            weight = values.to(dtype)
            tensors[name] = weight
            for method in ("pissa", "olora"):
                tensors[f"{name}.{method}.exact"] = exact(weight.double().numpy(), method)
                if dtype == torch.float32:
                    tensors[f"{name}.{method}.peft"] = taken_out(weight, method)
            cases.append({"name": name, "rank": RANK})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, options.out)
    json.dump(cases, sys.stdout)


def taken_out(weight: torch.Tensor, method: str) -> torch.Tensor:
    """Of PEFT's start, without OLoRA's scale."""
    rows, cols = weight.shape
    model = torch.nn.Sequential(torch.nn.Linear(cols, rows, bias=False).to(weight.dtype))
    model[0].weight.data = weight.clone()
    torch.manual_seed(0)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, init_lora_weights=method, target_modules=["0"])
    layer = get_peft_model(model, config).base_model.model[0]
    product = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
    return (product * (ALPHA / RANK if method == "pissa" else 1)).detach()


def exact(weight: numpy.ndarray, method: str) -> torch.Tensor:
    if method == "pissa":
        left, values, right = numpy.linalg.svd(weight, full_matrices=False)
        return torch.from_numpy((left[:, :RANK] * values[:RANK]) @ right[:RANK])
    left, right = numpy.linalg.qr(weight)
    return torch.from_numpy(left[:, :RANK] @ right[:RANK])


if __name__ == "__main__":
    main()
