"""Cards: what weights are, how they were made, what was measured; for all kinds.

A card is JSON, and the same in words. `kind` says which sentences fit; no figure is
typed by hand.
"""

from collections.abc import Callable
from typing import NamedTuple

from ddpm_core.datasets.sizes import spelled
from ddpm_core.datasets.toy_cars import NEVER_TRAINED
from ddpm_core.neighbours.vae import VAEConfig

SHOWN = 64  # samples in a card's picture
NEVER_SEEN = 128  # samples of each combination that was left out of training
AMONG = 256  # pairs among which the CLIP's search looks
FIRST = 5  # answers that count
SAMPLING = {
    "ddim": "DDIM",
    "ancestral": "ancestral sampling",
    "dpm-solver++": "DPM-Solver++",
    "heun": "Heun's method",
}
"""The samplers, as sentences name them."""

FILES = (
    "card.json", "weights.safetensors", "README.md", "samples.webp", "nearest.webp",
    "losses.webp", "reconstructions.webp",
)  # fmt: skip
"""What a folder of weights may hold; one with other files is not overwritten."""


class Words(NamedTuple):
    """What only one kind of weights has to say, as Markdown."""

    about: str
    picture: str = ""
    facts: str = ""
    measured: str = ""
    more: str = ""


def card_text(card: dict) -> str:
    """Put a card into words, for people."""
    words = KINDS[card.get("kind", "diffusion")](card)
    commands = "\n".join(card["commands"])
    seen, images = card["images seen"], card["images"]
    parts = [
        f"# {card['name']}",
        words.about,
        words.picture,
        "Made by:",
        f"```\n{commands}\n```",
        f"- Network: {card['parameters']:,} parameters, stored as fp16; configuration "
        "and hash are in\n  `card.json`.\n"
        f"- Hardware and time: {card['hardware']}, {card['seconds'] / 60:.0f} minutes "
        "of training.\n"
        f"- Images: {images:,}, seed {card['seed']}; {seen:,} were seen in training, "
        f"each {seen / images:.1f} times.{words.facts}",
        "## Measured",
        words.measured,
        words.more,
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _diffusion(card: dict) -> Words:
    config, training = card["config"], card["training"]
    measured = card["measured"]
    size = config["size"]
    frame = spelled(size if isinstance(size, int) else tuple(size))
    grey = "grey " if config["network"]["image_channels"] == 1 else ""
    return Words(
        about=f"A denoising network ({config['network']['kind']}) for {grey}images of "
        f"{frame} pixels, trained on {_pictures(card)}\n{_condition(card)}.",
        picture=_picture(measured),
        facts=f"\n- Predicts: {predicted(card)}\n{_start(training)}- Stored: averaged "
        f"weights (decay {training['ema']}){_gains(card)}.\n\n"
        "![Losses of the run](losses.webp)",
        measured=_samples(measured),
        more=_copies(measured),
    )


def _start(training: dict) -> str:
    start = training.get("start_from")
    return f"- Training started from the weights of {start}.\n" if start else ""


def _gains(card: dict) -> str:
    gains = card.get("gains", {})
    layers = ", ".join(f"{name} by {gain:g}" for name, gain in gains.items())
    return f";\n  multiplied after the training (chapter 14): {layers}" * bool(gains)


def _picture(measured: dict) -> str:
    return f"![{SHOWN} samples](samples.webp)" if "steps" in measured else ""


def _lora(card: dict) -> Words:
    config, training = card["config"], card["training"]
    measured = card["measured"]
    return Words(
        about=f"A change of rank {config['rank']} (LoRA) to the weights of "
        f"{config['base']}, trained on {training['data']}.\n`ddpm sample --weights "
        f"{config['base']} --lora` with this folder adds it; `--lora-scale` says how "
        "much.",
        picture=_picture(measured),
        facts="\n- Stored: the averaged change (decay "
        f"{training['ema']}) of each linear layer and convolution.\n\n"
        "![Losses of the run](losses.webp)",
        measured=_samples(measured),
        more=_copies(measured),
    )


def _pictures(card: dict) -> str:
    """Name the data, and say where the photos in it are crops."""
    data = card["training"]["data"]
    if "margin" not in card:
        return data
    around = f"the box of its car and {card['margin']} pixels around it"
    return f"{data}\n(crops of photos: of each, {around}),"


def _condition(card: dict) -> str:
    config, training = card["config"], card["training"]
    text = "without labels or captions"
    if config["text"]:
        text = f"with captions, encoded by {config['text']}"
    if config["classes"]:
        text = f"with the names of {len(config['classes'])} classes"
    if config["latent"]:
        text += f",\nin the latents of {config['latent']}"
    if training["teacher"]:
        text += f",\nas a student of {training['teacher']}"
    return text


def predicted(card: dict) -> str:
    """Put into words what the network predicts, and what it was taught in training."""
    config, training = card["config"], card["training"]
    text = f"{config['target']}; {config['schedule']} schedule, T = {config['T']}"
    if config["zero_terminal_snr"]:
        text += ", rescaled to end in pure noise"
    if training["min_snr"]:
        text += f"; loss weighted by min(SNR, {training['min_snr']:g})"
    if training["teacher"]:
        kept = training["calls"] or "straight paths for any number"
        text += f";\n  distilled from {training['teacher_calls']} calls to {kept}"
    return text + "."


def _samples(measured: dict) -> str:
    if "steps" not in measured:
        return "Nothing yet: no samples were drawn."
    end = f", the last from t = {measured['t_end']}" if measured.get("t_end") else ""
    text = (
        f"With {measured['steps']} steps of {SAMPLING[measured['sampler']]}{end}, seed "
        f"{measured['seed']}, from the stored weights:\n\n"
    )
    if "held-out loss" in measured:
        text += f"- Held-out loss: {measured['held-out loss']:.4f}.\n"
    if "scores" in measured:
        text += scores_text(measured)
    if "prompts" in measured:
        text += _prompts(measured["prompts"])
    return text


def _copies(measured: dict) -> str:
    near = measured.get("nearest training image, rms")
    if not near:
        return ""
    held = measured.get("the same of held-out images")
    beside = ""
    if held:
        beside = f"; for held-out images {held['mean']} and {held['least']}"
    return (
        "## Copies?\n\nBelow each sample is its nearest training image, by root mean "
        "squared difference in units of\n[-1, 1]. The distance is "
        f"{near['mean']} on average over {SHOWN} samples, and at least "
        f"{near['least']}{beside}.\n\n"
        "![Samples above their nearest training images](nearest.webp)"
    )


def scores_text(measured: dict) -> str:
    """Put into words how close samples come, and the attributes of toy cars."""
    text = f"- {measured['scores'][0].upper()}{measured['scores'][1:]}.\n"
    if "attributes" not in measured:
        return text
    text += "\n| attribute | confidence | fractions |\n| --- | --- | --- |\n"
    for name, values in measured["attributes"].items():
        shares = ", ".join(f"{k} {v:.1%}" for k, v in list(values.items())[1:])
        text += f"| {name} | {values['confidence']:.3f} | {shares} |\n"
    return text


def _prompts(prompts: dict) -> str:
    kinds = ("body", "colour", "time", "all")
    lines = [
        f"\nWhat the classifier reads in samples of other captions, guidance "
        f"{prompts['scale']:g}; the combinations of the last\nrows ({NEVER_SEEN} "
        "samples each) were left out of training:\n",
        f"| prompts | {' | '.join(kinds)} |",
        "| --- " * 5 + "|",
    ]
    for row, shares in prompts.items():
        if row != "scale":
            name = "captions at random" if row == "obeyed" else row
            figures = " | ".join(f"{shares[kind]:.1%}" for kind in kinds)
            lines.append(f"| {name} | {figures} |")
    return "\n".join(lines) + "\n"


def _generator(what: str) -> Callable[[dict], Words]:
    def words(card: dict) -> Words:
        side = card["config"]["size"]
        return Words(
            about=f"{what}, for toy cars\nof {side}x{side} pixels; chapter 04 compares "
            "it with diffusion.",
            picture=f"![{SHOWN} samples](samples.webp)",
            facts=f"\n- Stored: averaged weights (decay 0.999) of the "
            f"{card['parameters that draw']:,} parameters that draw.",
            measured=f"From the stored weights:\n\n{scores_text(card['measured'])}",
        )

    return words


def _autoencoder(card: dict) -> Words:
    config, measured = card["config"], card["measured"]
    channels, side, _ = VAEConfig.from_dict(config).latent_shape
    fewer = 3 * config["size"] ** 2 / (channels * side**2)
    text = (
        f"From the stored weights, on {measured['images']:,} other images:\n\n"
        f"- Peak signal-to-noise ratio of reconstructions: {measured['psnr']} dB.\n"
        f"- Latents before scaling, by channel: mean {measured['latent mean']}, "
        f"standard deviation\n  {measured['latent std']}.\n"
    )
    if "floor" in measured:
        text += (
            f"- Fréchet distance of the reconstructions to their images, n = "
            f"{measured['n']:,}, features of\n  {measured['features']}: "
            f"{measured['frechet']}; to other images: {measured['rebuilt floor']},\n  "
            f"where the images themselves have {measured['floor']}.\n"
        )
    if "finished floor" in measured:
        text += (
            f"- Of images noised to t = {card['t_end']}, denoised by one call and "
            f"decoded, to other images:\n  {measured['finished floor']}.\n"
        )
    if "kept" in measured:
        kept = ", ".join(f"{k} {v:.1%}" for k, v in measured["kept"].items())
        text += (
            "- Fréchet distance of the reconstructions to their images, features\n  of "
            f"toy-cars-classifier-32: {measured['frechet']}. The classifier also "
            "helped to train the autoencoder\n  wherever the command says "
            "`--perceptual classifier`.\n"
            f"- Reconstructions in which the classifier reads the same: {kept}.\n"
        )
    kind, ways = "A KL autoencoder (`ddpm_core.latent`, chapter 11)", "and back"
    if config.get("resized"):
        kind = "A decoder that enlarges images (`ddpm_core.latent`, chapter 14)"
        ways = "which are\nthe image itself made smaller, and learns the way back"
    return Words(
        about=f"{kind}. It turns images of {config['size']}x{config['size']} pixels\n"
        f"into latents of {side}x{side} positions with {channels} channels, "
        f"{fewer:g} times fewer numbers, {ways}.",
        picture="![Images, and below each its reconstruction](reconstructions.webp)",
        facts="\n- Stored with the mean and the standard deviation of each latent "
        "channel.",
        measured=text,
    )


def _clip(card: dict) -> Words:
    config, measured = card["config"], card["measured"]
    search, likes = measured["retrieval"], measured["preferred"]
    return Words(
        about=f"Maps toy cars of 32x32 pixels and their captions to one space of "
        f"{config['embedding']} dimensions\n(`ddpm_core.clip.CLIP`, chapter 10). Its "
        "text tower conditions the text models.",
        facts=f"\n- Vocabulary: {len(config['words'])} words. Never trained on: "
        f"{', '.join(NEVER_TRAINED)}.",
        measured=f"From the stored weights, on {measured['images']:,} cars of another "
        f"seed ({measured['seed']}):\n\n"
        f"| the right one among the first {FIRST} of {AMONG} (equal captions are all "
        "right) | |\n| --- | --- |\n"
        f"| images, by caption | {search['caption to image']:.2%} |\n"
        f"| captions, by image | {search['image to caption']:.2%} |\n\n"
        "| the true value preferred to all others | |\n| --- | --- |\n"
        f"| body | {likes['body']:.2%} |\n| colour | {likes['colour']:.2%} |\n"
        f"| time of day | {likes['time']:.2%} |",
        more="## Limits\n\nIt knows the words of the captions and no others, and toy "
        "cars only.",
    )


def _classifier(card: dict) -> Words:
    measured = card["measured"]
    kinds = ["accuracy", "accuracy, disturbed", "mean confidence"]
    kinds.append("mean confidence on noise")
    rows = [
        f"| {name} | " + " | ".join(f"{measured[k][name]:.2%}" for k in kinds) + " |"
        for name in card["config"]["attributes"]
    ]
    confused = [f"{pair} ({n})" for pair, n in measured["confused"].items()]
    table = [f"| attribute | {' | '.join(kinds)} |", "| --- " * 5 + "|", *rows]
    return Words(
        about="Reads body, colour, facing, time of day and ground off a toy car of "
        "32x32 pixels\n(`neighbours.classifier.AttributeClassifier`), and gives the "
        "features on which drawn and generated cars are\ncompared (chapter 04).",
        facts="\n- Half of the images were mirrored, all blurred a little and given "
        "noise of a std of up to 0.1;\n  one in eight was replaced by noise that shows "
        "no car.",
        measured=f"From the stored weights, on {measured['images']:,} cars of another "
        f"seed ({measured['seed']}); the disturbed ones are\nblurred and noisy, as in "
        "training:\n\n" + "\n".join(table) + "\n\n"
        f"Most often confused: {', '.join(confused) or 'nothing'}.\n\n"
        "Fréchet distance of its features between two halves of these cars: "
        f"{measured['frechet distance of halves']}.\nIt cannot distinguish generated "
        "cars that come as close, and are as many, from drawn ones.",
        more="## Limits\n\nIt knows toy cars only. It may read a picture that is "
        "neither a car nor noise with confidence, so\nlook at the pictures too. "
        "Distances on its features do not compare with those on Inception's.",
    )


KINDS: dict[str, Callable[[dict], Words]] = {
    "diffusion": _diffusion,
    "lora": _lora,
    "vae": _generator("A variational autoencoder (`neighbours.vae`, chapter 02)"),
    "gan": _generator(
        "The generator of a Wasserstein GAN (`neighbours.gan`, chapter 03)"
    ),
    "autoencoder": _autoencoder,
    "clip": _clip,
    "classifier": _classifier,
}
"""What each kind of weights has to say."""
