"""A text-conditioned model as files that a web page runs by itself. Chapter 10.

Two graphs in the ONNX format, the text tower and the U-Net, and `model.json` with all
that the page's sampler needs beside them: the schedule, the target, the words.
"""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ddpm_core.datasets import ATTRIBUTES
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.tokens import BEGIN, END, PAD, SPECIAL
from ddpm_core.types import Condition
from ddpm_core.workshop.commands.common import GUIDANCE

OPSET = 17  # the oldest version of ONNX that knows all that these networks do
PAIR = ("a red van by day", "")  # with and without a prompt, in one call


class _TextTower(nn.Module):
    """Tokens (2, length) -> pooled, states, mask: a condition as ONNX can return it."""

    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.text(tokens))


class _ConditionedUNet(nn.Module):
    """(x_t, t, pooled, states, mask) -> what the network predicts."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x_t, t, pooled, states, mask) -> Tensor:
        return self.net(x_t, t, Condition(pooled, states, mask))


def export_for_browser(name: str | Path, folder: Path) -> None:
    """Write `text.onnx`, `unet.onnx` and `model.json` for the model of that name.

    Both graphs take a batch of two, the prompt and the empty one, so that guidance
    costs one call; they compute in fp32 from weights stored in fp16. Raises as
    `load_model` does, and ValueError for a model that draws without prompts or in
    latents. Chapter 10.
    """
    model = load_model(name)
    if model.encoder is None or model.latent is not None:
        raise ValueError(
            f"a page draws pixels from prompts: {str(name)!r} has "
            + ("no text encoder" if model.encoder is None else "latents")
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokens = model.encoder.tokenizer(PAIR)
    x = torch.zeros(2, *model.shape)
    t = torch.full((2,), model.schedule.T)
    condition = model.encoder.encode(PAIR)
    parts = ["pooled", "states", "mask"]
    _export(
        _TextTower(model.encoder.text), (tokens,), folder / "text.onnx",
        input_names=["tokens"], output_names=parts,
    )  # fmt: skip
    _export(
        _ConditionedUNet(model.net), (x, t, *condition), folder / "unet.onnx",
        input_names=["x_t", "t", *parts], output_names=["predicted"],
    )  # fmt: skip
    (folder / "model.json").write_text(
        json.dumps(_settings(model), indent=1) + "\n", encoding="utf-8"
    )


def _settings(model: DiffusionModel) -> dict:
    """What the page must know beside the graphs."""
    tokenizer = model.encoder.tokenizer
    return {
        "alpha_bar": model.schedule.alpha_bar.tolist(),
        "target": model.config.target,
        "shape": list(model.shape),
        "guidance": GUIDANCE,
        "words": tokenizer.words,
        "length": tokenizer.length,
        "tokens": {"pad": PAD, "begin": BEGIN, "end": END, "first": SPECIAL},
        "choices": {name: ATTRIBUTES[name] for name in ("body", "colour", "time")},
    }


def _export(net: nn.Module, inputs: tuple[Tensor, ...], path: Path, **names) -> None:
    """Trace a network on these inputs and write its graph."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    try:
        with warnings.catch_warnings():  # about branches on shapes, which are fixed
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net.eval(), inputs, path, dynamo=False, opset_version=OPSET, **names
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    _halve(path)


def _halve(path: Path) -> None:
    """Store as fp16 what fp16 holds exactly, and cast it back as the graph begins.

    That is all that comes from the weights; tables that the code computes stay fp32.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    casts = []
    for stored in model.graph.initializer:
        if stored.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(stored)
        halves = values.astype("float16")
        if values.size < 16 or (halves.astype("float32") != values).any():
            continue
        name = stored.name
        stored.CopyFrom(numpy_helper.from_array(halves, name + ".half"))
        casts.append(
            onnx.helper.make_node(
                "Cast", [name + ".half"], [name], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)
