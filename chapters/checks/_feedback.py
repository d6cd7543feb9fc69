"""What every chapter's checks share: run the reader's function and answer in words.

A check tests properties of a function, and looks for the likely mistakes first, so that
each has its own hint. Write one as

    @exercise
    def check_doubled(doubled):
        reject(doubled(3) == 9, "that is the square: add, do not multiply")
        expect(doubled(3) == 6, f"doubled(3) must be 6, not {doubled(3)}")
        return "the value at 3"                  # what was verified, after 'passed: '
"""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import torch
from torch import Tensor

PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
WIDTH = 76  # characters that an output shows without scrolling


@dataclass(frozen=True)
class Result:
    """The answer to one attempt: a status, and what was verified or a hint."""

    status: str
    message: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else self.status

    def _ipython_display_(self) -> None:
        """Show nothing: the check has printed the answer already."""


class BrokenProperty(Exception):
    """A property does not hold; the message is the hint."""


def expect(holds: bool, hint: str) -> None:
    """Go on if the property holds, else end the check with the hint."""
    if not holds:
        raise BrokenProperty(hint)


def reject(seen: bool, hint: str) -> None:
    """End the check with the hint if a mistake is seen, else go on."""
    expect(not seen, hint)


def expect_given(value: object) -> None:
    """End the check unless the function has returned something."""
    reject(value is None, "the function returns None: is its `return` missing?")


def expect_tensor(value: object, shape: tuple[int, ...]) -> Tensor:
    """Return `value` if it is a finite tensor of that shape, else end the check."""
    expect_given(value)
    expect(
        isinstance(value, Tensor),
        f"the function must return a torch.Tensor, not {type(value).__name__}",
    )
    expect(
        value.shape == shape,
        f"the result must have the shape {tuple(shape)}, not {tuple(value.shape)}",
    )
    expect(bool(value.isfinite().all()), "the result holds infinite values or NaN")
    return value


def random_numbers(*shape: int, seed: int = 0) -> Tensor:
    """Return Gaussian numbers in float64 that are the same at every attempt."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def close(actual: Tensor | float, expected: Tensor | float, tolerance=1e-4) -> bool:
    """Tell whether two tensors or numbers agree, relative to 1 or to their size."""
    actual, expected = (
        torch.as_tensor(v, dtype=torch.float64) for v in (actual, expected)
    )
    return torch.allclose(actual, expected, rtol=tolerance, atol=tolerance)


def exercise(properties: Callable[[Callable], str]) -> Callable[[Callable], Result]:
    """Turn a function of properties into a check, which prints and returns a `Result`.

    A check never raises: a notebook with open exercises runs to its end.
    """

    @wraps(properties)
    def check(attempt: Callable) -> Result:
        result = _judge(properties, attempt)
        print(textwrap.fill(str(result), WIDTH))
        return result

    return check


def _judge(properties: Callable[[Callable], str], attempt: Callable) -> Result:
    try:
        return Result(PASSED, properties(attempt))
    except BrokenProperty as broken:
        return Result(FAILED, str(broken))
    except NotImplementedError as error:
        if not error.args:  # the stub's; torch raises it too, with a message
            return Result(NOT_ATTEMPTED)
        return _crashed(error)
    except Exception as error:  # whatever the reader's function does
        return _crashed(error)


def _crashed(error: Exception) -> Result:
    first_line = str(error).partition("\n")[0]
    return Result(FAILED, f"your function raised {type(error).__name__}: {first_line}")
