"""A trained model as files that a web page runs by itself. Chapters 10 and 14.

Graphs in the ONNX format, and `model.json` with all that the page's sampler needs
beside them: the schedule, the target, the words, and how many bytes each graph has.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddpm_core.clip import CLIP
from ddpm_core.datasets import ATTRIBUTES
from ddpm_core.latent import LatentScaler
from ddpm_core.models import DiffusionModel, load_model
from ddpm_core.tokens import BEGIN, END, PAD, SPECIAL
from ddpm_core.types import Condition
from ddpm_core.workshop.commands.common import GUIDANCE, drawn_as

OPSET = 17  # the oldest version of ONNX that knows all that these networks do
PAIR = ("a red van by day", "")  # with and without a prompt, in one call


class _TextTower(nn.Module):
    """Tokens (2, length) -> pooled, states, mask: a condition as ONNX can return it."""

    def __init__(self, text: nn.Module):
        super().__init__()
        self.text = text

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.text(tokens))


class _UNet(nn.Module):
    """(x_t, t), and the parts of a condition if there is one -> what it predicts."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x_t: Tensor, t: Tensor, *parts: Tensor) -> Tensor:
        return self.net(x_t, t, Condition(*parts) if parts else None)


class _Decoder(nn.Module):
    """Small images -> the pictures that they stand for."""

    def __init__(self, latent: LatentScaler):
        super().__init__()
        self.latent = latent

    def forward(self, latents: Tensor) -> Tensor:
        return self.latent.decode(latents)


class _Graph(NamedTuple):
    """A network of a model, inputs to trace it on, and the names of its outputs."""

    name: str
    net: nn.Module
    inputs: dict[str, Tensor]
    outputs: list[str]


def export_for_browser(name: str | Path, folder: Path) -> None:
    """Write `unet.onnx` and `model.json` for the model of that name, and what it needs.

    That is `text.onnx` for a model that draws from prompts, and `decoder.onnx` for one
    whose small images are enlarged. The graphs of a text model take a batch of two, the
    prompt and the empty one, so that guidance costs one call; all others take one
    sample. They compute in fp32 from weights stored in fp16. Raises as `load_model`
    does, and ValueError for latents that are no images: a page could not show them.
    Chapters 10 and 14.
    """
    model = load_model(name)
    if model.latent and not model.latent.in_range:
        raise ValueError(
            f"a page shows each state as a picture: the latents of {str(name)!r} "
            "are no images"
        )
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for graph in _graphs(model):
        path = folder / f"{graph.name}.onnx"
        _export(graph, path)
        sizes[graph.name] = path.stat().st_size
    steps, sampler = drawn_as(name, None, None)
    settings = _settings(model) | {"steps": steps, "sampler": sampler, "graphs": sizes}
    (folder / "model.json").write_text(
        json.dumps(settings, indent=1) + "\n", encoding="utf-8"
    )


def _graphs(model: DiffusionModel) -> Iterator[_Graph]:
    """Yield the networks of a model."""
    condition, rows = {}, 1
    if model.encoder:
        rows, tokens = len(PAIR), model.encoder.tokenizer(PAIR)
        condition = model.encoder.encode(PAIR)._asdict()
        text = _TextTower(model.encoder.text)
        yield _Graph("text", text, {"tokens": tokens}, [*condition])
    x = torch.zeros(rows, *model.shape)
    t = torch.full((rows,), model.schedule.T)
    inputs = {"x_t": x, "t": t, **condition}
    yield _Graph("unet", _UNet(model.net), inputs, ["predicted"])
    if model.latent:
        yield _Graph("decoder", _Decoder(model.latent), {"latents": x[:1]}, ["picture"])


def _settings(model: DiffusionModel) -> dict:
    """What the page must know beside the graphs."""
    return {
        "alpha_bar": model.schedule.alpha_bar.tolist(),
        "target": model.config.target,
        "t_end": model.t_end,
        "shape": list(model.shape),
        "picture": [model.shape[0], *model.config.sides],
        "prompts": _prompts(model.encoder) if model.encoder else None,
    }


def _prompts(encoder: CLIP) -> dict:
    """What the page must know to turn words into tokens, and to offer some."""
    tokenizer = encoder.tokenizer
    return {
        "guidance": GUIDANCE,
        "words": tokenizer.words,
        "length": tokenizer.length,
        "tokens": {"pad": PAD, "begin": BEGIN, "end": END, "first": SPECIAL},
        "choices": {name: ATTRIBUTES[name] for name in ("body", "colour", "time")},
    }


def _export(graph: _Graph, path: Path) -> None:
    """Trace a network and write it."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no such operator
    try:
        with warnings.catch_warnings():  # about branches on shapes, which are fixed
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.net.eval(), tuple(graph.inputs.values()), path,
                input_names=[*graph.inputs], output_names=graph.outputs,
                dynamo=False, opset_version=OPSET,
            )  # fmt: skip
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
