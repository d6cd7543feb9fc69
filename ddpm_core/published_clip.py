"""The text tower of a published CLIP, in place of the small one. Chapter 10.

For models that are trained on real photos with captions, or class names as captions,
for which the words of the toy cars are not enough. It comes from the package
`open_clip_torch`, which downloads the weights once.
"""

from collections.abc import Sequence
from difflib import get_close_matches

import torch
from torch import nn

from ddpm_core.types import Condition

PREFIX = "open_clip:"
"""How such an encoder is named in a preset: open_clip:ARCHITECTURE/WEIGHTS."""


class PublishedCLIP(nn.Module):
    """The text tower of an `open_clip` model: `encode` and `widths`, as in `CLIP`.

    The words of the condition are the states after the last layer and its
    normalisation; the vector is the state at the end of the caption, before its
    projection. Radford et al. 2021, section 2.4. Chapter 10.
    """

    def __init__(self, clip: nn.Module, tokenizer):
        super().__init__()
        self.clip = clip
        self.tokenizer = tokenizer

    @property
    def widths(self) -> tuple[int, int]:
        """The widths of what `encode` gives: of the vector and of a word."""
        width = self.clip.positional_embedding.shape[1]
        return width, width

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> Condition:
        """The condition of a U-Net for these captions.

        Raises ValueError for a caption of more tokens than the tower takes; any word is
        known, cut into pieces if need be.
        """
        clip = self.clip
        length = clip.positional_embedding.shape[0]
        for caption in captions:
            pieces = len(self.tokenizer.encode(caption))
            if pieces > length - 2:
                raise ValueError(
                    f"{caption!r} has {pieces} tokens, at most {length - 2} fit"
                )
        tokens = self.tokenizer(list(captions), context_length=length)
        tokens = tokens.to(clip.positional_embedding.device)
        x = clip.token_embedding(tokens) + clip.positional_embedding
        states = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask))
        end = tokens.argmax(1)  # the end has the highest number of all
        places = torch.arange(length, device=tokens.device)
        pooled = states[torch.arange(len(end)), end]
        return Condition(pooled, states, places <= end[:, None])


def load_published_clip(name: str, device: str | torch.device = "cpu") -> PublishedCLIP:
    """Load the text tower that `name` says, such as open_clip:ViT-B-32/openai.

    The first time it fetches the weights. Raises RuntimeError if the package or the
    weights cannot be obtained, ValueError for a name that is not known.
    """
    try:
        import open_clip
    except ImportError as error:
        raise RuntimeError(
            f"the text encoder {name} needs the extra 'open-clip': "
            "pip install 'ddpm-core[open-clip]'"
        ) from error
    known = ["/".join(pair) for pair in open_clip.list_pretrained()]
    wanted = name.removeprefix(PREFIX)
    if wanted not in known:
        near = get_close_matches(wanted, known, n=4, cutoff=0)
        raise ValueError(
            f"open_clip has no {wanted!r}; the nearest of {len(known)}: "
            f"{', '.join(near)}"
        )
    architecture, weights = wanted.split("/")
    try:
        clip = open_clip.create_model(architecture, pretrained=weights)
    except Exception as error:
        raise RuntimeError(
            f"the weights of {name} could not be fetched; at first use they need a "
            f"network: {error}"
        ) from error
    tokenizer = open_clip.get_tokenizer(architecture)
    if not hasattr(clip, "token_embedding") or not hasattr(tokenizer, "encode"):
        raise ValueError(f"{wanted} has a text tower of another kind: take a ViT-B-32")
    clip.visual = nn.Identity()  # only captions are read here
    clip = clip.to(device).eval().requires_grad_(False)
    return PublishedCLIP(clip, tokenizer)
