"""Exports the encoder with mean pooling and normalisation as one f32 ONNX graph, and fuses it for
ONNX Runtime (attention, GELU, layer normalisation with its residual).

usage: export_onnx.py MODEL OUT.onnx
"""

import json
import os
import sys
import tempfile

import torch
from onnxruntime.transformers.optimizer import optimize_model
from transformers import AutoModel


class Sentence(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        types = torch.zeros_like(input_ids)
        hidden = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return mean / mean.norm(dim=1, keepdim=True)


def export(folder, path):
    model = Sentence(AutoModel.from_pretrained(folder, attn_implementation="eager")).eval()
    ids = torch.randint(5, 1000, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["embedding"]}
    axes = {0: "batch", 1: "sequence"}
    try:
        torch.onnx.export(
            model, (ids, mask), path, opset_version=17, dynamo=False, **names,
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "embedding": {0: "batch"}})
    except Exception as error:  # whichever of its two exporters this torch can still run
        print(f"the TorchScript exporter failed ({error!r:.200}); using the other one", file=sys.stderr)
        batch, sequence = torch.export.Dim("batch", min=1, max=512), torch.export.Dim("sequence", min=2, max=512)
        shapes = {0: batch, 1: sequence}
        torch.onnx.export(
            model, (ids, mask), path, dynamo=True, external_data=False, **names, dynamic_shapes=(shapes, shapes))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    folder, out = sys.argv[1:]
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    with tempfile.TemporaryDirectory() as work:
        plain = os.path.join(work, "plain.onnx")
        with torch.no_grad():
            export(folder, plain)
        fused = optimize_model(
            plain, model_type="bert", num_heads=config["num_attention_heads"],
            hidden_size=config["hidden_size"], opt_level=1)
        counts = {name: count for name, count in fused.get_fused_operator_statistics().items() if count}
        if counts.get("Attention", 0) != config["num_hidden_layers"]:
            sys.exit(f"the graph was not fused as expected: {counts}")
        fused.save_model_to_file(f"{out}.new")
    os.replace(f"{out}.new", out)
    print(f"fused: {counts}", file=sys.stderr)


main()
