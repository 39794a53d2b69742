import pytest

from sharpen.core.errors import ConfigError
from sharpen.native import info


def use_flags(monkeypatch, *flags):
    monkeypatch.setattr(info, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(info.platform, "machine", lambda: "x86_64")


AVX2 = ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ((), ["scalar"]),
        (("avx2",), ["scalar"]),  # a processor without FMA
        (AVX2, ["scalar", "avx2"]),
        (AVX512, ["scalar", "avx2", "avx512"]),
        (AVX512[1:], ["scalar"]),
    ],
)
def test_a_variant_needs_every_extension_it_uses(monkeypatch, flags, names):
    use_flags(monkeypatch, *flags)
    assert info.supported() == names


def test_other_architectures_have_the_scalar_variant(monkeypatch):
    use_flags(monkeypatch, *AVX512)
    monkeypatch.setattr(info.platform, "machine", lambda: "aarch64")
    assert info.supported() == ["scalar"]


@pytest.mark.parametrize(
    ("asked", "found"), [("", "avx2"), ("1", "avx2"), ("0", None), ("scalar", "scalar")]
)
def test_the_best_variant_unless_another_is_asked_for(monkeypatch, asked, found):
    use_flags(monkeypatch, *AVX2)
    monkeypatch.setenv("SHARPEN_NATIVE", asked)
    assert info.variant() == found


@pytest.mark.parametrize("asked", ["avx512", "sse", "AVX2"])
def test_a_variant_that_cannot_run_here_is_refused(monkeypatch, asked):
    use_flags(monkeypatch, *AVX2)
    monkeypatch.setenv("SHARPEN_NATIVE", asked)
    with pytest.raises(ConfigError, match=f"{asked}.*scalar, avx2"):
        info.variant()


def test_the_compiler_is_the_one_asked_for(monkeypatch, tmp_path):
    other = tmp_path / "g++"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("CXX", str(other))
    assert info.compiler() == str(other)
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    assert info.compiler() is None
