"""Every model that ships loads, and computes what it did when it was stored."""

import json

import pytest
from references import FILE, shipped, signature

STORED = json.loads(FILE.read_text())


@pytest.mark.parametrize(("name", "kind"), shipped().items())
def test_shipped_model_computes_what_it_did(name, kind):
    got = signature(name, kind)
    assert len(set(got)) > 8  # not all clipped, not all equal
    assert got == pytest.approx(STORED[name], abs=1e-5)


def test_references_name_what_ships():
    assert STORED.keys() == shipped().keys()
