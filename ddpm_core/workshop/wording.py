"""What a prompt may say, for those who say it in other words. Nothing needs torch.

The text models know only the words of the toy cars' captions. The error for another
word lists all that can be said, by kind, and the nearest in meaning.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from ddpm_core.datasets.toy_cars import BODIES, COLOURS, PHRASES

SAYABLE = {
    "kind of car": ("car", *BODIES),
    "colour": COLOURS,
    "ground": tuple(PHRASES["ground"].values()),
    "time": tuple(PHRASES["time"].values()),
    "direction": tuple(PHRASES["facing"].values()),
}
"""What the captions of toy cars can say, by kind. Chapter 10."""

MEANINGS = {
    "red": "crimson scarlet ruby cherry maroon burgundy ferrari",
    "purple": "pink violet magenta lilac mauve lavender rose",
    "orange": "copper bronze amber tangerine rust",
    "yellow": "gold golden lemon cream beige taxi",
    "green": "olive lime emerald mint khaki turquoise teal",
    "blue": "navy cyan azure aqua indigo sky",
    "white": "silver grey gray pale bright light ivory",
    "black": "brown charcoal ebony",
    "sedan": "saloon limousine limo family hatchback coupe coupé cab",
    "SUV": "jeep suvs offroad 4x4 crossover estate wagon",
    "van": "bus minibus minivan transporter camper delivery ambulance vans",
    "convertible": "cabrio cabriolet roadster spider open topless roofless",
    "pickup truck": "lorry trucks pick-up ute flatbed tractor",
    "sports car": "racing race racer racecar supercar fast porsche sportscar",
    "car": "cars automobile auto vehicle vehicles motor ride",
    "at night": "evening midnight moon moonlight stars sunset dusk nighttime dawn",
    "by day": "sun sunny sunshine noon morning afternoon midday",
    "in snow": "winter snowy ice icy arctic white-out mountains cold frost",
    "on sand": "beach desert dune dunes sandy coast seaside sea ocean shore",
    "on grass": "field meadow lawn park garden forest countryside nature",
    "on the road": "street highway motorway city town asphalt driveway parked driving",
    "facing left": "leftwards west backwards",
    "facing right": "rightwards east forwards",
}
"""Words that are nearest to each of these in meaning, by hand."""

NUMBERS = "no two three four five six several many some both pair without".split()
"""Words for numbers: a picture shows one car."""

NEAREST = {w: meaning for meaning, words in MEANINGS.items() for w in words.split()}


def check_words(prompts: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for a prompt with a word that is not `known`, with an answer.

    The answer has the nearest that can be said, and all that can be said by kind. A
    vocabulary without the toy cars' words is ignored, as nothing is known of it here.
    """
    known = {word.lower() for word in known}
    if not known.issuperset(word.lower() for word in _single_words()):
        return
    for prompt in prompts:
        words = prompt.lower().replace(",", " ").replace(".", " ").split()
        unknown = [word for word in words if word.strip("'\"!?;:()") not in known]
        if unknown:
            raise ValueError(f"{'; '.join(map(answer, unknown))}. {sayable()}")


def answer(word: str) -> str:
    """What can be said in place of a word, or that nothing is near to it."""
    if word in NUMBERS or word.isdigit():
        return f"{word!r}: a picture shows one car; --n draws several"
    near = NEAREST.get(word)
    if not near:
        alike = get_close_matches(word, [*NEAREST, *_single_words()], n=1, cutoff=0.75)
        near = NEAREST.get(alike[0], alike[0]) if alike else None
    return f"{word!r} is not understood" + (
        f"; the nearest is {near!r}" if near else ""
    )


def sayable() -> str:
    """All that can be said, by kind, in one sentence."""
    parts = (f"{kind}: {', '.join(words)}" for kind, words in SAYABLE.items())
    return f"What can be said, by kind: {'; '.join(parts)}"


def _single_words() -> list[str]:
    return [word for words in SAYABLE.values() for w in words for word in w.split()]
