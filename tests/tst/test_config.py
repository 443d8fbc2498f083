"""The configuration refuses what cannot be built; the builder names the choices."""

from dataclasses import FrozenInstanceError, replace

import pytest

from depthbench.tst import TST, VARIANTS, TSTConfig, build_tst


def test_variants_are_the_three_named_rows_with_sixteen_tokens():
    assert list(VARIANTS) == ["tst-t", "tst-s", "tst-b"]
    assert {config.tokens for config in VARIANTS.values()} == {16}


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        VARIANTS["tst-s"].dim = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "dim is 128: it must be a multiple of heads, which is 7"),
        ({"heads": 0}, "heads is 0: it must be at least 1"),
        ({"max_depth": 0.0}, "max_depth is 0.0: it must be positive metres"),
        ({"grid": 0}, "grid is 0: it must be at least 1"),
        ({"layers": -1}, "layers is -1: it must be at least 1"),
    ],
)
def test_impossible_values_are_named(change, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole text is compared
        replace(VARIANTS["tst-t"], **change)
    assert str(error.value) == message


def test_build_tst_applies_overrides_to_the_named_row():
    model = build_tst("tst-t", layers=2, max_depth=80.0)
    assert isinstance(model, TST)
    assert model.config == replace(VARIANTS["tst-t"], layers=2, max_depth=80.0)


def test_build_tst_names_unknown_models_and_options():
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build_tst("tst-x")
    assert str(error.value) == "unknown TST 'tst-x': choose from tst-b, tst-s, tst-source, tst-t"
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build_tst("tst-t", depth=3)
    fields = ", ".join(sorted(TSTConfig.__dataclass_fields__))
    assert str(error.value) == f"unknown option 'depth' of tst-t: choose from {fields}"
    with pytest.raises(ValueError) as error:  # noqa: PT011
        build_tst("tst-source", dim=3)
    choices = "heads, hidden, layers, max_depth, scales, tokens"
    assert str(error.value) == f"unknown option 'dim' of tst-source: choose from {choices}"
