"""Plausible wrong answers to the exercises, one module a chapter.

`WRONG` maps the name of a check to pairs of a wrong answer and a part of the hint that
it must get; `tests/test_exercises.py` tries them all.
"""
